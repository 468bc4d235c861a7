"""Hands a connection over to an ASGI app, by way of uvicorn's protocol.

Imported on the first request that needs it. The request was read, limited and checked by
`connection` before; uvicorn gets it whole, with `Connection: close`, and serves nothing after it.
"""

from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    from locavore.gateway.connection import Connection
    from locavore.gateway.server import AsgiApp


class Bridge:
    """One ASGI app and the uvicorn state it is served with."""

    def __init__(self, app: "AsgiApp") -> None:
        self._config = Config(
            app=app,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._config.load()
        self._state = ServerState()

    def take(self, connection: "Connection", request: bytes) -> None:
        protocol = _OneExchange(self._config, self._state, connection)
        protocol.connection_made(connection.transport)
        connection.transport.set_protocol(protocol)
        protocol.data_received(request)


class _OneExchange(HttpToolsProtocol):
    """uvicorn's protocol, still counted and timed by the connection it replaced."""

    def __init__(self, config: Config, state: ServerState, connection: "Connection") -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self._connection = connection
        self._taken = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
        super().connection_lost(exc)

    def data_received(self, data: Any) -> None:
        """Bytes after the request are nobody's: the answer will close the connection."""
        if not self._taken:
            self._taken = True
            super().data_received(data)
