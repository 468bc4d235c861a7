"""`finish_reason`, both ways (C23)."""

from locavore.core.events import FinishReason

READ: dict[str, FinishReason] = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,  # Together
    "eos_token": FinishReason.STOP,  # TGI
    "stop_sequence": FinishReason.STOP_SEQUENCE,  # TGI
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,  # Mistral
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "sensitive": FinishReason.CONTENT_FILTER,  # Zhipu
}
WRITTEN: dict[FinishReason, str] = {
    FinishReason.STOP: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.REFUSAL: "content_filter",
    FinishReason.PAUSE: "stop",
}


def read_reason(word: str, *, called_tools: bool) -> FinishReason:
    """Text, then tools, then `stop`: several engines say so, and mean a tool call."""
    reason = READ.get(word, FinishReason.STOP)
    if called_tools and reason is FinishReason.STOP:
        return FinishReason.TOOL_CALLS
    return reason
