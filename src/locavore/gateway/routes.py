"""The hot routes, as an explicit table; every other path is the ASGI app's."""

from collections.abc import Callable

from locavore.core.errors import LocavoreError, RequestError
from locavore.core.ports import Headers
from locavore.core.trace import kept
from locavore.gateway.exchange import Exchange, Handler
from locavore.gateway.keys import KeyCheck, for_calls
from locavore.gateway.server import Routes
from locavore.privacy.labels import header_labels
from locavore.serving.pipeline import PLAIN, Envelope, Pipeline

FORMAT_BY_PATH: dict[bytes, str] = {
    b"/v1/chat/completions": "openai_chat",
    b"/v1/completions": "openai_completions",
    b"/v1/responses": "openai_responses",
    b"/v1/embeddings": "openai_embeddings",
    b"/v1/messages": "anthropic_messages",
    b"/v1/messages/count_tokens": "anthropic_count_tokens",
}

_FORWARDED = frozenset({b"anthropic-version", b"anthropic-beta", b"openai-beta"})
"""Client headers an upstream of the same dialect may see. Nothing else crosses (C100)."""


def hot_routes(pipeline: Pipeline, keys: Callable[[], KeyCheck]) -> Routes:
    """path -> method -> handler."""
    return {
        path: {b"POST": _handler(pipeline, keys, request_format)}
        for path, request_format in FORMAT_BY_PATH.items()
    }


def _handler(pipeline: Pipeline, keys: Callable[[], KeyCheck], request_format: str) -> Handler:
    def handle(exchange: Exchange) -> None:
        head, check = exchange.head, keys()
        known = head.memo
        if known is not None and known[0] is check:  # the same headers, checked against these keys
            pipeline.serve(request_format, exchange.body, exchange, known[1])
            return
        try:
            sent = envelope(head.headers, check)
            for_calls(sent.grant)
        except LocavoreError as error:
            pipeline.turn_away(request_format, error, pipeline.next_id(), exchange)
            return
        if sent.grant is None or sent.grant.expires_s is None:
            head.memo = (check, sent)
        pipeline.serve(request_format, exchange.body, exchange, sent)

    return handle


_NO_LABELS: frozenset[str] = frozenset()


def envelope(headers: Headers, keys: KeyCheck) -> Envelope:
    """Read the headers that matter, in one pass."""
    authorization = api_key = session = trace = None
    labels, no_fallback = _NO_LABELS, False
    forwarded: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name == b"authorization":
            authorization = value
        elif name == b"x-api-key":
            api_key = value
        elif name in _FORWARDED:
            forwarded.append((name, value))
        elif name == b"origin":
            keys.same_site(value)
        elif name.startswith(b"x-locavore-"):
            if name == b"x-locavore-labels":
                labels |= header_labels(value)
            elif name == b"x-locavore-session":
                session = _text(name, value)
            elif name == b"x-locavore-no-fallback":
                no_fallback = value.lower() in (b"1", b"true", b"yes")
        elif name == b"traceparent":
            trace = kept(value)
    grant = keys.grant(authorization, api_key)
    plain = not forwarded and not labels and session is None and not no_fallback and trace is None
    if grant is None and plain:
        return PLAIN
    return Envelope(
        grant=grant,
        labels=labels,
        session=session,
        no_fallback=no_fallback,
        trace=trace,
        headers=forwarded,
    )


def _text(name: bytes, value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise RequestError(
            f"header {name.decode()} must be ASCII, not {value!r}",
            code="invalid_header",
            param=name.decode(),
        ) from None
