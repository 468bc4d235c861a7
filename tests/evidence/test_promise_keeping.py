"""What the supervisor does for promises now and then."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from locavore.compose.promise_keeping import PromiseKeeping
from locavore.core.decision import Explored
from locavore.ledger import kept_answers
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.kept_answers import KeptAnswer
from locavore.ledger.verdicts import Verdict, VerdictStore
from locavore.routing.estimators.promised import FOLDER, file_of, read, save
from tests.cli.test_verdicts import ENTRY
from tests.ledger.records import attempt, call, decision


class Keeping(PromiseKeeping):
    def __init__(self, home: Path) -> None:
        self.now_s = 100.0
        self.told: list[str] = []
        super().__init__(home, tell=self.told.append, clock=lambda: self.now_s)


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    made = Keeping(tmp_path)
    yield made
    made.close()


def lost(home: Path, promise: str, calls: int) -> None:
    journal = SegmentJournal(home)
    pair = Explored(local=ENTRY.local, cloud=ENTRY.cloud, promise=promise)
    for k in range(calls):
        made = decision(f"d{k}", explored=pair, propensity=0.1)
        journal.append(call(f"d{k}", attempt(), decision=made))
    journal.close()
    store = VerdictStore(home)
    for k in range(calls):
        store.give(Verdict(id=f"d{k}", served=0.0, shadow=1.0))
    store.close()


def test_a_new_promise_is_noticed_and_a_broken_one_withdrawn_once(
    tmp_path: Path, keeping: Keeping
) -> None:
    assert not keeping.round(), "there is none"
    save(tmp_path / FOLDER, ENTRY)
    assert keeping.round()
    assert not keeping.round()
    lost(tmp_path, ENTRY.id, 40)
    assert keeping.round()
    (line,) = keeping.told
    assert "the promise for home/small is withdrawn: quality 0.000" in line
    assert "0.900 was promised" in line
    (broken,) = read(tmp_path / FOLDER)
    assert broken.withdrawn is not None
    assert broken.withdrawn.at_s == 100.0
    assert not keeping.round()
    assert len(keeping.told) == 1
    save(tmp_path / FOLDER, msgspec.structs.replace(ENTRY, made_s=2.0))
    assert keeping.round()
    assert not keeping.round(), "what broke the old promise is not held against the new one"
    assert len(keeping.told) == 1


def test_an_answer_whose_time_is_over_goes(tmp_path: Path, keeping: Keeping) -> None:
    kept_answers.save(tmp_path, KeptAnswer(id="a-1", backend="b", text="x", until_s=150.0))
    keeping.round()
    assert len(list((tmp_path / "shadows").iterdir())) == 1
    keeping.now_s = 151.0
    keeping.round()
    assert list((tmp_path / "shadows").iterdir()) == []


def test_a_file_nobody_can_read_is_told_once_until_it_is_mended(
    tmp_path: Path, keeping: Keeping
) -> None:
    path = save(tmp_path / FOLDER, ENTRY)
    path.write_text("{")
    assert keeping.round()
    keeping.round()
    (line,) = keeping.told
    assert path.name in line
    save(tmp_path / FOLDER, ENTRY)
    assert file_of(tmp_path / FOLDER, ENTRY.local, ENTRY.cloud) == path
    assert keeping.round()
    assert len(keeping.told) == 1
