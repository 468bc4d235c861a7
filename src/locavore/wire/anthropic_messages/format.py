"""The format's face: `locavore.wire.formats` holds one instance of each."""

from collections.abc import Sequence

from locavore.core.errors import LocavoreError, UpstreamError
from locavore.core.events import Event
from locavore.core.money import Usage
from locavore.core.request import Conversation, Request, Turn
from locavore.wire.anthropic_messages.body import write_body
from locavore.wire.anthropic_messages.conversation import read_conversation
from locavore.wire.anthropic_messages.errors import error_body, upstream_error
from locavore.wire.anthropic_messages.reader import MessagesReader, read_answer
from locavore.wire.anthropic_messages.request import (
    COUNT_NAME,
    NAME,
    read_count_request,
    read_request,
    read_turns,
)
from locavore.wire.anthropic_messages.scanner import MessagesScanner
from locavore.wire.anthropic_messages.usage import read_usage
from locavore.wire.anthropic_messages.writer import PING, MessagesWriter, answer_body
from locavore.wire.decoding import encode
from locavore.wire.faults import Headers
from locavore.wire.splice import rewrite


class AnthropicMessages:
    """`POST /v1/messages`."""

    name = NAME
    path = b"/messages"

    def request(self, body: bytes) -> Request:
        return read_request(body)

    def turns(self, body: bytes) -> list[Turn]:
        return read_turns(body)

    def conversation(self, body: bytes) -> Conversation:
        return read_conversation(body)

    def body(self, conversation: Conversation, *, model: str, stream: bool) -> bytes:
        return write_body(conversation, model=model, stream=stream)

    def rewrite(
        self,
        body: bytes,
        request: Request,
        *,
        model: str,
        add_usage: bool = False,  # noqa: ARG002 - messages streams always tell it
        drop_labels: bool = True,
        drop: Sequence[str] = (),
    ) -> bytes:
        return rewrite(
            body, model=model, old_model=request.model, drop_marks=drop_labels, drop=drop
        )

    def stream_reader(self) -> MessagesReader:
        return MessagesReader()

    def stream_writer(self, request: Request) -> MessagesWriter:
        return MessagesWriter(request)

    def scanner(self, *, strip_usage: bool = False) -> MessagesScanner:
        return MessagesScanner(strip_usage=strip_usage)

    def answer(self, body: bytes) -> list[Event]:
        return read_answer(body)

    def answer_body(self, events: list[Event], request: Request) -> bytes:  # noqa: ARG002
        return answer_body(events)

    def usage(self, body: bytes) -> Usage | None:
        return read_usage(body)

    def ping(self) -> bytes:
        return PING

    def error_body(self, error: LocavoreError, request_id: str = "") -> bytes:
        return error_body(error, request_id)

    def upstream_error(
        self, status: int, headers: Headers, body: bytes, backend_id: str
    ) -> UpstreamError:
        return upstream_error(status, headers, body, backend_id)


class AnthropicCountTokens(AnthropicMessages):
    """`POST /v1/messages/count_tokens`: the prompt is counted, nothing is generated."""

    name = COUNT_NAME
    path = b"/messages/count_tokens"

    def request(self, body: bytes) -> Request:
        return read_count_request(body)

    def body(self, conversation: Conversation, *, model: str, stream: bool) -> bytes:
        return write_body(conversation, model=model, stream=stream, count=True)

    def count_body(self, input_tokens: int) -> bytes:
        """The answer, with the figure that the caller knows or has estimated."""
        return encode({"input_tokens": input_tokens})
