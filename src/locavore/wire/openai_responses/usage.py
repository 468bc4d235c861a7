"""Responses usage <-> `core.money.Usage`: both count cached and reasoning tokens as parts."""

import msgspec

from locavore.core.money import Usage


class InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: WireUsage | None = None


_DECODE = msgspec.json.Decoder(_Answer).decode
_NO_INPUT = InputDetails()
_NO_OUTPUT = OutputDetails()


def read_usage(body: bytes) -> Usage | None:
    """Usage of a whole answer; None when it says nothing."""
    try:
        usage = _DECODE(body).usage
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return canonical(usage) if usage is not None else None


def canonical(usage: WireUsage) -> Usage:
    given = usage.input_tokens_details or _NO_INPUT
    made = usage.output_tokens_details or _NO_OUTPUT
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=given.cached_tokens,
        cache_write_tokens=given.cache_write_tokens,
        reasoning_tokens=made.reasoning_tokens,
    )


def usage_json(usage: Usage) -> dict[str, object]:
    """The schema requires every number, so what nobody knows reads 0 here."""
    given, made = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": given,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": given + made,
    }
