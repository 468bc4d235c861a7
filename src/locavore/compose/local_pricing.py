"""Prices of the models on this machine, from what it costs and what they used of it lately.

Once a minute the energy counters are read into the ledger; once an hour the cost of the last days
is attributed to the calls of that time (`ledger.local_price`), and its shares become the prices
that routing forecasts with and that the next calls are booked with.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from locavore.config.schema import MachineTable
from locavore.core.backend import Backend, Place
from locavore.core.money import FREE, Price, Rate
from locavore.ledger import energy
from locavore.ledger.database import Database
from locavore.ledger.energy import Interval
from locavore.ledger.local_price import (
    LocalCost,
    Machine,
    Tariff,
    Work,
    local_cost,
    modelled,
    price_of,
    works_of,
)
from locavore.ledger.sqlite import store_path, translated
from locavore.ledger.store import open_store

READ_S = 60.0
PRICE_S = 3600.0
LEAST_CALLS = 20
"""Of a model, before it has a price of its own: until then it is free, and says so."""
MOST_CALLS = 50_000
"""Looked at for one price, some seconds of CPU; a busier machine is priced by a shorter window."""
LONGEST_S = 600.0
"""Between two readings further apart this gateway did not run: whose energy that was, nobody
knows."""
DAY_S = 86_400
LOCAL = "local"
"""Begins the source of these prices."""
Tell = Callable[[str], None]


class LocalPricing:
    """Of one gateway. Blocking."""

    def __init__(
        self,
        home: Path,
        machine: MachineTable,
        *,
        tell: Tell,
        meters: Callable[[], dict[str, int]] = energy.read_meters,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._home = home
        self._machine = machine
        self._tell = tell
        self._meters = meters
        self._clock = clock
        self._last: dict[str, int] = {}
        self._told = False
        self._priced_s = float("-inf")
        self.prices: dict[str, Price] = {}
        """By backend id."""

    def read(self) -> dict[str, int]:
        """Keep a reading of each meter; joules by meter since the last one. Raises StoreError."""
        now = self._meters()
        with translated(store_path(self._home)), closing(open_store(self._home)) as db:
            energy.record(db, now, now_s=self._clock())
        used = {m: now[m] - self._last[m] for m in now if now[m] > self._last.get(m, now[m])}
        self._last = now
        return used

    def reprice(self, here: Collection[str]) -> bool:
        """Price the backends that run `here`, if it is time; whether a price changed."""
        now_s = self._clock()
        due_s = PRICE_S if self.prices.keys() >= set(here) else PRICE_S / 6
        if self._priced_s + due_s > now_s:
            return False
        self._priced_s = now_s
        old, self.prices = self.prices, self._prices(here, now_s)
        return self.prices != old

    def _prices(self, here: Collection[str], now_s: float) -> dict[str, Price]:
        since_s = now_s - self._machine.window_days * DAY_S
        with translated(store_path(self._home)), closing(open_store(self._home)) as db:
            by_id = {id_: works_of(db, id_, since_s=since_s, until_s=now_s) for id_ in here}
            works = [work for id_ in here for work in by_id[id_]]
            if len(works) > MOST_CALLS:  # the newest of them
                since_s = sorted(work.start_s for work in works)[-MOST_CALLS]
                works = [work for work in works if work.start_s >= since_s]
            intervals, source = self._used(db, works, since_s, now_s)
        if not intervals:
            return {}
        begin_s = intervals[0].start_s  # what ran before anything was measured bears nothing
        by_id = {id_: [w for w in own if w.start_s >= begin_s] for id_, own in by_id.items()}
        works = [work for own in by_id.values() for work in own]
        machine = self._machine
        cost = local_cost(
            intervals,
            works,
            Machine(
                price_usd=machine.price_usd,
                residual_usd=machine.residual_usd,
                lifetime_years=machine.years,
            ),
            Tariff(usd_per_kwh=machine.kwh_usd, zone=machine.zone),
        )
        return _by_backend(cost, by_id, source, time.strftime("%Y-%m-%d", time.gmtime(now_s)))

    def _used(
        self, db: Database, works: Sequence[Work], since_s: float, now_s: float
    ) -> tuple[list[Interval], str]:
        """Measured where something measures, else modelled, and which."""
        found = energy.measured(db, since_s=since_s, until_s=now_s)
        kinds = energy.kinds(self._meters())
        if found and kinds:
            near = [i for i in found if i.end_s - i.start_s <= LONGEST_S]
            return near, f"{LOCAL}, measured by {kinds}"
        idle_w, busy_w = self._machine.idle_w, self._machine.busy_w
        if kinds or not works:
            return [], ""
        if idle_w is None or busy_w is None:
            if not self._told:
                self._told = True
                self._tell(
                    "[machine]: no counter of NVML or RAPL can be read here; give idle_w and busy_w"
                )
            return [], ""
        begin_s = min(work.start_s for work in works)
        return (
            modelled(works, since_s=begin_s, until_s=now_s, idle_w=idle_w, busy_w=busy_w),
            f"{LOCAL}, modelled with {idle_w:g} and {busy_w:g} W",
        )


def priced(prices: dict[str, Price]) -> str:
    """One line for the operator."""
    return "; ".join(
        f"{id_} {price.rate.input_mtok:f} in, {price.rate.output_mtok:f} out USD per Mtok"
        f" ({price.source})"
        for id_, price in sorted(prices.items())
    )


def on_this_machine(backends: Iterable[Backend]) -> list[str]:
    """Ids of those that run here and have no other price than ours."""
    return [
        backend.id
        for backend in backends
        if backend.price is not None and backend.price.source.startswith((FREE.source, LOCAL))
        if backend.place is Place.EMBEDDED or _is_here(backend.url)
    ]


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return url.startswith("unix:") or host == "localhost" or host.startswith(("127.", "::1"))


def _by_backend(
    cost: LocalCost, by_id: dict[str, list[Work]], source: str, as_of: str
) -> dict[str, Price]:
    found, shares = {}, iter(cost.shares_pico)
    for id_, works in by_id.items():
        own = tuple(share for _, share in zip(works, shares, strict=False))
        price = price_of(msgspec.structs.replace(cost, shares_pico=own), works)
        enough = len(works) >= LEAST_CALLS
        if enough and price.input_mtok is not None and price.output_mtok is not None:
            rate = Rate(input_mtok=price.input_mtok, output_mtok=price.output_mtok)
            found[id_] = Price(rate=rate, source=source, as_of=as_of)
    return found
