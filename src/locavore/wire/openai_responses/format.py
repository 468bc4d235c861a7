"""The format's face: `locavore.wire.formats` holds one instance."""

from locavore.wire.face import Face
from locavore.wire.openai_chat.errors import error_body, upstream_error
from locavore.wire.openai_responses.body import write_body
from locavore.wire.openai_responses.conversation import read_conversation
from locavore.wire.openai_responses.reader import ResponsesReader, read_answer
from locavore.wire.openai_responses.request import NAME, read_request, read_turns
from locavore.wire.openai_responses.scanner import ResponsesScanner
from locavore.wire.openai_responses.usage import read_usage
from locavore.wire.openai_responses.writer import PING, ResponsesWriter, answer_body


class OpenAIResponses(Face):
    """`POST /v1/responses`."""

    name = NAME
    path = b"/responses"
    PING = PING
    may_store = True
    request = staticmethod(read_request)
    turns = staticmethod(read_turns)
    conversation = staticmethod(read_conversation)
    body = staticmethod(write_body)
    stream_reader = staticmethod(ResponsesReader)
    stream_writer = staticmethod(ResponsesWriter)
    scanner = staticmethod(ResponsesScanner)
    answer = staticmethod(read_answer)
    answer_body = staticmethod(answer_body)
    usage = staticmethod(read_usage)
    error_body = staticmethod(error_body)
    upstream_error = staticmethod(upstream_error)
