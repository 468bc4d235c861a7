"""OpenAI completions: `POST /v1/completions`."""
