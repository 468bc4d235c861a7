"""One coarse timer for all connections of a loop.

A timer per request costs more than the request's parsing. Here a deadline is an attribute; one
tick looks at all of them. A deadline fires at most two ticks late and never early.
"""

import asyncio
from typing import Protocol

NEVER = float("inf")


class Timed(Protocol):
    """Something with a deadline in loop time; `NEVER` when nothing is awaited."""

    deadline: float

    def expire(self) -> None:
        """The deadline passed. Sets a new one, or forgets itself."""
        ...


class Deadlines:
    """Watches deadlines and keeps a coarse clock: `now` is at most one tick old."""

    def __init__(self, tick_s: float = 0.25) -> None:
        self.now = 0.0
        self._tick_s = tick_s
        self._watched: set[Timed] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._excused = False

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, item: Timed) -> None:
        self._watched.add(item)
        if self._timer is None:
            self._loop = asyncio.get_running_loop()
            self._arm(self._loop)

    def forget(self, item: Timed) -> None:
        """The tick stops by itself once nothing is watched."""
        self._watched.discard(item)

    def stop(self) -> None:
        """Forget everything, now."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = loop.time()
        self._timer = loop.call_later(self._tick_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if not self._watched:
            return
        late_s = loop.time() - self.now - self._tick_s
        self._arm(loop)
        # The loop itself was blocked: what the peers sent meanwhile is read before they are blamed.
        self._excused = late_s > self._tick_s and not self._excused
        if self._excused:
            return
        # `now` was up to a tick old when a deadline was derived from it.
        due = self.now - self._tick_s
        for item in [item for item in self._watched if item.deadline <= due]:
            item.expire()
