"""Usage blocks of everything that speaks chat completions -> `core.money.Usage`.

Shapes read here, each from its provider's public reference: OpenAI (details), vLLM and SGLang
(`prompt_tokens_details: null`), DeepSeek (`prompt_cache_hit_tokens`), Moonshot (`cached_tokens`,
and `usage` inside the choice), Groq (`x_groq.usage`), llama.cpp (`timings`), Gemini and xAI
(reasoning counted in `total_tokens` but not in `completion_tokens`).
"""

import msgspec

from locavore.core.money import Usage


class PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_tokens: int | None = None
    audio_tokens: int | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class ChatUsage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Timings(msgspec.Struct, gc=False):
    """llama.cpp: `prompt_n` counts only what was evaluated, `cache_n` what the slot still held."""

    prompt_n: int | None = None
    cache_n: int | None = None
    predicted_n: int | None = None


class GroqUsage(msgspec.Struct, gc=False):
    usage: ChatUsage | None = None


class Answer(msgspec.Struct, gc=False):
    usage: ChatUsage | None = None
    timings: Timings | None = None
    x_groq: GroqUsage | None = None


_DECODE = msgspec.json.Decoder(Answer).decode
_NO_PROMPT = PromptDetails()
_NO_COMPLETION = CompletionDetails()


def read_usage(body: bytes) -> Usage | None:
    """Usage of a whole answer or of one chunk; None when it says nothing (C67)."""
    try:
        return usage_of(_DECODE(body))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def usage_of(answer: Answer) -> Usage | None:
    if answer.usage is not None:
        usage = canonical(answer.usage)
        if usage.cache_read_tokens is None and answer.timings is not None:
            return msgspec.structs.replace(usage, cache_read_tokens=answer.timings.cache_n)
        return usage
    if answer.x_groq is not None and answer.x_groq.usage is not None:
        return canonical(answer.x_groq.usage)
    return _from_timings(answer.timings) if answer.timings is not None else None


def canonical(usage: ChatUsage) -> Usage:
    if _is_plain(usage):
        return Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
    prompt = usage.prompt_tokens_details or _NO_PROMPT
    completion = usage.completion_tokens_details or _NO_COMPLETION
    output, reasoning = _output(usage, completion)
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=output,
        cache_read_tokens=_first(
            prompt.cached_tokens, usage.prompt_cache_hit_tokens, usage.cached_tokens
        ),
        cache_write_tokens=_first(prompt.cache_write_tokens, prompt.cache_creation_tokens),
        reasoning_tokens=reasoning,
        input_audio_tokens=prompt.audio_tokens,
        output_audio_tokens=completion.audio_tokens,
    )


def _is_plain(usage: ChatUsage) -> bool:
    """Two counts and their sum: what most local engines send."""
    prompt, output = usage.prompt_tokens, usage.completion_tokens
    return (
        prompt is not None
        and output is not None
        and usage.total_tokens == prompt + output
        and usage.prompt_tokens_details is None
        and usage.completion_tokens_details is None
        and usage.prompt_cache_hit_tokens is None
        and usage.cached_tokens is None
        and usage.reasoning_tokens is None
    )


def _output(usage: ChatUsage, details: CompletionDetails) -> tuple[int | None, int | None]:
    """(output including reasoning, reasoning): some providers count reasoning beside."""
    reasoning = _first(details.reasoning_tokens, usage.reasoning_tokens)
    prompt, output, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
    if prompt is None or output is None or total is None:
        return output, reasoning
    beside = total - prompt - output
    if beside <= 0:
        return output, reasoning
    return output + beside, beside if reasoning is None else reasoning


def _first(*values: int | None) -> int | None:
    for value in values:
        if value is not None:
            return value
    return None


def _from_timings(timings: Timings) -> Usage | None:
    if timings.prompt_n is None or timings.predicted_n is None:
        return None
    return Usage(
        input_tokens=timings.prompt_n + (timings.cache_n or 0),
        output_tokens=timings.predicted_n,
        cache_read_tokens=timings.cache_n,
    )


def usage_json(usage: Usage) -> dict[str, object]:
    """The OpenAI view; sides that nobody knows are 0 because the schema requires numbers."""
    prompt = usage.input_tokens or 0
    output = usage.output_tokens or 0
    view: dict[str, object] = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
    }
    details = _without_none(
        cached_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        audio_tokens=usage.input_audio_tokens,
    )
    if details:
        view["prompt_tokens_details"] = details
    details = _without_none(
        reasoning_tokens=usage.reasoning_tokens, audio_tokens=usage.output_audio_tokens
    )
    if details:
        view["completion_tokens_details"] = details
    return view


def _without_none(**values: int | None) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}
