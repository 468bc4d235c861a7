"""Anthropic usage <-> `core.money.Usage`.

`input_tokens` excludes what was read from and written to the cache; the canonical record counts
all three. Source: anthropic-python, `types/usage.py`.
"""

import msgspec

from locavore.core.money import Usage


class OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: int | None = None


class WireUsage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: WireUsage | None = None


_DECODE = msgspec.json.Decoder(_Answer).decode


def read_usage(body: bytes) -> Usage | None:
    """Usage of a whole answer; None when it says nothing."""
    try:
        usage = _DECODE(body).usage
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return canonical(usage) if usage is not None else None


def canonical(usage: WireUsage) -> Usage:
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    total = usage.input_tokens
    if total is not None:
        total += (read or 0) + (written or 0)
    details = usage.output_tokens_details
    return Usage(
        input_tokens=total,
        output_tokens=usage.output_tokens,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=details.thinking_tokens if details is not None else None,
    )


def opening(usage: WireUsage | None) -> WireUsage | None:
    """What `message_start` knows: the prompt. Its `output_tokens` is a placeholder."""
    if usage is None:
        return None
    return msgspec.structs.replace(usage, output_tokens=None, output_tokens_details=None)


def merged(start: WireUsage | None, end: WireUsage | None) -> WireUsage | None:
    """Usage of a stream: what `message_delta` says wins over `message_start`."""
    if start is None or end is None:
        return end or start
    return WireUsage(
        input_tokens=_either(end.input_tokens, start.input_tokens),
        output_tokens=_either(end.output_tokens, start.output_tokens),
        cache_read_input_tokens=_either(end.cache_read_input_tokens, start.cache_read_input_tokens),
        cache_creation_input_tokens=_either(
            end.cache_creation_input_tokens, start.cache_creation_input_tokens
        ),
        output_tokens_details=end.output_tokens_details or start.output_tokens_details,
    )


def _either(first: int | None, second: int | None) -> int | None:
    return second if first is None else first


def usage_json(usage: Usage) -> dict[str, object]:
    """Anthropic's view; the two sides are required numbers there."""
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    view: dict[str, object] = {
        "input_tokens": max((usage.input_tokens or 0) - (read or 0) - (written or 0), 0),
        "output_tokens": usage.output_tokens or 0,
    }
    if read is not None:
        view["cache_read_input_tokens"] = read
    if written is not None:
        view["cache_creation_input_tokens"] = written
    if usage.reasoning_tokens is not None:
        view["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return view
