"""The loads. Sizes and mixes follow what chat clients send; each case answers one question."""

from dataclasses import dataclass

from benchmarks.gateway.stacks import Stack

SMALL_BYTES, LARGE_BYTES = 1488, 29_778


@dataclass(frozen=True)
class Case:
    """One load; CPU is counted per request, or per event when it streams."""

    name: str
    body_bytes: int = SMALL_BYTES
    connections: int = 32
    slow_connections: int = 8
    seconds: float = 1.5
    rate: float = 0
    stream: bool = False
    burst: bool = False
    model: str | None = None
    tls: bool | None = False
    """True: only stacks with a TLS upstream; False: only the others."""

    def applies(self, stack: Stack) -> bool:
        if self.model is not None and not stack.name.startswith("locavore"):
            return False
        return self.tls is None or self.tls == stack.name.endswith("-tls")


CASES = (
    Case("1.5 KB", tls=None),
    Case("1.5 KB, auto", model="auto"),
    Case("30 KB", body_bytes=LARGE_BYTES, seconds=1.0),
    Case("1 connection", connections=1, slow_connections=1, seconds=1.0),
    Case("512 connections", connections=512, slow_connections=32, seconds=1.0),
    Case("100 requests/s", rate=100, seconds=2.0, connections=64),
    Case("10 paced streams", stream=True, connections=10, slow_connections=4, tls=None),
    Case("60 paced streams", stream=True, connections=60, slow_connections=4, tls=None),
    Case("burst streams", stream=True, burst=True, connections=10, slow_connections=4, seconds=1.0),
)
