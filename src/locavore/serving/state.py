"""What a worker serves from: one snapshot with its router, its engines and what can be kept."""

from collections.abc import Callable

import msgspec

from locavore.core.backend import Backend
from locavore.core.ports import Engine, Headers, Timeouts
from locavore.routing.estimators.promised import fingerprint_of
from locavore.routing.router import Router
from locavore.serving import replying
from locavore.serving.outgoing import Ways
from locavore.serving.snapshot import Snapshot, Target


class State:
    """One snapshot, ready to serve. A call keeps the state it began with."""

    def __init__(self, snapshot: Snapshot, engine: Callable[[Target], Engine]) -> None:
        self.snapshot = snapshot
        self._engine_of = engine
        self.router = Router(
            snapshot.policy,
            snapshot.backends,
            wildcards={w.prefix: w.template for w in snapshot.wildcards},
            only_named=snapshot.named,
            promises=snapshot.promised(),
        )
        self.baseline = self.router.baseline
        self.ways = Ways()
        self._engines: dict[str, Engine] = {}
        self._timeouts: dict[str, Timeouts] = {}
        self.reply_heads: dict[tuple[str, str, bytes], bytes] = {}
        """Header lines of answers that depend on format, backend and content type only."""
        self._headers_seen: Headers = ()
        self._limits_seen: Headers = ()

    def engine(self, target: Target) -> Engine:
        """The engine of a target, looked up by name: hashing a target costs a microsecond."""
        engine = self._engines.get(target.name)
        if engine is None:
            engine = self._engines[target.name] = self._engine_of(target)
        return engine

    def remember_head(self, key: tuple[str, str, bytes], head: bytes) -> None:
        """Bounded: clients invent names behind a wildcard."""
        if len(self.reply_heads) >= 1024:
            self.reply_heads.clear()
        self.reply_heads[key] = head

    def limits_told(self, headers: Headers) -> Headers:
        """`replying.forwarded_limits`; a connection that repeats a head repeats the object."""
        if headers is not self._headers_seen:
            self._headers_seen, self._limits_seen = headers, replying.forwarded_limits(headers)
        return self._limits_seen

    def timeouts_for(self, target: Target) -> Timeouts:
        if target.first_byte_s is None:
            return self.snapshot.timeouts
        made = self._timeouts.get(target.name)
        if made is None:
            made = msgspec.structs.replace(self.snapshot.timeouts, first_byte_s=target.first_byte_s)
            self._timeouts[target.name] = made
        return made

    def models(self) -> list[dict[str, object]]:
        """Entries of `/v1/models`: what a client may name."""
        known = self.router.names.by_id
        return [_entry(name, known.get(name)) for name in self.router.names.listed()]


def _entry(name: str, backend: Backend | None) -> dict[str, object]:
    entry: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": backend.provider if backend else "locavore",
    }
    if backend is not None:
        entry["place"] = backend.place.label
        entry["context_length"] = backend.context_tokens
        entry["capabilities"] = sorted(backend.capabilities)
        entry["fingerprint"] = fingerprint_of(backend)
        if backend.weights_sha256:
            entry["weights_sha256"] = backend.weights_sha256
        if backend.is_test:
            entry["test_model"] = True
            entry["description"] = "built-in test model: answers one fixed sentence"
    return entry
