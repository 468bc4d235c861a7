"""A proxy of nothing but the data plane: `server` and `pool` with no pipeline between.

The floor of what Locavore can cost per call. `python -m benchmarks.gateway.bare PORT URL [CA]`.
"""

import asyncio
import sys

import uvloop

from locavore.core.errors import UpstreamError
from locavore.core.ports import Headers, Timeouts
from locavore.engines.deadlines import Deadlines
from locavore.engines.http_call import HttpCall
from locavore.engines.pool import HttpEngine
from locavore.gateway.exchange import Exchange
from locavore.gateway.server import Server

_TIMEOUTS = Timeouts()
_JSON = b"content-type: application/json\r\n"
_EVENTS = b"content-type: text/event-stream\r\n"


class Relay:
    """Receiver and listener of one call."""

    __slots__ = ("body", "call", "exchange", "headers", "status", "streaming")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.call: HttpCall | None = None
        self.body = b""
        self.status = 0
        self.streaming = False
        exchange.listener = self

    def on_head(self, status: int, headers: Headers) -> None:
        self.status = status
        for name, value in headers:
            if name == b"content-type":
                self.streaming = value.startswith(b"text/event-stream")
        if self.streaming:
            self.exchange.start(status, _EVENTS)

    def on_body(self, data: bytes) -> None:
        if self.streaming:
            self.exchange.write(data)
        else:
            self.body += data

    def on_end(self) -> None:
        if self.streaming:
            self.exchange.finish()
        else:
            self.exchange.respond(self.status, _JSON, self.body)

    def on_answer(self, status: int, headers: Headers, body: bytes) -> None:  # noqa: ARG002
        self.exchange.respond(status, _JSON, body)

    def on_failure(self, error: UpstreamError) -> None:
        if self.exchange.started:
            self.exchange.abort()
        else:
            self.exchange.fail(502, "upstream_error", error.message)

    def on_disconnect(self) -> None:
        if self.call is not None:
            self.call.cancel()

    def on_pause(self) -> None:
        if self.call is not None:
            self.call.pause()

    def on_resume(self) -> None:
        if self.call is not None:
            self.call.resume()


async def serve(port: int, url: str, ca_file: str | None) -> None:
    deadlines = Deadlines()
    engine = HttpEngine(url, ca_file=ca_file, proxy_url="", deadlines=deadlines)

    def handle(exchange: Exchange) -> None:
        relay = Relay(exchange)
        relay.call = engine.send(b"/chat/completions", exchange.body, relay, timeouts=_TIMEOUTS)

    server = Server({b"/v1/chat/completions": {b"POST": handle}}, deadlines=deadlines)
    await server.start("127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
