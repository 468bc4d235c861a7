"""What each format can carry, as data. Used before routing and again when a body is written.

`UNCARRIED` are features of a `Conversation` that a format has no place for. `HINTS` are fields
that change no word of the answer: a translation leaves them out and says so (C33).
"""

from collections.abc import Callable

from locavore.core.request import (
    AudioPart,
    Conversation,
    DocumentPart,
    Part,
    ToolResultPart,
)
from locavore.wire.decoding import untranslatable

HINTS = frozenset(
    {
        "store",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "safety_identifier",
        "verbosity",
        "service_tier",
        "metadata",
        "user",
        "cache_control",
        "truncation",
        "include",
        "prediction",
        "inference_geo",
        "user_profile_id",
        "workspace_id",
        "speed",
        "diagnostics",
        "context_management",
        "betas",
        "client_metadata",
        "reasoning",
        "thinking",
        "output_config",
    }
)
"""Caching, billing, tracing and style hints of any dialect."""

_Test = Callable[[Conversation], bool]


def _parts(conversation: Conversation, kind: type) -> bool:
    return any(isinstance(part, kind) for part in all_parts(conversation))


def all_parts(conversation: Conversation) -> list[Part]:
    """Every part, those inside tool results too."""
    found: list[Part] = []
    for message in conversation.messages:
        for part in message.parts:
            found.append(part)
            if isinstance(part, ToolResultPart):
                found.extend(part.content)
    return found


def _document_urls(conversation: Conversation) -> bool:
    return any(
        isinstance(part, DocumentPart) and part.url is not None for part in all_parts(conversation)
    )


def _file_ids(conversation: Conversation) -> bool:
    return any(
        isinstance(part, DocumentPart) and part.file_id is not None
        for part in all_parts(conversation)
    )


_SEED: tuple[str, _Test] = ("seed", lambda c: c.seed is not None)
_CHOICES: tuple[str, _Test] = ("n", lambda c: c.n > 1)
_PENALTIES: tuple[tuple[str, _Test], ...] = (
    ("presence_penalty", lambda c: bool(c.presence_penalty)),
    ("frequency_penalty", lambda c: bool(c.frequency_penalty)),
)
_AUDIO: tuple[str, _Test] = ("input_audio", lambda c: _parts(c, AudioPart))
_TOP_K: tuple[str, _Test] = ("top_k", lambda c: c.top_k is not None)
_STOP: tuple[str, _Test] = ("stop", lambda c: bool(c.stop))
# Each dialect has its own form or its own store of these.
_OWN: tuple[tuple[str, _Test], ...] = (
    ("logprobs", lambda c: c.logprobs),
    ("file_id", _file_ids),
)

UNCARRIED: dict[str, tuple[tuple[str, _Test], ...]] = {
    "openai_chat": (("document_url", _document_urls),),
    "anthropic_messages": (
        _SEED,
        _CHOICES,
        *_PENALTIES,
        _AUDIO,
        ("response_format.json_object", lambda c: c.output.kind == "json_object"),
        ("temperature", lambda c: (c.temperature or 0) > 1),
    ),
    "openai_responses": (_SEED, _CHOICES, *_PENALTIES, _AUDIO, _TOP_K, _STOP),
    "openai_completions": (("messages", lambda c: c.origin != "openai_completions"),),
}


def uncarried(conversation: Conversation, target: str) -> tuple[str, ...]:
    """Names of features that `target` cannot carry; empty when it carries all."""
    if target not in UNCARRIED:
        return (f"a {conversation.origin} call",)
    found = [name for name, test in UNCARRIED[target] if test(conversation)]
    if conversation.origin != target:
        found += [name for name, test in _OWN if test(conversation)]
        found += sorted(name for name in conversation.extra if name not in HINTS)
    return tuple(found)


def left_out(conversation: Conversation, target: str) -> tuple[str, ...]:
    """Names of hints that a translation to `target` leaves out, for the response header."""
    if conversation.origin == target:
        return ()
    found = [name for name in conversation.extra if name in HINTS]
    found += ["metadata"] if conversation.metadata else []
    found += ["service_tier"] if conversation.service_tier else []
    return tuple(sorted(found))


def check_carried(conversation: Conversation, target: str) -> None:
    """Raise RequestError (`untranslatable`) for the first feature that `target` cannot carry."""
    if missing := uncarried(conversation, target):
        raise untranslatable(missing[0], target)
