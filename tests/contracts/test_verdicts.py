"""Explored calls and their verdicts, in every ledger store."""

import contextlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from locavore.core.decision import Explored
from locavore.core.errors import RequestError
from locavore.ledger import kept_answers, retention
from locavore.ledger.books import verify
from locavore.ledger.database import Database
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.kept_answers import KeptAnswer
from locavore.ledger.query import open_current, report
from locavore.ledger.verdicts import Place, Verdict, VerdictStore, explored, find, news
from tests.contracts.test_ledger_stores import url as url  # the fixture
from tests.ledger.records import NOON_S, attempt, call, decision, usd

PAIR = Explored(local="home/small", cloud="cloud/big", promise="p1")
CLOUD: dict[str, Any] = {
    "backend": "cloud/big",
    "provider": "cloud",
    "model": "big",
    "place": "public_api",
}


def write(home: Path, count: int, *, shadows: bool = True) -> None:
    """Explored calls `d0` and on: even ones were served at home, odd ones by the cloud."""
    journal = SegmentJournal(home)
    for k in range(count):
        served = attempt() if k % 2 == 0 else attempt(**CLOUD)
        other = attempt(**CLOUD) if k % 2 == 0 else attempt()
        made = decision(f"d{k}", explored=PAIR, propensity=0.1)
        journal.append(call(f"d{k}", served, decision=made, key_name="k", user="ann"))
        if shadows:
            compared = {"form_served": 1.0, "form_shadow": 0.0, "agrees": k % 3 == 0}
            journal.append(
                call(
                    f"d{k}.shadow",
                    other,
                    decision=decision(f"d{k}.shadow"),
                    parent_id=f"d{k}",
                    baseline_cost=None,
                    extra={"shadow": compared},
                )
            )
    journal.close()


@pytest.fixture
def store(tmp_path: Path, url: str | None) -> Iterator[VerdictStore]:
    write(tmp_path, 4)
    with contextlib.closing(VerdictStore(tmp_path, url=url)) as opened:
        yield opened


@pytest.fixture
def db(tmp_path: Path, url: str | None, store: VerdictStore) -> Iterator[Database]:
    with contextlib.closing(open_current(tmp_path, url)) as opened:
        yield opened


def test_explored_calls_are_kept_with_what_could_be_compared(db: Database) -> None:
    found = list(explored(db))
    assert [(e.id, e.kept) for e in found] == [
        ("d0", True),
        ("d1", False),
        ("d2", True),
        ("d3", False),
    ]
    assert (found[0].local, found[0].cloud, found[0].promise) == ("home/small", "cloud/big", "p1")
    assert (found[0].propensity, found[0].task) == (0.1, "chat")
    assert (found[0].form_served, found[0].form_shadow, found[0].agrees) == (1.0, 0.0, True)
    assert not any(e.judged for e in found)
    assert all(e.waits for e in found)
    assert find(db, "d3") == found[3]
    assert find(db, "d9") is None
    assert list(explored(db, promise="p2")) == []


def test_a_verdict_is_given_in_parts_and_said_again_but_never_changed(
    store: VerdictStore, db: Database
) -> None:
    assert store.give(Verdict(id="d0", served=0.5), key="k") == Verdict(id="d0", served=0.5)
    assert not (found := find(db, "d0")) or not found.judged
    whole = Verdict(id="d0", served=0.5, shadow=1.0)
    assert store.give(Verdict(id="d0", shadow=1.0), key="k") == whole
    assert store.give(whole, key="k") == whole
    kept = find(db, "d0")
    assert kept is not None
    assert kept.judged
    with pytest.raises(
        RequestError, match=r"served was judged 0\.5 before and is 0\.9 now"
    ) as told:
        store.give(Verdict(id="d0", served=0.9), key="k")
    assert told.value.status == 409
    assert find(db, "d0") == kept


def test_where_the_cloud_served_its_own_answer_is_enough(store: VerdictStore, db: Database) -> None:
    store.give(Verdict(id="d1", served=1.0), key="k")
    found = find(db, "d1")
    assert found is not None
    assert found.judged


def test_a_reader_sees_each_verdict_once_and_each_comparison(
    store: VerdictStore, db: Database
) -> None:
    verdicts, shadows, come = news(db, "p1", Place())
    assert (len(verdicts), len(shadows)) == (0, 4)
    store.give(Verdict(id="d2", served=1.0), key="k")
    store.give(Verdict(id="d0", served=1.0, shadow=0.0), key="k")
    verdicts, shadows, come = news(db, "p1", come)
    assert ([v.id for v in verdicts], shadows) == (["d2", "d0"], [])
    store.give(Verdict(id="d2", shadow=1.0), key="k")
    verdicts, _, come = news(db, "p1", come)
    assert [(v.id, v.judged) for v in verdicts] == [("d2", True)]
    store.give(Verdict(id="d2", shadow=1.0), key="k")
    assert news(db, "p1", come)[0] == []
    assert news(db, "p2", Place())[0] == []


@pytest.mark.parametrize(
    ("verdict", "key", "status", "said"),
    [
        (Verdict(id="d0", served=1.5), "k", 400, "served 1.5: give a score between 0 and 1"),
        (Verdict(id="d0", shadow=float("nan")), "k", 400, "shadow nan"),
        (Verdict(id="d0"), "k", 400, "`served`, `shadow` or both"),
        (Verdict(id="d9", served=1.0), "k", 404, "no call 'd9'"),
        (Verdict(id="d0", served=1.0), "other", 404, "no call 'd0'"),
        (Verdict(id="d0", served=1.0), None, 404, "no call 'd0'"),
        (Verdict(id="d0.shadow", served=1.0), "k", 404, "no call"),
    ],
)
def test_a_verdict_that_cannot_be_is_refused_and_says_why(
    store: VerdictStore, verdict: Verdict, key: str | None, status: int, said: str
) -> None:
    with pytest.raises(RequestError, match=said) as told:
        store.give(verdict, key=key)
    assert told.value.status == status


def test_the_operator_may_judge_any_call(store: VerdictStore) -> None:
    assert store.give(Verdict(id="d0", served=1.0), any_key=True).served == 1.0


def test_only_an_explored_call_has_a_shadow_to_judge(tmp_path: Path, url: str | None) -> None:
    journal = SegmentJournal(tmp_path)
    journal.append(call("plain"))
    journal.close()
    with contextlib.closing(VerdictStore(tmp_path, url=url)) as store:
        with pytest.raises(RequestError, match="was not explored"):
            store.give(Verdict(id="plain", shadow=1.0))
        assert store.give(Verdict(id="plain", served=0.0)).served == 0.0


def test_neither_of_the_pair_served_it_so_it_is_no_evidence(
    tmp_path: Path, url: str | None
) -> None:
    journal = SegmentJournal(tmp_path)
    made = decision("x", explored=PAIR, propensity=0.1)
    journal.append(call("x", attempt(backend="third/model"), decision=made))
    journal.append(call("y", attempt(fault="reset"), decision=made, outcome="failed", status=502))
    journal.close()
    with contextlib.closing(open_current(tmp_path, url)) as db:
        assert list(explored(db)) == []


@pytest.mark.parametrize(("erased", "left"), [(True, 0), (False, 3)])
def test_c95_other_answers_go_with_the_person_and_with_retention(
    tmp_path: Path, url: str | None, erased: bool, left: int
) -> None:
    write(tmp_path, 3)
    for k in range(3):
        kept = KeptAnswer(id=f"d{k}", backend="cloud/big", text="x", until_s=2**40)
        kept_answers.save(tmp_path, kept)
    with contextlib.closing(open_current(tmp_path, url)) as db:
        touched = retention.erase(db, user="ann" if erased else "bob", home=tmp_path)
        assert touched == (3 if erased else 0)  # a shadow's record carries no user here
        assert len(list((tmp_path / "shadows").iterdir())) == left
        retention.prune(db, before_s=NOON_S + 1, home=tmp_path)
        assert list((tmp_path / "shadows").iterdir()) == []
        assert len(list(explored(db))) == 3, "scores name nobody"


def test_c69_shadows_are_attempts_and_costs_but_no_calls_of_clients(
    tmp_path: Path, url: str | None
) -> None:
    write(tmp_path, 3)
    write_plain = SegmentJournal(tmp_path)
    write_plain.append(
        call("s", attempt(cost=usd("0.002")), parent_id="d0", baseline_cost=usd("9"))
    )
    write_plain.close()
    with contextlib.closing(open_current(tmp_path, url)) as db:
        total = report(db).total
        assert (total.calls, total.served, total.attempts) == (3, 3, 7)
        assert total.cost_usd == Decimal("0.000125") * 6 + Decimal("0.002")
        assert (total.compared, total.baseline_usd) == (3, Decimal("0.003"))
        assert total.compared_cost_usd == total.cost_usd  # what shadows cost is no saving
        assert verify(db).problems == ()
