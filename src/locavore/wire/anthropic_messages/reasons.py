"""`stop_reason`, both ways (C23). Source: anthropic-python, `types/stop_reason.py`."""

from locavore.core.events import FinishReason

READ: dict[str, FinishReason] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.REFUSAL,
    "pause_turn": FinishReason.PAUSE,
}
WRITTEN: dict[FinishReason, str] = {
    FinishReason.STOP: "end_turn",
    FinishReason.STOP_SEQUENCE: "stop_sequence",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
    FinishReason.REFUSAL: "refusal",
    FinishReason.PAUSE: "pause_turn",
}


def read_reason(word: str, *, called_tools: bool) -> FinishReason:
    """An answer that calls tools and says `end_turn` waits for their results all the same."""
    reason = READ.get(word, FinishReason.STOP)
    if called_tools and reason is FinishReason.STOP:
        return FinishReason.TOOL_CALLS
    return reason
