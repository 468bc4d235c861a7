"""The other model's answers to explored calls, kept for a while so that somebody can judge them.

The only text of a client's call that Locavore ever writes, and only where `explore.keep_answers_s`
says so: one file per answer under LOCAVORE_HOME/shadows, for its owner's eyes only. It goes when it
is judged, when its time is over, and with the person whose call it was.
"""

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from locavore.core.errors import StoreError

_ID = re.compile(r"[0-9A-Za-z-]{1,80}")
"""Of decision ids. Anything else is no file of ours, whatever path it spells."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    arguments: str
    """JSON text as the model wrote it."""


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """Of the decision."""
    backend: str
    """Who answered."""
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    until_s: float
    """Unix time at which it goes."""


def save(home: Path, answer: KeptAnswer) -> None:
    """Raises StoreError."""
    path = _path(home, answer.id)
    if path is None:
        raise StoreError(f"{answer.id!r} is no decision's id")
    draft = path.with_suffix(".part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(msgspec.json.encode(answer))
        draft.replace(path)
    except OSError as error:
        raise StoreError(f"cannot keep an answer at {str(path)!r}: {error}") from error


def find(home: Path, id_: str, *, now_s: float | None = None) -> KeptAnswer | None:
    """None: it was never kept, or is gone."""
    path = _path(home, id_)
    try:
        found = None if path is None else msgspec.json.decode(path.read_bytes(), type=KeptAnswer)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    except OSError as error:
        raise StoreError(f"cannot read {str(path)!r}: {error}") from error
    gone = found is None or found.until_s <= (time.time() if now_s is None else now_s)
    return None if gone else found


def drop(home: Path, ids: Iterable[str]) -> int:
    """Delete what is kept of these calls; how many answers that was."""
    paths = filter(None, (_path(home, id_) for id_ in ids))
    return sum(_unlinked(path) for path in paths)


def expire(home: Path, *, now_s: float) -> int:
    """Delete what may be kept no longer; how many answers that was."""
    gone = 0
    for path in _folder(home).glob("*.json"):
        if find(home, path.stem, now_s=now_s) is None:
            gone += _unlinked(path)
    return gone


def _unlinked(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"cannot delete {str(path)!r}: {error}") from error
    return True


def _folder(home: Path) -> Path:
    return home / "shadows"


def _path(home: Path, id_: str) -> Path | None:
    return _folder(home) / f"{id_}.json" if _ID.fullmatch(id_) else None
