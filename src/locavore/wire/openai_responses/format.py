"""The format's face: `locavore.wire.formats` holds one instance."""

from collections.abc import Sequence

from locavore.core.errors import LocavoreError, UpstreamError
from locavore.core.events import Event
from locavore.core.money import Usage
from locavore.core.request import Conversation, Request, Turn
from locavore.wire.faults import Headers
from locavore.wire.openai_chat.errors import error_body, upstream_error
from locavore.wire.openai_responses.body import write_body
from locavore.wire.openai_responses.conversation import read_conversation
from locavore.wire.openai_responses.reader import ResponsesReader, read_answer
from locavore.wire.openai_responses.request import NAME, read_request, read_turns
from locavore.wire.openai_responses.scanner import ResponsesScanner
from locavore.wire.openai_responses.usage import read_usage
from locavore.wire.openai_responses.writer import PING, ResponsesWriter, answer_body
from locavore.wire.splice import rewrite


class OpenAIResponses:
    """`POST /v1/responses`."""

    name = NAME
    path = b"/responses"

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
        add_usage: bool = False,  # noqa: ARG002 - responses streams always tell it
        drop_labels: bool = True,
        drop: Sequence[str] = (),
    ) -> bytes:
        return rewrite(
            body,
            model=model,
            old_model=request.model,
            drop_marks=drop_labels,
            drop=drop,
            unstored=bool(request.labels),
        )

    def stream_reader(self) -> ResponsesReader:
        return ResponsesReader()

    def stream_writer(self, request: Request) -> ResponsesWriter:
        return ResponsesWriter(request)

    def scanner(self, *, strip_usage: bool = False) -> ResponsesScanner:
        return ResponsesScanner(strip_usage=strip_usage)

    def answer(self, body: bytes) -> list[Event]:
        return read_answer(body)

    def answer_body(self, events: list[Event], request: Request) -> bytes:
        return answer_body(events, request)

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
