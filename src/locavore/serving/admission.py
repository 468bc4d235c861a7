"""Bounded waiting for busy backends: a slot, a place in the queue, or a refusal (C84)."""

from collections import deque
from collections.abc import Callable

from locavore.core.errors import Overloaded

Start = Callable[[], None]


class Gate:
    """At most `slots` calls at a time; up to `queue` wait in order of arrival."""

    def __init__(self, name: str, *, slots: int, queue: int) -> None:
        self.name = name
        self.slots = slots
        self.queue = queue
        self.running = 0
        self._waiting: deque[Start] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def enter(self, start: Start) -> bool:
        """Run `start` now (True) or when a slot is free (False). Raises Overloaded when full."""
        if self.running < self.slots:
            self.running += 1
            start()
            return True
        if len(self._waiting) >= self.queue:
            raise Overloaded(
                f"{self.name} is busy: {self.running} running, {len(self._waiting)} waiting",
                code="queue_full",
                retry_after_s=1.0,
            )
        self._waiting.append(start)
        return False

    def withdraw(self, start: Start) -> None:
        """Give up a place in the queue."""
        if start in self._waiting:
            self._waiting.remove(start)

    def leave(self) -> None:
        """Free a slot; the longest waiting call takes it."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self.running -= 1


class Admission:
    """The gates of one worker, by target, and the count of calls in flight."""

    def __init__(self, *, max_inflight: int, max_queue: int, workers: int = 1) -> None:
        self.max_inflight = max_inflight
        self.max_queue = max_queue
        self.workers = workers
        self.inflight = 0
        self._gates: dict[str, Gate] = {}

    def begin(self) -> None:
        """Count a call in. Raises Overloaded over the bound."""
        if self.inflight >= self.max_inflight:
            raise Overloaded(
                f"{self.inflight} calls in flight, the limit of this worker",
                code="too_many_calls",
                retry_after_s=1.0,
            )
        self.inflight += 1

    def end(self) -> None:
        self.inflight -= 1

    def gate(self, target: str, max_concurrency: int) -> Gate:
        """The gate of a target with a limit; its slots are shared by the workers."""
        slots = max(1, max_concurrency // self.workers)
        gate = self._gates.get(target)
        if gate is None:
            gate = self._gates[target] = Gate(target, slots=slots, queue=self.max_queue)
        gate.slots = slots
        return gate
