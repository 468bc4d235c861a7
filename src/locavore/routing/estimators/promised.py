"""Promises as data: one file per pair of models, and what they change about a decision.

`locavore calibrate` writes them; `routing.judging` asks them between the two halves of a decision.
A promise only ever moves a local option up (it may stay local under the promise) or down; limits
are checked elsewhere and cannot be bought back.
"""

from collections.abc import Iterable
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

import msgspec

from locavore.core.backend import Backend
from locavore.core.errors import ConfigError
from locavore.core.estimate import Estimate
from locavore.routing.estimators.looks import look_of
from locavore.routing.estimators.pair import unlabelled, unlabelled_post
from locavore.routing.estimators.signals import Signals
from locavore.routing.estimators.trunk import Reading, Trunk
from locavore.routing.promise import Look, Promise
from locavore.routing.staying import Stays

FOLDER = "promises"


class Withdrawal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a promise no longer holds. Only a new `locavore calibrate` restores one."""

    at_s: float
    """Unix time."""
    judged: str
    """What fell short: `quality` (verdicts) or `form` (what can be checked of an answer)."""
    achieved: Estimate
    """Since it began to fall, as a share of the cloud model's."""


_REMEMBERED = 32


class Entry(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What calibration found for one pair of models."""

    local: str
    """Backend id."""
    cloud: str
    pre: Promise
    post: Promise | None = None
    """With the local answer's signals; None: no answers were seen."""
    looks: bool = True
    """Answers that are looked at may stay local more often than requests alone allow, so they are
    looked at first; it is one rule or the other, because two promises do not add up to one."""
    stays: Stays | None = None
    """How many answers would have stayed, by what their requests told; None: by their share."""
    local_quality: float
    """Mean score of the local model on the labelled calls, and of the cloud model."""
    cloud_quality: float
    made_s: float
    """Unix time."""
    samples: int = 0
    """Further local answers whose agreement `post` looks at: a call must be looked at with as
    many, or the rule that decides is not the one that was tested."""
    fingerprint: str = ""
    """Of the local weights and engine; a change voids the promise (C116)."""
    withdrawn: Withdrawal | None = None

    @cached_property
    def id(self) -> str:
        """Another calibration is another promise; being withdrawn changes nothing."""
        told = msgspec.structs.replace(self, withdrawn=None)
        return blake2b(msgspec.json.encode(told), digest_size=8).hexdigest()


def fingerprint_of(backend: Backend) -> str:
    """Of what a promise rests on: another model, weights or engine build is another promise."""
    parts = (backend.model, backend.weights_sha256 or "", backend.engine_build or "")
    return "\n".join(parts)


def file_of(folder: Path, local: str, cloud: str) -> Path:
    """Where a pair's promise is kept; ids hold characters that file names may not."""
    safe = "".join(c if c.isalnum() or c in "-." else "_" for c in f"{local}~{cloud}")
    mark = crc32("\n".join((local, cloud)).encode())
    return folder / f"{safe}-{mark:08x}.json"


def save(folder: Path, entry: Entry) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = file_of(folder, entry.local, entry.cloud)
    draft = path.with_suffix(".tmp")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(entry), indent=1))
    draft.replace(path)
    return path


def read(folder: Path) -> list[Entry]:
    """Every promise of a folder; raises ConfigError naming a file that cannot be read."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Entry))
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError([f"promise {path}: {error}; run `locavore calibrate`"]) from error
    return found


def withdraw(folder: Path, promise: str, withdrawal: Withdrawal) -> Entry | None:
    """Set down that the promise with this id no longer holds.

    None: there is no such promise (any more), or it is withdrawn already.
    """
    for entry in read(folder):
        if entry.id == promise and entry.withdrawn is None:
            broken = msgspec.structs.replace(entry, withdrawn=withdrawal)
            save(folder, broken)
            return broken
    return None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a promise says of one call."""

    keeps: bool
    quality: Estimate
    """Of the workload under the promise, as a share of the cloud model's."""
    score: float
    threshold: float | None


class Promises:
    """The promises of one snapshot, over one trunk."""

    def __init__(self, trunk: Trunk, entries: Iterable[Entry]) -> None:
        self._trunk = trunk
        found = list(entries)
        self._entries = {(e.local, e.cloud): e for e in found if e.withdrawn is None}
        self._withdrawn = {(e.local, e.cloud): e.withdrawn for e in found if e.withdrawn}
        self._pre, self._post = unlabelled(), unlabelled_post(trunk.answers)
        self._readings: dict[str, Reading] = {}
        """Of the asks of late: a call is judged by several, before its answer and after it."""

    def __bool__(self) -> bool:
        return bool(self._entries or self._withdrawn)

    def id_of(self, local: str, cloud: str) -> str | None:
        """Of the promise that holds for a pair; None: none does."""
        entry = self._entries.get((local, cloud))
        return None if entry is None else entry.id

    def entry(self, local: str, cloud: str) -> Entry | None:
        """The promise that holds for a pair."""
        return self._entries.get((local, cloud))

    def broken(self, local: str, cloud: str) -> str:
        """How the promise for a pair was broken; empty: it was not."""
        found = self._withdrawn.get((local, cloud))
        return f"{found.judged} {_interval(found.achieved)}" if found is not None else ""

    def verdict(
        self, prompt: str, local: str, cloud: str, task: str, signals: Signals | None = None
    ) -> Verdict | None:
        """None: nothing was promised for this pair."""
        entry = self._entries.get((local, cloud))
        if entry is None:
            return None
        promise = entry.pre if signals is None else entry.post
        if promise is None:
            return None
        look = self.look(prompt, task, signals)
        return Verdict(
            keeps=promise.keeps(look),
            quality=quality_of(promise),
            score=promise.score(look),
            threshold=promise.threshold,
        )

    def look(self, prompt: str, task: str, signals: Signals | None) -> Look:
        """The same look at calibration and at the call."""
        stage = self._pre if signals is None else self._post
        look = look_of(stage, self._read(prompt), prompt, task, signals)
        return msgspec.structs.replace(look, familiarity=0.0)

    def _read(self, prompt: str) -> Reading:
        reading = self._readings.get(prompt)
        if reading is None:
            if len(self._readings) >= _REMEMBERED:
                self._readings.clear()
            reading = self._readings[prompt] = self._trunk.read(prompt)
        return reading


def quality_of(promise: Promise) -> Estimate:
    return Estimate(
        mean=promise.quality,
        low=min(promise.lower, promise.quality),
        high=max(2 * promise.quality - promise.lower, promise.quality),
        n=promise.labels,
        source=f"promise on {promise.basis}, {promise.target.confidence:.0%} confidence",
    )


def _interval(found: Estimate) -> str:
    return f"{found.mean:.3f} ({found.low:.3f}-{found.high:.3f}) of {found.n}"
