"""Prometheus text for the whole gateway: totals from the ledger, the rest from the last status.

What the ledger counts is the same whichever worker is scraped, and survives a restart; what workers
count begins at zero with each start of the gateway, as counters may. Labels are places, providers
and models of the configuration: never a key, a prompt or a name that clients choose.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from locavore.core.errors import ConfigError, StoreError
from locavore.core.estimate import Estimate
from locavore.evidence.achieved import Achieved, achieved_here
from locavore.ledger.database import Database
from locavore.ledger.leases import Account
from locavore.ledger.metrics import EDGES, TOTAL, Sample, meters, samples
from locavore.ledger.periods import bounds
from locavore.ledger.query import Line, report
from locavore.ledger.shared_leases import open_leases
from locavore.ledger.slices import NANO, limit_of
from locavore.ledger.store import open_store
from locavore.serving.snapshot import Snapshot
from locavore.telemetry import conventions

_OUTCOMES = ("served", "failed", "refused", "cancelled")
_SHARED_SCOPES = frozenset({"all", "tenant", "team"})
_TOKENS = ("input", "output", "cache_read", "cache_write", "reasoning")


def exposition(home: Path, snapshot: Snapshot) -> str:
    """Text format 0.0.4. Blocking, some milliseconds."""
    with closing(open_store(home, snapshot.ledger_url)) as db:
        by_place = report(db, by="place").lines
        by_provider = report(db, by="provider").lines
        promises = _achieved(home, db)
        counted = samples(db)
        joules = meters(db)
    lines = [
        *_ledger(by_place, by_provider),
        *_energy(joules),
        *_events(counted),
        *_histograms(counted, _models(snapshot)),
        *_live(_status(home)),
        *_budgets(home, snapshot),
        *_promises(promises),
    ]
    return "\n".join(lines) + "\n"


def _ledger(by_place: tuple[Line, ...], by_provider: tuple[Line, ...]) -> Iterator[str]:
    yield from _head("requests_total", "counter", "Finished calls by place and outcome.")
    for line in by_place:
        for outcome in _OUTCOMES:
            labels = {"place": line.group or "none", "outcome": outcome}
            yield _sample("requests_total", labels, getattr(line, outcome))
    yield from _each("request_duration_seconds_total", "Sum of call durations.", by_place, "place")
    yield from _head("tokens_total", "counter", "Tokens by place and type; types are subsets.")
    for line in by_place:
        for kind in _TOKENS:
            labels = {"place": line.group or "none", "type": kind}
            yield _sample("tokens_total", labels, getattr(line, f"{kind}_tokens"))
    yield from _each("cost_usd_total", "Known cost.", by_provider, "provider")
    yield from _each("attempts_total", "Attempts, retries included.", by_provider, "provider")
    yield from _each(
        "attempts_cost_unknown_total", "Attempts whose cost is unknown.", by_provider, "provider"
    )


_FIELDS: dict[str, Callable[[Line], int | float | Decimal]] = {
    "request_duration_seconds_total": lambda line: line.duration_s,
    "cost_usd_total": lambda line: line.cost_usd,
    "attempts_total": lambda line: line.attempts,
    "attempts_cost_unknown_total": lambda line: line.unknown_cost,
}


def _each(name: str, about: str, lines: tuple[Line, ...], label: str) -> Iterator[str]:
    yield from _head(name, "counter", about)
    for line in lines:
        yield _sample(name, {label: line.group or "none"}, _FIELDS[name](line))


def _energy(joules: dict[str, int]) -> Iterator[str]:
    yield from _head("energy_joules_total", "counter", "Newest reading of each energy meter.")
    for meter, value in joules.items():
        yield _sample("energy_joules_total", {"meter": meter}, value)


_HOPS = {
    "retry": "Attempts at the same backend again, by what was wrong with the one before.",
    "fallback": "Attempts at another backend, by what was wrong with the one before.",
    "escalation": "Cascades that went on to the cloud, by what was wrong with the local answer.",
}


def _events(counted: list[Sample]) -> Iterator[str]:
    for kind, about in _HOPS.items():
        name = "retries_total" if kind == "retry" else f"{kind}s_total"
        yield from _head(name, "counter", about)
        found: Counter[tuple[str, str]] = Counter()
        for sample in counted:
            if sample.name == kind:
                found[sample.provider, sample.label] += sample.n
        for (provider, reason), n in sorted(found.items()):
            yield _sample(name, {"provider": provider, "reason": reason}, n)
    about = "Decisions by where they sent the call and the first reason."
    yield from _head("route_decisions_total", "counter", about)
    for sample in counted:
        if sample.name == "decision":
            labels = {"target": sample.provider or "none", "reason": sample.label}
            yield _sample("route_decisions_total", labels, sample.n)


class _Histogram(NamedTuple):
    """How one of `ledger.metrics.EDGES` is told."""

    name: str
    label: str
    """What tells its series apart, beside operation, provider and model."""
    unit: int
    """Observed units in one of Prometheus'."""
    about: str


_HISTOGRAMS = {
    "request_duration": _Histogram(
        "gen_ai_server_request_duration_seconds", "error_type", 1000, "From arrival to last byte."
    ),
    "time_to_first_token": _Histogram(
        "gen_ai_server_time_to_first_token_seconds", "", 1000, "Of streams, since they were sent."
    ),
    "time_per_output_token": _Histogram(
        "gen_ai_server_time_per_output_token_seconds", "", 10**6, "Of streams, after the first."
    ),
    "operation_duration": _Histogram(
        "gen_ai_client_operation_duration_seconds", "error_type", 1000, "Each attempt by itself."
    ),
    "token_usage": _Histogram(
        "gen_ai_client_token_usage", "gen_ai_token_type", 1, "Tokens of an attempt, where known."
    ),
}
OTHER = "other"


def _models(snapshot: Snapshot) -> frozenset[str]:
    """Names that may stand in a label; clients invent others behind a provider's wildcard."""
    return frozenset(b.model for b in (*snapshot.backends, *snapshot.named)) | {""}


Series = tuple[tuple[str, str], ...]


def _histograms(counted: list[Sample], models: frozenset[str]) -> Iterator[str]:
    for kind, told in _HISTOGRAMS.items():
        buckets: defaultdict[Series, Counter[int]] = defaultdict(Counter)
        totals: Counter[Series] = Counter()
        for sample in counted:
            if sample.name == kind:
                series = _series(sample, told, models)
                buckets[series][sample.bucket] += sample.n
                totals[series] += sample.total
        yield f"# HELP {told.name} {told.about}"
        yield f"# TYPE {told.name} histogram"
        for series, found in sorted(buckets.items()):
            yield from _histogram(told, series, found, totals[series], EDGES[kind])


def _series(sample: Sample, told: _Histogram, models: frozenset[str]) -> Series:
    """Labels without those that are empty, which means the same in Prometheus."""
    labels = {
        "gen_ai_operation_name": conventions.operation(sample.format),
        "gen_ai_provider_name": conventions.provider(sample.provider),
        "gen_ai_request_model": sample.model if sample.model in models else OTHER,
        told.label: sample.label,
    }
    return tuple((name, value) for name, value in labels.items() if name and value)


def _histogram(
    told: _Histogram, series: Series, found: Counter[int], total: int, edges: tuple[int, ...]
) -> Iterator[str]:
    labels, below = dict(series), 0
    for bucket, edge in enumerate(edges):
        below += found[bucket]
        yield _line(f"{told.name}_bucket", labels | {"le": f"{edge / told.unit:.10g}"}, below)
    yield _line(f"{told.name}_bucket", labels | {"le": "+Inf"}, found[TOTAL])
    yield _line(f"{told.name}_sum", labels, Decimal(total) / told.unit)
    yield _line(f"{told.name}_count", labels, found[TOTAL])


def _live(status: dict[str, Any]) -> Iterator[str]:
    workers = status.get("workers", [])
    yield from _head("workers", "gauge", "Gateway processes that reported.")
    yield _sample("workers", {}, len(workers))
    yield from _head("inflight_requests", "gauge", "Calls being served.")
    yield _sample("inflight_requests", {}, sum(w.get("inflight", 0) for w in workers))
    about = "Calls turned away before anybody was asked, by the code of their error."
    yield from _head("refusals_total", "counter", about)
    for code, count in sorted(status.get("refusals", {}).items()):
        yield _sample("refusals_total", {"code": code}, count)
    yield from _head("breaker_state", "gauge", "Workers that leave a target alone now.")
    opened: dict[tuple[str, str], int] = {}
    for worker in workers:
        for target, classes in worker.get("breakers", {}).items():
            for fault, state in classes.items():
                key = (target, fault)
                opened[key] = opened.get(key, 0) + (state == "open")
    for (target, fault), count in sorted(opened.items()):
        yield _sample("breaker_state", {"target": target, "class": fault}, count)


def _budgets(home: Path, snapshot: Snapshot) -> Iterator[str]:
    """Budgets of the configuration that have one account. Those of each key or user have as many
    as there are callers, and their names are nobody else's business."""
    yield from _head("budget_remaining_usd", "gauge", "Neither spent nor set aside in its period.")
    dollars = {
        quota.id: quota
        for quota in sorted(snapshot.quotas, key=lambda quota: -quota.limit)
        if quota.unit == "usd" and (quota.scope == "all" or quota.name != "*")
        if quota.scope in _SHARED_SCOPES
    }
    committed = _committed(home, snapshot) if dollars else {}
    if committed is None:
        return
    for quota in dollars.values():
        subject = "" if quota.scope == "all" else quota.name
        account = Account(quota.id, subject, bounds(quota.period, quota.zone)[0])
        labels = {"scope": quota.scope, "name": subject, "period": quota.period, "zone": quota.zone}
        left_nano = limit_of(quota) - committed.get(account, 0)
        yield _sample("budget_remaining_usd", labels, left_nano / NANO)


def _committed(home: Path, snapshot: Snapshot) -> dict[Account, int] | None:
    """Nano-dollars by account; None: the store is lost, and a figure would be wrong."""
    try:
        with closing(open_leases(home, snapshot.limits_url, nodes=snapshot.limits_nodes)) as leases:
            return leases.committed()
    except StoreError:
        return None


def _achieved(home: Path, db: Database) -> list[Achieved]:
    """Over whole promises; none where a promise's file cannot be read: doctor tells that."""
    try:
        return [line for line in achieved_here(home, db) if line.task is None]
    except ConfigError:
        return []


_PROMISE: dict[str, tuple[str, Callable[[Achieved], float]]] = {
    "promise_target": ("Promised share of the cloud model's quality.", lambda p: p.target),
    "promise_judged_calls": ("Explored calls that are judged.", lambda p: p.judged),
    "promise_withdrawn": ("1: broken and withdrawn.", lambda p: p.withdrawn is not None),
}
_QUALITY: dict[str, tuple[str, Callable[[Estimate], float]]] = {
    "promise_achieved": ("Achieved share, from judged calls.", lambda e: e.mean),
    "promise_achieved_low": ("Lower end of its 95 % interval.", lambda e: e.low),
}


def _promises(lines: list[Achieved]) -> Iterator[str]:
    """A pair's names are the configuration's; there are as many as were calibrated."""
    for name, (about, of_promise) in _PROMISE.items():
        yield from _head(name, "gauge", about)
        for line in lines:
            yield _sample(name, _pair(line), float(of_promise(line)))
    for name, (about, of_quality) in _QUALITY.items():
        yield from _head(name, "gauge", about)
        for line in lines:
            if line.quality is not None:
                yield _sample(name, _pair(line), of_quality(line.quality))


def _pair(line: Achieved) -> dict[str, str]:
    return {"local": line.local, "cloud": line.cloud}


def _status(home: Path) -> dict[str, Any]:
    try:
        status: dict[str, Any] = json.loads((home / "run" / "status.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return status


def lost_stores(home: Path) -> list[str]:
    """Why books, keys or limits are not what they should be; calls are served all the same."""
    return [f"{name}: {why}" for name, why in _status(home).get("stores", {}).items()]


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP locavore_{name} {about}"
    yield f"# TYPE locavore_{name} {kind}"


def _sample(name: str, labels: dict[str, str], value: int | float | Decimal) -> str:
    return _line(f"locavore_{name}", labels, value)


def _line(name: str, labels: dict[str, str], value: int | float | Decimal) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    number = format(value, "f") if isinstance(value, Decimal) else str(value)
    return f"{name}{{{inner}}} {number}" if inner else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
