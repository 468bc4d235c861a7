"""Every wire format by the name that `core.request.Request.format` carries."""

import msgspec

from locavore.core.backend import Capability
from locavore.core.ports import WireFormat
from locavore.core.request import Conversation, ReasoningPart, Request
from locavore.wire.anthropic_messages.format import AnthropicCountTokens, AnthropicMessages
from locavore.wire.carried import HINTS, left_out, uncarried
from locavore.wire.faults import from_failure
from locavore.wire.openai_chat.format import OpenAIChat
from locavore.wire.openai_completions.format import OpenAICompletions
from locavore.wire.openai_embeddings.format import OpenAIEmbeddings
from locavore.wire.openai_responses.format import OpenAIResponses
from locavore.wire.redact import redact
from locavore.wire.retry import error_headers, read_retry_after, should_retry

CHAT = OpenAIChat()
COMPLETIONS = OpenAICompletions()
RESPONSES = OpenAIResponses()
EMBEDDINGS = OpenAIEmbeddings()
MESSAGES = AnthropicMessages()
COUNT_TOKENS = AnthropicCountTokens()

FORMATS: dict[str, WireFormat] = {
    CHAT.name: CHAT,
    COMPLETIONS.name: COMPLETIONS,
    RESPONSES.name: RESPONSES,
    EMBEDDINGS.name: EMBEDDINGS,
    MESSAGES.name: MESSAGES,
    COUNT_TOKENS.name: COUNT_TOKENS,
}

# What a body's `needs` already tell about a target, without decoding the messages.
_NEEDS: dict[str, dict[str, str]] = {
    MESSAGES.name: {
        Capability.SEED: "seed",
        Capability.LOGPROBS: "logprobs",
        Capability.CHOICES: "n",
        Capability.AUDIO: "input_audio",
        Capability.JSON_OBJECT: "response_format.json_object",
        Capability.RESPONSES: "tools",
        Capability.COMPLETIONS: "prompt",
    },
    RESPONSES.name: {
        Capability.SEED: "seed",
        Capability.LOGPROBS: "logprobs",
        Capability.CHOICES: "n",
        Capability.AUDIO: "input_audio",
        Capability.COMPLETIONS: "prompt",
    },
    CHAT.name: {Capability.RESPONSES: "tools", Capability.COMPLETIONS: "prompt"},
}
_UNTRANSLATED = frozenset({EMBEDDINGS.name, COUNT_TOKENS.name})
"""Formats whose answers no other format can give."""


def untranslatable(source: Request | Conversation, target: str) -> tuple[str, ...]:
    """Names of features that `target` cannot carry: routing leaves such a pair out (C28).

    A `Request` is judged by its needs alone, which is cheap and misses what stands deeper in the
    body; a `Conversation` is judged in full. `WireFormat.body` refuses by the same tables.
    """
    if isinstance(source, Conversation):
        return uncarried(source, target)
    if source.format == target:
        return ()
    if source.format in _UNTRANSLATED or target not in _NEEDS:
        return (f"a {source.format} call",)
    table = _NEEDS[target]
    return tuple(sorted({table[need] for need in source.needs if need in table}))


def unsigned(conversation: Conversation) -> Conversation:
    """Without earlier thinking: for a change of model within one dialect (C30)."""
    messages = tuple(
        msgspec.structs.replace(
            message, parts=tuple(p for p in message.parts if not isinstance(p, ReasoningPart))
        )
        for message in conversation.messages
    )
    return msgspec.structs.replace(conversation, messages=messages)


__all__ = [
    "CHAT",
    "COMPLETIONS",
    "COUNT_TOKENS",
    "EMBEDDINGS",
    "FORMATS",
    "HINTS",
    "MESSAGES",
    "RESPONSES",
    "error_headers",
    "from_failure",
    "left_out",
    "read_retry_after",
    "redact",
    "should_retry",
    "unsigned",
    "untranslatable",
]
