"""Embeddings pass through between equal formats only: vectors have no translation (C57)."""

from typing import Any, NoReturn

import msgspec

from locavore.core.backend import Capability
from locavore.core.errors import RequestError
from locavore.core.events import Event
from locavore.core.money import Usage
from locavore.core.request import Conversation, Request, Turn
from locavore.wire.decoding import decode_request, untranslatable
from locavore.wire.face import Face
from locavore.wire.labelling import read_marks
from locavore.wire.openai_chat.errors import error_body, upstream_error
from locavore.wire.openai_chat.request import text_bytes
from locavore.wire.openai_chat.usage import read_usage

NAME = "openai_embeddings"


class EmbeddingsRequest(msgspec.Struct, gc=False):
    model: str
    input: str | list[str | int | list[int]]
    user: str | None = None
    metadata: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(EmbeddingsRequest)


class OpenAIEmbeddings(Face):
    """`POST /v1/embeddings`. Its errors are chat's; there is no stream and no conversation."""

    name = NAME
    path = b"/embeddings"
    PING = b""
    error_body = staticmethod(error_body)
    upstream_error = staticmethod(upstream_error)

    def request(self, body: bytes) -> Request:
        wire = decode_request(_DECODER, body)
        if not wire.model:
            raise RequestError("model: expected a name, got ''", param="model")
        if not wire.input:
            raise RequestError("input: expected text, got nothing", param="input")
        marks = read_marks(wire.metadata)
        return Request(
            format=NAME,
            model=wire.model,
            body=body,
            max_output_tokens=0,
            needs=frozenset({Capability.EMBEDDINGS.value}),
            labels=marks.labels,
            session=marks.session,
            user=wire.user,
            prompt_bytes=_input_bytes(wire.input),
        )

    def turns(self, body: bytes) -> list[Turn]:
        given = decode_request(_DECODER, body).input
        words = given if isinstance(given, str) else given[0]
        return [Turn("user", words if isinstance(words, str) else "")]

    def usage(self, body: bytes) -> Usage | None:
        """An embedding generates nothing: its output is 0 tokens, not unknown."""
        usage = read_usage(body)
        if usage is None or usage.input_tokens is None:
            return usage
        return msgspec.structs.replace(usage, output_tokens=0)

    def conversation(self, body: bytes) -> Conversation:  # noqa: ARG002
        _refuse()

    def body(self, conversation: Conversation, *, model: str, stream: bool) -> bytes:  # noqa: ARG002
        _refuse()

    def stream_reader(self) -> NoReturn:
        _refuse()

    def stream_writer(self, request: Request) -> NoReturn:  # noqa: ARG002
        _refuse()

    def scanner(self, *, strip_usage: bool = False) -> NoReturn:  # noqa: ARG002
        _refuse()

    def answer(self, body: bytes) -> list[Event]:  # noqa: ARG002
        _refuse()

    def answer_body(self, events: list[Event], request: Request) -> bytes:  # noqa: ARG002
        _refuse()


def _refuse(*_: Any) -> NoReturn:
    raise untranslatable("input", "another format", "vectors of two models do not compare")


def _input_bytes(given: str | list[str | int | list[int]]) -> int:
    """Token ids count four bytes each, the usual length of a token's text."""
    if isinstance(given, str):
        return text_bytes(given)
    total = 0
    for part in given:
        if isinstance(part, str):
            total += text_bytes(part)
        else:
            total += 4 * len(part) if isinstance(part, list) else 4
    return total
