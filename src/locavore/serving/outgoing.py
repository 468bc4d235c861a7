"""What to send to a backend for a request: path, body, and how its answer is read back.

When the client's format is the one the backend speaks, bytes pass through with only the model name
and our own metadata changed. Otherwise the request becomes a conversation and the answer events.
"""

from collections.abc import Callable

import msgspec

from locavore.core.backend import Backend, Capability
from locavore.core.events import Event
from locavore.core.ports import EventReader, Headers, StreamScanner, WireFormat
from locavore.core.request import Conversation, Request
from locavore.serving.answer import Counted, PassedWhole, TranslatedStream, TranslatedWhole, Whole
from locavore.wire.formats import FORMATS, left_out
from locavore.wire.openai_chat import forced_tools
from locavore.wire.openai_chat.body import write_body
from locavore.wire.openai_chat.thoughts import thinking_apart

COUNT = "anthropic_count_tokens"
KEPT = 1024
"""Bound of the ways kept; clients invent names behind a wildcard."""
ANTHROPIC_VERSION = b"2023-06-01"
"""The only released version of that API; required on every call."""

_NATIVE = {
    "openai_chat": Capability.CHAT,
    "openai_completions": Capability.COMPLETIONS,
    "openai_responses": Capability.RESPONSES,
    "openai_embeddings": Capability.EMBEDDINGS,
    COUNT: Capability.COUNT_TOKENS,
}
"""Formats an OpenAI-dialect backend may speak, with the capability that says it does."""


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """How one upstream request is sent and its answer read; all but the body."""

    path: bytes
    format: WireFormat
    """The upstream's format: its errors are read by this one."""
    stream: Callable[[], StreamScanner]
    whole: Whole
    answer: Callable[[bytes], list[Event]]
    """A whole answer as events, for whoever looks at it."""
    anthropic: bool
    """The upstream speaks Anthropic's protocol."""
    passed: bool
    """Bytes pass through unchanged in kind."""

    dropped: tuple[str, ...]
    """Hints of the request that the upstream's format has no words for (C33)."""

    add_usage: bool = False
    """Usage is in the stream only because we ask for it."""

    def headers(self, client: Headers) -> Headers:
        """Headers to send: the client's own only to an upstream that speaks its protocol."""
        if not (client or self.anthropic):
            return client
        sent = client if self.passed else ()
        if not self.anthropic or any(name == b"anthropic-version" for name, _ in sent):
            return sent
        return (*sent, (b"anthropic-version", ANTHROPIC_VERSION))


_MENDS = {"openai_chat": thinking_apart}
"""What is repaired in a whole answer that passes."""
_USAGE_ON_REQUEST = frozenset({"openai_chat", "openai_completions"})
"""Formats whose streams tell usage only when asked."""


def upstream_format(request_format: str, backend: Backend) -> str:
    """The wire format used towards `backend` for a call that came in as `request_format`."""
    if backend.dialect == "anthropic":
        if request_format == COUNT:
            return request_format
        return "anthropic_messages"
    needed = _NATIVE.get(request_format)
    if needed is not None and (needed is Capability.CHAT or backend.can(needed)):
        return request_format
    return "openai_chat"


class Ways:
    """How calls that pass through reach their backends, kept for one snapshot."""

    def __init__(self) -> None:
        self._passing: dict[tuple[str, str, bool], Outgoing] = {}

    def outgoing(self, request: Request, backend: Backend) -> tuple[Outgoing, bytes]:
        """(way, body). Raises RequestError for what the backend's format cannot carry."""
        ask_usage = request.stream and not request.include_usage
        key = (request.format, backend.id, ask_usage)
        way = self._passing.get(key)
        if way is None or (backend.quirks and _forces_tools(request, backend)):
            name = upstream_format(request.format, backend)
            if name != request.format or _forces_tools(request, backend):
                return _translated(request, backend, name)
            way = _passing(request.format, backend, ask_usage=ask_usage)
            if len(self._passing) >= KEPT:
                self._passing.clear()
            self._passing[key] = way
        return way, way.format.rewrite(
            request.body,
            request,
            model=backend.model,
            add_usage=way.add_usage,
            drop_labels=request.marked,
        )


def _passing(request_format: str, backend: Backend, *, ask_usage: bool) -> Outgoing:
    fmt = FORMATS[request_format]
    add_usage = ask_usage and request_format in _USAGE_ON_REQUEST
    add_usage = add_usage and "no_stream_usage" not in backend.quirks
    return Outgoing(
        path=_path(fmt, backend),
        anthropic=backend.dialect == "anthropic",
        format=fmt,
        stream=lambda: fmt.scanner(strip_usage=add_usage),
        whole=Counted() if request_format == COUNT else PassedWhole(fmt, _MENDS.get(fmt.name)),
        answer=fmt.answer,
        passed=True,
        dropped=(),
        add_usage=add_usage,
    )


def _translated(request: Request, backend: Backend, name: str) -> tuple[Outgoing, bytes]:
    client, upstream = FORMATS[request.format], FORMATS[name]
    conversation = client.conversation(request.body)
    forced = _forces_tools(request, backend)
    if forced:
        conversation = forced_tools.force(conversation)
    body = _written(upstream, conversation, backend, stream=request.stream)

    def reader() -> EventReader:
        plain = upstream.stream_reader()
        return forced_tools.ForcedToolReader(plain) if forced else plain

    def answer(data: bytes) -> list[Event]:
        events = upstream.answer(data)
        return forced_tools.forced_answer(events) if forced else events

    way = Outgoing(
        path=_path(upstream, backend),
        anthropic=backend.dialect == "anthropic",
        format=upstream,
        stream=lambda: TranslatedStream(reader(), client.stream_writer(request)),
        answer=answer,
        whole=TranslatedWhole(answer, lambda events: client.answer_body(events, request)),
        passed=False,
        dropped=left_out(conversation, name),
    )
    return way, body


def _written(
    upstream: WireFormat, conversation: Conversation, backend: Backend, *, stream: bool
) -> bytes:
    """The body in the upstream's format, with the names this upstream wants."""
    if upstream.name == "openai_chat" and "max_completion_tokens" in backend.quirks:
        return write_body(
            conversation, model=backend.model, stream=stream, budget_field="max_completion_tokens"
        )
    return upstream.body(conversation, model=backend.model, stream=stream)


def _path(fmt: WireFormat, backend: Backend) -> bytes:
    """Below the base URL, which has no `/v1` in Anthropic's convention."""
    return b"/v1" + fmt.path if backend.dialect == "anthropic" else fmt.path


def _forces_tools(request: Request, backend: Backend) -> bool:
    """llama.cpp lets a model ramble before a required call; a JSON schema does not."""
    return Capability.TOOL_CHOICE in request.needs and "force_tools_by_schema" in backend.quirks
