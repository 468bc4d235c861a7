"""The format's face: `locavore.wire.formats` holds one instance."""

from collections.abc import Sequence

from locavore.core.errors import LocavoreError, UpstreamError
from locavore.core.events import Event
from locavore.core.money import Usage
from locavore.core.request import Conversation, Request, Turn
from locavore.wire.faults import Headers
from locavore.wire.openai_chat.body import write_body
from locavore.wire.openai_chat.conversation import read_conversation
from locavore.wire.openai_chat.errors import error_body, upstream_error
from locavore.wire.openai_chat.reader import ChatReader, read_answer
from locavore.wire.openai_chat.request import NAME, read_request, read_turns
from locavore.wire.openai_chat.scanner import ChatScanner
from locavore.wire.openai_chat.usage import read_usage
from locavore.wire.openai_chat.writer import PING, ChatWriter, answer_body
from locavore.wire.splice import rewrite


class OpenAIChat:
    """`POST /v1/chat/completions`."""

    name = NAME
    path = b"/chat/completions"
    """Below a base URL that ends in `/v1`."""

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
        add_usage: bool = False,
        drop_labels: bool = True,
        drop: Sequence[str] = (),
    ) -> bytes:
        return rewrite(
            body,
            model=model,
            old_model=request.model,
            add_usage=add_usage,
            drop_marks=drop_labels,
            drop=drop,
        )

    def stream_reader(self) -> ChatReader:
        return ChatReader()

    def stream_writer(self, request: Request) -> ChatWriter:
        return ChatWriter(request)

    def scanner(self, *, strip_usage: bool = False) -> ChatScanner:
        return ChatScanner(strip_usage=strip_usage)

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
