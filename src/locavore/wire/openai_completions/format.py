"""The format's face. Chunks, usage and errors are read as those of chat completions."""

from locavore.core.events import Event
from locavore.core.request import Conversation, Request, Turn
from locavore.wire.openai_chat.format import OpenAIChat
from locavore.wire.openai_chat.reader import ChatReader, read_answer
from locavore.wire.openai_chat.scanner import ChatScanner
from locavore.wire.openai_completions.request import (
    NAME,
    read_conversation,
    read_request,
    read_turns,
    write_body,
)
from locavore.wire.openai_completions.writer import CompletionsWriter, answer_body


class OpenAICompletions(OpenAIChat):
    """`POST /v1/completions`."""

    name = NAME
    path = b"/completions"

    def request(self, body: bytes) -> Request:
        return read_request(body)

    def turns(self, body: bytes) -> list[Turn]:
        return read_turns(body)

    def conversation(self, body: bytes) -> Conversation:
        return read_conversation(body)

    def body(self, conversation: Conversation, *, model: str, stream: bool) -> bytes:
        return write_body(conversation, model=model, stream=stream)

    def stream_reader(self) -> ChatReader:
        return ChatReader(raw=True)

    def stream_writer(self, request: Request) -> CompletionsWriter:  # type: ignore[override] # a sibling
        return CompletionsWriter(request)

    def scanner(self, *, strip_usage: bool = False) -> ChatScanner:
        return ChatScanner(strip_usage=strip_usage, raw=True)

    def answer(self, body: bytes) -> list[Event]:
        return read_answer(body, raw=True)

    def answer_body(self, events: list[Event], request: Request) -> bytes:  # noqa: ARG002
        return answer_body(events)
