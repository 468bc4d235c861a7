"""A completions body as the router sees it, and as a conversation for backends that only chat."""

from typing import Any

import msgspec

from locavore.core.backend import Capability
from locavore.core.errors import RequestError
from locavore.core.request import Conversation, Message, Request, TextPart, Turn
from locavore.wire.decoding import decode_object, decode_request, encode, untranslatable
from locavore.wire.labelling import read_marks
from locavore.wire.openai_chat.conversation import unmarked
from locavore.wire.openai_chat.request import StreamOptions, text_bytes
from locavore.wire.typed import items, mapping, number, text, whole

NAME = "openai_completions"


class CompletionsRequest(msgspec.Struct, gc=False):
    model: str
    prompt: str | list[str | int | list[int]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    seed: int | None = None
    user: str | None = None
    metadata: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(CompletionsRequest)
_READ = frozenset(
    {
        "model",
        "prompt",
        "stream",
        "stream_options",
        "max_tokens",
        "n",
        "temperature",
        "top_p",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "user",
        "metadata",
    }
)


def read_request(body: bytes) -> Request:
    """Raises RequestError naming the field and the value."""
    wire = decode_request(_DECODER, body)
    if not wire.model:
        raise RequestError("model: expected a name, got ''", param="model")
    if wire.prompt is None:
        raise RequestError("prompt is required", param="prompt", code="missing_required_parameter")
    if wire.max_tokens is not None and wire.max_tokens < 0:
        raise RequestError(
            f"max_tokens: expected at least 0, got {wire.max_tokens}", param="max_tokens"
        )
    marks = read_marks(wire.metadata)
    options = wire.stream_options
    return Request(
        format=NAME,
        model=wire.model,
        body=body,
        stream=wire.stream is True,
        include_usage=options is not None and options.include_usage is True,
        max_output_tokens=16 if wire.max_tokens is None else wire.max_tokens,  # the API's default
        n=wire.n or 1,
        needs=_needs(wire),
        labels=marks.labels,
        session=marks.session,
        user=wire.user,
        prompt_bytes=_prompt_bytes(wire.prompt),
    )


def _prompt_bytes(prompt: str | list[str | int | list[int]]) -> int:
    """Token ids count four bytes each, the usual length of a token's text."""
    if isinstance(prompt, str):
        return text_bytes(prompt)
    total = 0
    for part in prompt:
        if isinstance(part, str):
            total += text_bytes(part)
        else:
            total += 4 * len(part) if isinstance(part, list) else 4
    return total


def _needs(wire: CompletionsRequest) -> frozenset[str]:
    """A plain prompt can be answered by a chat; anything else needs the real endpoint."""
    plain = isinstance(wire.prompt, str) or (
        isinstance(wire.prompt, list) and len(wire.prompt) == 1 and isinstance(wire.prompt[0], str)
    )
    beyond = wire.echo or wire.suffix or wire.logprobs is not None or (wire.best_of or 1) > 1
    needs = {Capability.CHAT.value if plain and not beyond else Capability.COMPLETIONS.value}
    if (wire.n or 1) > 1:
        needs.add(Capability.CHOICES)
    if wire.seed is not None:
        needs.add(Capability.SEED)
    return frozenset(needs)


def read_turns(body: bytes) -> list[Turn]:
    """A prompt is what one user says."""
    prompt = decode_request(_DECODER, body).prompt
    if isinstance(prompt, list):
        prompt = next((part for part in prompt if isinstance(part, str)), "")
    return [Turn("user", prompt or "")]


def read_conversation(body: bytes) -> Conversation:
    """A plain prompt as a user message. Raises RequestError for all that a chat cannot carry."""
    fields = decode_object(body)
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise untranslatable("prompt", "openai_chat", "several prompts or token ids")
    for name in ("suffix", "echo", "logprobs", "best_of"):
        if fields.get(name) not in (None, False, 1 if name == "best_of" else None):
            raise untranslatable(name, "openai_chat")
    stop = fields.get("stop")
    tokens = whole(fields, "max_tokens")
    return Conversation(
        origin=NAME,
        messages=(Message(role="user", parts=(TextPart(text=prompt),)),),
        max_output_tokens=16 if tokens is None else tokens,
        temperature=number(fields, "temperature"),
        top_p=number(fields, "top_p"),
        stop=(stop,) if isinstance(stop, str) else tuple(items(fields, "stop", "")),
        seed=whole(fields, "seed"),
        n=whole(fields, "n") or 1,
        presence_penalty=number(fields, "presence_penalty"),
        frequency_penalty=number(fields, "frequency_penalty"),
        user=text(fields, "user"),
        metadata=unmarked(mapping(fields, "metadata", "") or {}),
        extra={k: v for k, v in fields.items() if k not in _READ and v is not None},
    )


def write_body(conversation: Conversation, *, model: str, stream: bool) -> bytes:
    """Only for conversations that came from completions: a chat is not one prompt."""
    if conversation.origin != NAME or len(conversation.messages) != 1:
        raise untranslatable("messages", NAME)
    words = [p.text for p in conversation.messages[0].parts if isinstance(p, TextPart)]
    fields: dict[str, Any] = {"model": model, "prompt": "".join(words), **conversation.extra}
    if stream:
        fields["stream"] = True
        fields["stream_options"] = {"include_usage": True}
    optional = {
        "max_tokens": conversation.max_output_tokens,
        "temperature": conversation.temperature,
        "top_p": conversation.top_p,
        "stop": list(conversation.stop) or None,
        "seed": conversation.seed,
        "n": conversation.n if conversation.n > 1 else None,
        "presence_penalty": conversation.presence_penalty,
        "frequency_penalty": conversation.frequency_penalty,
        "user": conversation.user,
        "metadata": conversation.metadata or None,
    }
    fields.update({name: value for name, value in optional.items() if value is not None})
    return encode(fields)
