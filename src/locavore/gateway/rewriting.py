"""A request that was read, written anew in one plain framing."""

from locavore.gateway.exchange import Exchange

_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"upgrade",
        b"http2-settings",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"content-length",
        b"expect",
    }
)
"""What concerns one connection only, or the framing."""


def without_upgrade(exchange: Exchange) -> bytes:
    drop = {b"upgrade", b"connection", b"http2-settings"}
    lines = [b"%b: %b\r\n" % pair for pair in exchange.headers if pair[0] not in drop]
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (exchange.method, exchange.target, b"".join(lines))


def replay(exchange: Exchange) -> bytes:
    """The request in one plain framing, so that the second parser has nothing to interpret."""
    lines = [b"%b: %b\r\n" % pair for pair in exchange.headers if pair[0] not in _HOP]
    return b"%b %b HTTP/1.1\r\n%bconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (
        exchange.method,
        exchange.target,
        b"".join(lines),
        len(exchange.body),
        exchange.body,
    )
