"""The format's face. Chunks, usage and errors are read as those of chat completions."""

from locavore.core.events import Event
from locavore.core.request import Request
from locavore.wire.face import Face
from locavore.wire.openai_chat.errors import error_body, upstream_error
from locavore.wire.openai_chat.reader import ChatReader, read_answer
from locavore.wire.openai_chat.scanner import ChatScanner
from locavore.wire.openai_chat.usage import read_usage
from locavore.wire.openai_chat.writer import PING
from locavore.wire.openai_completions.request import (
    NAME,
    read_conversation,
    read_request,
    read_turns,
    write_body,
)
from locavore.wire.openai_completions.writer import CompletionsWriter, answer_body


class OpenAICompletions(Face):
    """`POST /v1/completions`."""

    name = NAME
    path = b"/completions"
    PING = PING
    asks_usage = True
    request = staticmethod(read_request)
    turns = staticmethod(read_turns)
    conversation = staticmethod(read_conversation)
    body = staticmethod(write_body)
    stream_writer = staticmethod(CompletionsWriter)
    usage = staticmethod(read_usage)
    error_body = staticmethod(error_body)
    upstream_error = staticmethod(upstream_error)

    def stream_reader(self) -> ChatReader:
        return ChatReader(raw=True)

    def scanner(self, *, strip_usage: bool = False) -> ChatScanner:
        return ChatScanner(strip_usage=strip_usage, raw=True)

    def answer(self, body: bytes) -> list[Event]:
        return read_answer(body, raw=True)

    def answer_body(self, events: list[Event], request: Request) -> bytes:  # noqa: ARG002
        return answer_body(events)
