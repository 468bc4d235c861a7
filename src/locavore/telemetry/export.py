"""A thread that tells a collector what the ledger has recorded since it was asked last.

The ledger is the buffer: while the collector is away, records wait there and are told later. A
batch of spans that is refused again and again is given up, and that is told.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from locavore import __version__
from locavore.core.errors import StoreError
from locavore.core.outcome import CallRecord
from locavore.core.policy import Policy
from locavore.ledger.database import Database
from locavore.ledger.sqlite import store_path, translated
from locavore.ledger.store import open_store
from locavore.telemetry import unsent
from locavore.telemetry.boundary import farthest
from locavore.telemetry.meters import Meters
from locavore.telemetry.settings import Settings
from locavore.telemetry.spans import SCHEMA, sampled, spans

if TYPE_CHECKING:
    import requests

INTERVAL_S = 1.0
LAST_S = 3.0
TRIES = 300
"""With one batch, before it is given up: about five minutes where it is refused at once, three
quarters of an hour where nobody answers (the exporter itself tries for some 8 s). What comes in
between waits in the ledger."""
Tell = Callable[[str], None]
log = logging.getLogger(__name__)
_DECODE = msgspec.msgpack.Decoder(CallRecord).decode


class Telemetry:
    """Of one gateway. `start` and `stop` are for any thread, the rest runs in its own."""

    def __init__(
        self,
        home: Path,
        found: Settings,
        policy: Callable[[], Policy],
        *,
        url: str | None = None,
        env: Mapping[str, str],
        tell: Tell,
    ) -> None:
        """`policy`: the one in force; `url`: as for `ledger.store.open_store`."""
        self._home = home
        self._url = url
        self._settings = found
        self._policy = policy
        self._tell = tell
        self._resource = Resource.create(_about(env))
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler  # as the environment says
        self._spans = _span_exporter(found) if found.traces else None
        self._provider = self._metrics(found) if found.metrics else None
        self.meters = (
            Meters(self._provider.get_meter("locavore", __version__, SCHEMA))
            if self._provider
            else None
        )
        self._waiting: list[ReadableSpan] = []
        self._tries = 0
        self._begun = False
        self._db: Database | None = None
        self._stopping = threading.Event()
        self._counted = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="telemetry", daemon=True)
        self.withheld = 0
        """Calls whose telemetry may not travel as far as the collector is."""
        self.failure: str | None = None

    def _metrics(self, found: Settings) -> MeterProvider:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        exporter = OTLPMetricExporter(session=_session(found))
        reader = PeriodicExportingMetricReader(exporter)
        return MeterProvider([reader], self._resource, shutdown_on_exit=False)

    def start(self) -> None:
        """Tell what is recorded from now on; of a ledger that is lost now, from when it is back."""
        try:
            self._begin()
        except StoreError as error:
            self._failed(error.message)
        self._thread.start()

    def _begin(self) -> None:
        with translated(store_path(self._home)):
            unsent.begin(self._open())
        self._begun = True

    def energy(self, used: Mapping[str, int]) -> None:
        """Joules by meter (`ledger.energy`), since the last time."""
        if self.meters is not None:
            for meter, joules in used.items():
                self.meters.energy(meter, joules)

    def stop(self) -> None:
        """After the ledger was closed: tell what is left, and wait for that no longer than
        `LAST_S`; a collector that is silent must not hold up the end."""
        self._stopping.set()
        metrics = threading.Thread(target=self._last_metrics, name="telemetry", daemon=True)
        metrics.start()
        until_s = time.monotonic() + LAST_S
        for thread in (self._thread, metrics):
            if thread.ident is not None:
                thread.join(max(0.0, until_s - time.monotonic()))

    def _last_metrics(self) -> None:
        if self._provider is not None:
            # The last calls belong to the last metrics, but spans that nobody takes do not delay
            # them for ever.
            self._counted.wait(LAST_S / 2)
            self._provider.shutdown(timeout_millis=LAST_S * 1000)

    def _loop(self) -> None:
        while not self._stopping.wait(INTERVAL_S):
            self._round()
        if self.failure is None:
            self._round()
        self._counted.set()
        if self._spans is not None:
            self._spans.shutdown()
        self._let_go()

    def _round(self) -> None:
        try:
            while self._send() and self._claim():
                pass
        except StoreError as error:
            self._failed(error.message)
            self._let_go()

    def _claim(self) -> bool:
        """The next records; False: there are none."""
        if not self._begun:
            self._begin()
        with translated(store_path(self._home)):
            bodies = unsent.claim(self._open())
        for body in bodies:
            self._take(_DECODE(body))
        return bool(bodies)

    def _take(self, record: CallRecord) -> None:
        if farthest(record, self._policy()) < self._settings.place:
            if not self.withheld:
                self._tell(
                    "telemetry: the collector is farther away than some calls may travel; theirs "
                    "is withheld"
                )
            self.withheld += 1
            return
        if self.meters is not None:
            self.meters.count(record)
        if self._spans is not None:
            self._waiting += sampled(spans(record, self._resource), self._sampler)

    def _send(self) -> bool:
        """Whether nothing waits any more."""
        if not self._waiting or self._spans is None:
            return True
        if self._spans.export(self._waiting) is SpanExportResult.SUCCESS:
            if self.failure is not None:
                self._tell("telemetry: the collector answers again")
            self.failure, self._tries = None, 0
            self._waiting = []
            return True
        self._tries += 1
        if self._tries >= TRIES:
            self._tell(f"telemetry: {len(self._waiting)} spans given up after {TRIES} tries")
            self._waiting, self._tries = [], 0
        self._failed("the collector does not take spans")
        return False

    def _failed(self, why: str) -> None:
        if self.failure is None:
            self._tell(f"telemetry: {why}; tried again")
        self.failure = why

    def _open(self) -> Database:
        if self._db is None:
            self._db = open_store(self._home, self._url)
        return self._db

    def _let_go(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()


def _span_exporter(found: Settings) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(session=_session(found))


def _session(found: Settings) -> "requests.Session":
    """A redirect or a proxy of the environment could lead farther than the address says."""
    import requests  # binds a socket when it is imported, to see whether there is IPv6

    session = requests.Session()
    session.max_redirects = 0
    session.trust_env = not found.direct
    return session


def _about(env: Mapping[str, str]) -> dict[str, str]:
    about = {SERVICE_VERSION: __version__}
    named = env.get("OTEL_SERVICE_NAME") or "service.name=" in env.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return about if named else {SERVICE_NAME: "locavore", **about}
