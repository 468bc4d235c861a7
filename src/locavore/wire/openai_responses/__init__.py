"""OpenAI responses: `POST /v1/responses`, without stored state."""
