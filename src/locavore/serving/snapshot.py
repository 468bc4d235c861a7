"""Everything a gateway worker needs, compiled once by the supervisor and swapped whole.

A snapshot is a value: a worker keeps the one a call began with until that call ends, so a reload
never changes a call in flight (C59). It crosses the control channel as msgpack and holds secrets
(`Target.headers`, `Snapshot.grants` are keyed by hashes), so it is never written to disk.
"""

import msgspec

from locavore.core.access import Grant, Quota
from locavore.core.backend import Backend
from locavore.core.errors import ConfigError
from locavore.core.policy import Policy
from locavore.core.ports import Timeouts
from locavore.routing.estimators import trunk
from locavore.routing.estimators.promised import Entry, Promises
from locavore.routing.judging import Absent


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to reach a backend: one per host and credential. Breakers are kept per target."""

    name: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    """Credentials and fixed headers, sent on each call."""
    key_variable: str | None = None
    """Environment variable the credential came from."""
    ca_file: str | None = None
    proxy_url: str | None = None
    max_connections: int = 4096
    max_concurrency: int | None = None
    """Calls at a time per gateway; None: no limit of ours."""
    drain_on_disconnect: bool = False
    """Read the answer to its end when the client leaves (some engines crash on a cancel)."""
    first_byte_s: float | None = None
    """Overrides the general first-byte timeout, e.g. for a slow prefill."""

    def __repr__(self) -> str:
        return f"Target({self.name!r}, {self.url!r})"


class Wildcard(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that serves more models than anyone lists: `prefix/anything` resolves to it."""

    prefix: str
    template: Backend
    """Backend whose id and model are filled in by name."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When to ask the same backend again."""

    attempts: int = 2
    """Tries per backend, the first included."""
    backoff_s: float = 0.25
    max_wait_s: float = 5.0
    """A longer `Retry-After` moves on to a fallback, or back to the client."""
    budget_ratio: float = 0.2
    """Retries and fallbacks per first attempt, over time (C52)."""
    budget_reserve: float = 10.0


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When to leave a target alone."""

    failures: int = 5
    """Consecutive failures of one class that open the breaker."""
    open_s: float = 10.0
    max_open_s: float = 120.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one worker."""

    max_inflight: int = 2048
    max_queue: int = 256
    """Calls waiting for a busy backend, per backend."""
    queue_timeout_s: float = 30.0
    answer_bytes: int = 64 << 20
    """Largest answer that is held in memory (not streamed)."""
    error_bytes: int = 64 << 10
    ping_s: float = 15.0
    """Keep-alive to a streaming client while no content comes."""
    trickle_bytes: int = 1
    """A stream must bring at least so many bytes per `trickle_s`."""
    trickle_s: float = 60.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A compiled configuration."""

    version: str
    policy: Policy
    backends: tuple[Backend, ...]
    """They compete for virtual names."""
    named: tuple[Backend, ...] = ()
    """Reached by name only: models that the configuration speaks of without defining them."""
    wildcards: tuple[Wildcard, ...] = ()
    targets: dict[str, Target] = {}
    """Target by name; `target_of` maps backend ids and wildcard prefixes to names."""
    target_of: dict[str, str] = {}
    timeouts: Timeouts = Timeouts()
    retry: RetryPolicy = RetryPolicy()
    breaker: BreakerPolicy = BreakerPolicy()
    limits: Limits = Limits()
    grants: dict[str, Grant] = {}
    """Fingerprint of a client key -> what it allows. Empty: no key is asked for."""
    quotas: tuple[Quota, ...] = ()
    """Budgets and rate limits of the configuration; a key's own are in its grant."""
    promises: tuple[Entry, ...] = ()
    """What `locavore calibrate` found, of models whose weights and engine are still the same."""
    keep_answers_s: float = 0.0
    """How long the other answer to an explored call is kept for its application; 0: never."""
    keep_labels: frozenset[str] = frozenset()
    """Labels whose calls' answers may be kept."""
    ledger_url: str | None = None
    """PostgreSQL with the books; None: a file under home."""
    limits_url: str | None = None
    """Valkey or Redis with budgets and rate limits; None: a file under home."""
    limits_nodes: int = 1
    """Gateways that share `limits_url`."""
    home: str = ""
    store_failure: str = "closed"
    """`closed`: a call whose record cannot be written fails; `open`: it is served unrecorded."""
    repair_json: bool = False
    max_body_bytes: int = 32 << 20
    hosts: tuple[str, ...] = ()
    """Further names that clients may reach the gateway by where no key is asked for."""
    messages: tuple[str, ...] = ()
    """What discovery and compilation found worth telling."""

    def promised(self) -> Promises | None:
        """Ready to judge calls; reads the shipped artifact, so only where something is promised.

        Without the artifact nothing stays local under a promise (C112).
        """
        if not self.promises:
            return None
        try:
            return Promises(trunk.load(), self.promises)
        except ConfigError as error:
            return Promises(Absent(str(error)), self.promises)

    @property
    def limited(self) -> bool:
        """Whether any budget or rate limit is to be kept."""
        return bool(self.quotas) or any(grant.quotas for grant in self.grants.values())

    def target_for(self, backend: Backend) -> Target | None:
        name = self.target_of.get(backend.id) or self.target_of.get(f"{backend.provider}/*")
        return self.targets.get(name) if name else None
