"""The format's face: `locavore.wire.formats` holds one instance of each."""

from locavore.core.events import Event
from locavore.core.request import Conversation, Request
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
from locavore.wire.face import Face


class AnthropicMessages(Face):
    """`POST /v1/messages`."""

    name = NAME
    path = b"/messages"
    PING = PING
    request = staticmethod(read_request)
    turns = staticmethod(read_turns)
    conversation = staticmethod(read_conversation)
    stream_reader = staticmethod(MessagesReader)
    stream_writer = staticmethod(MessagesWriter)
    scanner = staticmethod(MessagesScanner)
    answer = staticmethod(read_answer)
    usage = staticmethod(read_usage)
    error_body = staticmethod(error_body)
    upstream_error = staticmethod(upstream_error)

    def body(self, conversation: Conversation, *, model: str, stream: bool) -> bytes:
        return write_body(conversation, model=model, stream=stream)

    def answer_body(self, events: list[Event], request: Request) -> bytes:  # noqa: ARG002
        return answer_body(events)


class AnthropicCountTokens(AnthropicMessages):
    """`POST /v1/messages/count_tokens`: the prompt is counted, nothing is generated."""

    name = COUNT_NAME
    path = b"/messages/count_tokens"

    request = staticmethod(read_count_request)

    def body(self, conversation: Conversation, *, model: str, stream: bool) -> bytes:
        return write_body(conversation, model=model, stream=stream, count=True)

    def count_body(self, input_tokens: int) -> bytes:
        """The answer, with the figure that the caller knows or has estimated."""
        return encode({"input_tokens": input_tokens})
