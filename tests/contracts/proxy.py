"""A TCP proxy in front of a Unix socket that can fall silent: connected, accepting, and mute."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self


class StallingProxy:
    """Forwards both ways until `stall`; `resume` delivers what was held back."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: list[socket.socket] = []
        self._serving: list[threading.Thread] = []
        self._ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def flush(self) -> None:
        """Wait until what clients wrote before they gave up has reached the server."""
        for thread in self._serving[:1]:
            thread.join(30)
            assert not thread.is_alive(), "the client still holds its first connection"

    @property
    def asked(self) -> int:
        """Connections so far."""
        return len(self._serving)

    def cut(self) -> None:
        """End every connection there is."""
        for side in self._open:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._ended = True
        self.resume()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._serving.append(threading.Thread(target=self._serve, args=(near,), daemon=True))
            self._serving[-1].start()

    def _serve(self, near: socket.socket) -> None:
        self._flowing.wait()
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(str(self._target))
        except OSError:
            near.close()
            return
        self._open += [near, far]
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        near.close()
        far.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flowing.wait()
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def stalled(proxy: StallingProxy) -> Iterator[None]:
    proxy.stall()
    try:
        yield
    finally:
        proxy.resume()
