"""Histograms and counters for Prometheus: each call once, in the bucket its value belongs to."""

import contextlib
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from locavore.core.decision import Considered
from locavore.core.money import Usage
from locavore.core.outcome import CallRecord
from locavore.ledger.ingest import Ingester
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.metrics import EDGES, TOTAL, Sample, samples
from locavore.ledger.query import open_current
from tests.ledger.records import attempt, call, decision

CLOUD = {"backend": "openai/gpt", "provider": "openai", "model": "gpt", "place": "public_api"}


def counted(home: Path, *records: CallRecord) -> list[Sample]:
    journal = SegmentJournal(home)
    for record in records:
        journal.append(record)
    journal.close()
    with contextlib.closing(open_current(home)) as db:
        return samples(db)


def buckets(found: list[Sample], name: str, label: str = "") -> dict[int, int]:
    """Bucket -> observations, over all providers."""
    total: Counter[int] = Counter()
    for sample in found:
        if (sample.name, sample.label) == (name, label):
            total[sample.bucket] += sample.n
    return dict(total)


@settings(max_examples=40, deadline=None)
@given(ms=st.integers(0, 200_000), spare_us=st.integers(1, 999))
def test_a_duration_is_in_the_first_bucket_whose_edge_it_is_below(
    tmp_path_factory: object, ms: int, spare_us: int
) -> None:
    home: Path = tmp_path_factory.mktemp("home")  # type: ignore[attr-defined]
    duration_s = ms / 1000 + spare_us / 1_000_000
    found = buckets(counted(home, call("d", duration_s=duration_s)), "request_duration")
    edges = EDGES["request_duration"]
    first = next((n for n, edge in enumerate(edges) if duration_s * 1000 <= edge), len(edges))
    assert found == {TOTAL: 1, first: 1}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 5000)), min_size=2, max_size=20))
def test_calls_booked_together_are_each_in_their_bucket(
    tmp_path_factory: object, calls: list[tuple[int, int]]
) -> None:
    home: Path = tmp_path_factory.mktemp("home")  # type: ignore[attr-defined]
    records = [
        call(f"d{n}", attempt(usage=Usage(output_tokens=tokens)), duration_s=(ms + 0.5) / 1000)
        for n, (ms, tokens) in enumerate(calls)
    ]
    found = counted(home, *records)
    for name, label, values in (
        ("request_duration", "", [ms + 0.5 for ms, _ in calls]),
        ("token_usage", "output", [tokens for _, tokens in calls]),
    ):
        edges = EDGES[name]
        expected = Counter(sum(edge < value for edge in edges) for value in values)
        assert buckets(found, name, label) == {TOTAL: len(calls), **expected}


def test_tokens_on_an_edge_belong_to_it(tmp_path: Path) -> None:
    used = Usage(input_tokens=64, output_tokens=65)
    found = counted(tmp_path, call("d", attempt(usage=used)))
    assert buckets(found, "token_usage", "input") == {TOTAL: 1, 3: 1}  # 1, 4, 16, 64
    assert buckets(found, "token_usage", "output") == {TOTAL: 1, 4: 1}
    assert [s.total for s in found if s.name == "token_usage" and s.bucket == TOTAL] == [64, 65]


def test_first_and_further_tokens_are_told_of_streams_that_were_served(tmp_path: Path) -> None:
    used = Usage(input_tokens=5, output_tokens=11)
    stream = attempt(ttft_s=0.1205, duration_s=1.1205, usage=used)
    whole = attempt(ttft_s=0.3, usage=used)
    broken = attempt(ttft_s=0.1, fault="truncated", usage=None)
    found = counted(
        tmp_path,
        call("a", stream, stream=True),
        call("b", whole),
        call("c", broken, stream=True, outcome="failed", status=502),
    )
    edges = EDGES["time_to_first_token"]
    assert buckets(found, "time_to_first_token") == {TOTAL: 1, edges.index(250): 1}
    # 1 s for ten tokens after the first; a pace on an edge is told as just above it.
    pace = buckets(found, "time_per_output_token")
    assert pace == {TOTAL: 1, EDGES["time_per_output_token"].index(150_000): 1}
    assert buckets(found, "operation_duration")[TOTAL] == 2
    assert buckets(found, "operation_duration", "truncated")[TOTAL] == 1
    assert buckets(found, "request_duration", "failed")[TOTAL] == 1


def test_hops_are_told_with_what_was_wrong_before(tmp_path: Path) -> None:
    failed = attempt(0, fault="overloaded", status=503, usage=None, cost=None)
    again = attempt(1, kind="retry", fault="reset", status=None, usage=None, cost=None)
    cloud = attempt(2, kind="fallback", **CLOUD)
    kept = (attempt(0), attempt(1, kind="sample"), attempt(2, kind="escalation", **CLOUD))
    found = counted(tmp_path, call("a", failed, again, cloud), call("b", *kept))
    hops = {
        (s.name, s.provider, s.label): s.n
        for s in found
        if s.name in ("retry", "fallback", "escalation")
    }
    assert hops == {
        ("retry", "vllm", "overloaded"): 1,
        ("fallback", "openai", "reset"): 1,
        ("escalation", "openai", "doubt"): 1,
    }


def test_decisions_are_told_by_place_and_reason_of_what_was_chosen(tmp_path: Path) -> None:
    near = Considered(id="a", place="on_prem", verdict="chosen", reasons=("cheapest: by 3 x",))
    none = Considered(id="a", place="on_prem", verdict="excluded", reasons=("context",))
    found = counted(
        tmp_path,
        call("a", decision=decision("a", considered=(near, none))),
        call("b", decision=decision("b", considered=(none, none)), outcome="refused"),
        call("c", decision=decision("c", considered=())),
        call("judge", decision=decision("j", considered=(near,)), parent_id="a"),
    )
    told = {(s.provider, s.label): s.n for s in found if s.name == "decision"}
    assert told == {("on_prem", "cheapest"): 1, ("", "context"): 1, ("", "no_backend"): 1}
    assert buckets(found, "request_duration")[TOTAL] == 2  # a judge's call is no client's
    assert buckets(found, "operation_duration")[TOTAL] == 4


def test_counts_are_the_same_however_the_journal_is_cut(tmp_path: Path) -> None:
    def records() -> list[CallRecord]:
        return [
            call(f"d{n}", attempt(duration_s=n / 7), duration_s=n / 5, format=("a", "b")[n % 2])
            for n in range(60)
        ]

    whole = counted(tmp_path / "whole", *records())
    journal = SegmentJournal(tmp_path / "cut", segment_bytes=8192)
    ingester = Ingester(tmp_path / "cut", batch=7)
    for record in records():
        journal.append(record)
        ingester.run_once()
    journal.close()
    ingester.close()
    with contextlib.closing(open_current(tmp_path / "cut")) as db:
        assert samples(db) == whole
