"""What OpenTelemetry's conventions for generative AI call our formats and providers."""

_OPERATIONS = {
    "openai_chat": "chat",
    "openai_responses": "chat",
    "anthropic_messages": "chat",
    "openai_completions": "text_completion",
    "openai_embeddings": "embeddings",
}
_PROVIDERS = {"gemini": "gcp.gemini", "mistral": "mistral_ai", "xai": "x_ai"}


def operation(request_format: str) -> str:
    """`gen_ai.operation.name`; a format that has none is named as it is here."""
    return _OPERATIONS.get(request_format, request_format)


def provider(name: str) -> str:
    """`gen_ai.provider.name`: the well-known value where ours differs."""
    return _PROVIDERS.get(name, name)
