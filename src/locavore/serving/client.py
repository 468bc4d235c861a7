"""The client's side of a call, as serving knows it: no HTTP."""

from typing import Protocol

from locavore.core.ports import Headers

CLIENT_LEFT = 499
"""Status in records for a client that left; nginx's convention, never sent."""


class Listener(Protocol):
    """What the client's connection tells the call."""

    def on_disconnect(self) -> None: ...
    def on_pause(self) -> None: ...
    def on_resume(self) -> None: ...


class Reply(Protocol):
    """The client's side: either one `respond`, or `start`, `write`s and a `finish`."""

    listener: Listener | None

    def respond(self, status: int, headers: Headers | bytes, body: bytes) -> None: ...
    def start(self, status: int, headers: Headers | bytes) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self, data: bytes = b"") -> None: ...


class Gone:
    """A client that left while its upstream is read to the end."""

    listener: Listener | None = None

    def respond(self, status: int, headers: Headers | bytes, body: bytes) -> None: ...
    def start(self, status: int, headers: Headers | bytes) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self, data: bytes = b"") -> None: ...
