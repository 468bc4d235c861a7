"""Labels arrive by header and metadata; unknown ones are refused, sessions keep theirs."""

from pathlib import Path

import pytest

from locavore.core.errors import RequestError, StoreError
from locavore.core.policy import check_labels
from locavore.ledger.session_labels import FileSessionLabels
from locavore.privacy.labels import header_labels
from locavore.privacy.sessions import carried, remember, session_key

KNOWN = frozenset({"health", "secret"})
HEALTH = frozenset({"health"})


def test_a_header_lists_labels() -> None:
    assert header_labels(b"") == frozenset()
    assert header_labels(b" secret , ,health") == KNOWN


@pytest.mark.parametrize("header", [b"helth", b"health;secret", b"Health", b"\xff\xfe", b"-"])
def test_an_unknown_label_is_a_400(header: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        check_labels(header_labels(header), KNOWN)
    assert caught.value.status == 400
    assert "health, secret" in caught.value.message


def test_c92_a_session_keeps_its_labels_until_reset(tmp_path: Path) -> None:
    store = FileSessionLabels(tmp_path / "sessions")
    assert carried(store, "s") == frozenset()
    remember(store, "s", HEALTH)
    assert carried(store, "s") == HEALTH
    assert carried(store, "other") == frozenset()
    assert carried(store, None) == frozenset()
    remember(store, "s", frozenset({"secret"}))
    assert carried(store, "s") == KNOWN
    store.reset("s")
    assert carried(store, "s") == frozenset()
    remember(store, "s", frozenset({"secret"}))
    assert carried(store, "s") == {"secret"}


def test_workers_share_sessions(tmp_path: Path) -> None:
    first, second = FileSessionLabels(tmp_path), FileSessionLabels(tmp_path)
    assert second.get("s") == frozenset()
    first.add("s", HEALTH)
    assert second.get("s") == HEALTH
    second.add("s", frozenset({"secret"}))
    assert first.get("s") == KNOWN
    first.reset("s")
    assert second.get("s") == frozenset()
    assert FileSessionLabels(tmp_path).get("s") == frozenset()


def test_repeated_labels_write_nothing(tmp_path: Path) -> None:
    store = FileSessionLabels(tmp_path)
    for _ in range(3):
        store.add("s", HEALTH)
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == b"health\n"
    assert file.stat().st_mode & 0o777 == 0o600


def test_unlabelled_sessions_leave_no_file(tmp_path: Path) -> None:
    store = FileSessionLabels(tmp_path / "sessions")
    remember(store, "s", frozenset())
    store.reset("s")
    assert not (tmp_path / "sessions").exists()


def test_the_name_of_a_session_is_not_on_disk(tmp_path: Path) -> None:
    FileSessionLabels(tmp_path).add("../../etc/patient-7", HEALTH)
    (file,) = tmp_path.iterdir()
    assert "patient" not in file.name


def test_a_session_belongs_to_its_key() -> None:
    assert session_key("a", "s") != session_key("b", "s")
    assert session_key(None, "s") != session_key("s", "")


def test_an_unreadable_store_fails_closed(tmp_path: Path) -> None:
    store = FileSessionLabels(tmp_path)
    store.add("s", HEALTH)
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.mkdir()
    with pytest.raises(StoreError):
        store.get("s")
    with pytest.raises(StoreError):
        store.add("s", HEALTH)
