"""One request on its way through the pool and a connection."""

from typing import TYPE_CHECKING

from locavore.core.errors import UpstreamError
from locavore.core.ports import Receiver, Timeouts
from locavore.engines.deadlines import NEVER

if TYPE_CHECKING:
    from locavore.engines.http1 import Connection
    from locavore.engines.pool import HttpEngine


class HttpCall:
    """One request and where its answer goes; `core.ports.Call`."""

    __slots__ = (
        "body",
        "connection",
        "deadline",
        "engine",
        "head",
        "receiver",
        "resent",
        "sent",
        "timeouts",
        "total_at",
    )

    def __init__(
        self, engine: "HttpEngine", head: bytes, body: bytes, receiver: Receiver, timeouts: Timeouts
    ) -> None:
        self.engine = engine
        self.head = head
        self.body = body
        self.receiver: Receiver | None = receiver
        """None: cancelled or ended; nothing more is delivered."""
        self.timeouts = timeouts
        self.connection: Connection | None = None
        self.sent = False
        self.resent = False
        self.deadline = NEVER
        self.total_at = NEVER

    def pause(self) -> None:
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        if self.connection is not None:
            self.connection.resume()

    def cancel(self) -> None:
        if self.receiver is None:
            return
        self.receiver = None
        if self.connection is not None:
            self.connection.drop()
        else:
            self.engine.withdraw(self)

    def expire(self) -> None:
        """Waited for a connection as long as it may take to connect."""
        self.engine.withdraw(self)
        self.fail(self.engine.waited_too_long(self))

    def fail(self, error: UpstreamError) -> None:
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.on_failure(error)
