"""The format's face: `locavore.wire.formats` holds one instance."""

from locavore.core.events import Event
from locavore.core.request import Request
from locavore.wire.face import Face
from locavore.wire.openai_chat.body import write_body
from locavore.wire.openai_chat.conversation import read_conversation
from locavore.wire.openai_chat.errors import error_body, upstream_error
from locavore.wire.openai_chat.reader import ChatReader, read_answer
from locavore.wire.openai_chat.request import NAME, read_request, read_turns
from locavore.wire.openai_chat.scanner import ChatScanner
from locavore.wire.openai_chat.usage import read_usage
from locavore.wire.openai_chat.writer import PING, ChatWriter, answer_body


class OpenAIChat(Face):
    """`POST /v1/chat/completions`."""

    name = NAME
    path = b"/chat/completions"
    """Below a base URL that ends in `/v1`."""
    PING = PING
    asks_usage = True
    request = staticmethod(read_request)
    turns = staticmethod(read_turns)
    conversation = staticmethod(read_conversation)
    body = staticmethod(write_body)
    stream_reader = staticmethod(ChatReader)
    stream_writer = staticmethod(ChatWriter)
    scanner = staticmethod(ChatScanner)
    answer = staticmethod(read_answer)
    usage = staticmethod(read_usage)
    error_body = staticmethod(error_body)
    upstream_error = staticmethod(upstream_error)

    def answer_body(self, events: list[Event], request: Request) -> bytes:  # noqa: ARG002
        return answer_body(events)
