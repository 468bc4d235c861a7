"""One chunk of a chat stream, and one choice of a whole answer, typed."""

from typing import Any

import msgspec

from locavore.wire.openai_chat.tool_calls import CallDelta
from locavore.wire.openai_chat.usage import Answer, ChatUsage


class Delta(msgspec.Struct, gc=False):
    """`delta` of a chunk and `message` of a whole answer have the same fields."""

    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None  # DeepSeek, vLLM, llama.cpp
    reasoning: str | None = None  # OpenRouter, Groq, Ollama, vLLM from 0.12
    tool_calls: list[CallDelta] | None = None
    function_call: msgspec.Raw = msgspec.Raw()

    @property
    def thought(self) -> str:
        return self.reasoning_content or self.reasoning or ""

    @property
    def words(self) -> str:
        """The text; Mistral's reasoning models send parts in place of a string."""
        if isinstance(self.content, list):
            return "".join(str(part.get("text") or "") for part in self.content)
        return self.content or ""

    @property
    def says_something(self) -> bool:
        return bool(self.content or self.thought or self.refusal or self.tool_calls)


class Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None  # completions
    finish_reason: str | None = None
    stop_reason: str | int | None = None  # vLLM: the stop string or token that ended it
    logprobs: msgspec.Raw = msgspec.Raw()
    usage: ChatUsage | None = None  # Moonshot


def said(choice: Choice) -> Delta | None:
    """What a choice says, whichever of the three places holds it."""
    if choice.text is not None:
        return Delta(content=choice.text)
    return choice.delta or choice.message


class Chunk(Answer, gc=False):
    id: str | None = None
    model: str | None = None
    created: float | None = None
    choices: list[Choice] | None = None
    error: msgspec.Raw = msgspec.Raw()

    @property
    def failed(self) -> bool:
        raw = bytes(self.error)
        return bool(raw) and raw != b"null"


def text_alone(chunk: Chunk) -> str | None:
    """The text of a chunk that says nothing else; None when it may say more."""
    choices = chunk.choices
    if not choices or len(choices) > 1 or chunk.usage or chunk.timings or chunk.x_groq:
        return None
    choice = choices[0]
    delta = said(choice)
    if delta is None or choice.finish_reason or choice.usage or delta.tool_calls or delta.refusal:
        return None
    content, thought = delta.content, delta.thought
    if not isinstance(content, str | None) or (content and thought):
        return None
    return content or thought or None


decode_chunk = msgspec.json.Decoder(Chunk).decode

DECODE_ERRORS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
