"""An engine that drops the front of a long prompt and answers all the same (C40)."""


def truncated(expected_tokens_low: float, reported_prompt_tokens: int | None) -> bool:
    """Whether an engine dropped part of a prompt, by its own count.

    It must have read at least the low end of what the prompt can be; one that reports fewer has
    not seen all of it. A count that is missing, or zero (an engine that does not count), proves
    nothing. Cached tokens are part of the report, so reuse of a prefix does not look like a cut.
    """
    if not reported_prompt_tokens:
        return False
    return reported_prompt_tokens < expected_tokens_low
