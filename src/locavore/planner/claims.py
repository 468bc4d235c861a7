"""Structured claims: what a text says, the figures it rests on, and what to compute from them.

A claim file is TOML. `[let]` names figures and `[[claim]]` states one; a claim with `rows` is
a template that is repeated with each row's figures (`{name}` in texts and formulas is replaced).
The five documents' claims are in `data/claims/`.
"""

import importlib.resources
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from locavore.core.errors import RequestError

Check = Literal[
    "value",  # the formula gives the stated figure
    "roof",  # the stated figure is at most the formula's
    "fits",  # `need` fits in `have`
    "enough",  # `have` covers `need`
    "same",  # all `figures` are one fact
    "rising",  # `figures` rise from first to last
    "within",  # every one of `figures` lies in `stated`
    "cheapest",  # `winner` has the lowest of `options`
    "tie",  # `figures` are about equal
    "reference",  # the stated figure or word agrees with an outside source
    "like",  # the compared things are of one kind
    "derived",  # nothing stated: the figure is only computed
]


class Part(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One check of a claim."""

    check: Check = "value"
    formula: str = ""
    stated: str = ""
    unit: str = ""
    """Unit to show the recomputed figure in; default: the stated figure's."""
    need: str = ""
    have: str = ""
    figures: list[str] = []
    options: dict[str, str] = {}
    winner: str = ""
    reference: str = ""
    source: str = ""
    """Where a reference figure is from."""
    tolerance: float = 0.0
    """Relative slack of loose words ("half", "a third", "roughly doubles")."""
    premise: bool = False
    """Not what the claim says but what it rests on: when wrong, the claim at best approximates."""
    severity: Literal["wrong", "doubtful"] = "wrong"
    """What a mismatch with an outside source amounts to."""


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One derived figure of a text."""

    text: str
    seed: str = ""
    table: str = ""
    inputs: dict[str, str] = {}
    parts: list[Part]


class _Entry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    text: str
    seed: str = ""
    table: str = ""
    let: dict[str, str] = {}
    parts: list[dict[str, Any]] = []
    rows: list[dict[str, str]] = []
    check: str = ""
    formula: str = ""
    stated: str = ""
    unit: str = ""
    need: str = ""
    have: str = ""
    figures: list[str] = []
    options: dict[str, str] = {}
    winner: str = ""
    reference: str = ""
    source: str = ""
    tolerance: float = 0.0
    premise: bool = False
    severity: str = ""


class _File(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    seed: str = ""
    let: dict[str, str] = {}
    claim: list[_Entry]


def load(path: Path) -> list[Claim]:
    """Claims of a TOML file. Raises RequestError naming file and what is wrong in it."""
    try:
        return parse(path.read_text())
    except OSError as error:
        raise RequestError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except RequestError as error:
        raise RequestError(f"{path}: {error.message}") from error


def documents() -> list[Claim]:
    """The claims of the five documents, from data in the package."""
    folder = importlib.resources.files("locavore.planner").joinpath("data/claims")
    files = sorted(folder.iterdir(), key=lambda f: f.name)
    return [claim for f in files if f.name.endswith(".toml") for claim in parse(f.read_text())]


def parse(text: str) -> list[Claim]:
    try:
        content = msgspec.convert(tomllib.loads(text), _File)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise RequestError(f"not a claim file: {error}") from error
    return [claim for entry in content.claim for claim in _expand(entry, content)]


def _expand(entry: _Entry, content: _File) -> list[Claim]:
    return [_claim(entry, row, content) for row in entry.rows or [{}]]


def _claim(entry: _Entry, row: dict[str, str], content: _File) -> Claim:
    fields = {k: v for k, v in msgspec.to_builtins(entry).items() if k in Part.__struct_fields__}
    own = {k: v for k, v in fields.items() if v not in ("", [], {}, 0.0, False)}
    parts = [*([own] if own else []), *entry.parts]
    if not parts:
        raise RequestError(f"claim {entry.text!r} has nothing to check; give a formula")
    inputs = {**content.let, **entry.let, **row}
    try:
        made = [msgspec.convert(_filled(part, row), Part) for part in parts]
    except msgspec.ValidationError as error:
        raise RequestError(f"claim {entry.text!r}: {error}") from error
    return Claim(
        text=_fill(entry.text, row),
        seed=entry.seed or content.seed,
        table=entry.table,
        inputs=inputs,
        parts=made,
    )


def _filled(value: Any, row: dict[str, str]) -> Any:
    if isinstance(value, str):
        return _fill(value, row)
    if isinstance(value, list):
        return [_filled(v, row) for v in value]
    if isinstance(value, dict):
        return {k: _filled(v, row) for k, v in value.items()}
    return value


def _fill(text: str, row: dict[str, str]) -> str:
    for name, figure in row.items():
        text = text.replace("{" + name + "}", figure)
    return text
