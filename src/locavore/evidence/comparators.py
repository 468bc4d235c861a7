"""Was an answer right? Decided by a rule the user wrote down, never by a model.

{"exact": "Paris"}                      after trimming, case and final punctuation aside
{"number": 42, "tolerance": 0.5}        the last number of the answer
{"json": {"city": "Bonn"}}              these fields, anywhere inside the answer's first object
{"regex": "^yes\\b"}                    found somewhere; flags inside the pattern
{"python": "assert add(2, 2) == 4"}     runs after the answer's code (only when allowed)
"""

import json
import re
import subprocess
import sys
import tempfile
from typing import Any

import msgspec

from locavore.core.errors import ConfigError

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][+-]?\d+)?")
_CODE = re.compile(r"```(?:\w*)\s*\n(.*?)```", re.DOTALL)
CODE_S = 10.0
"""Seconds that an answer's code may run."""


class Expect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One comparator: exactly one of the kinds."""

    exact: str | None = None
    number: float | None = None
    tolerance: float = 0.0
    json: dict[str, Any] | None = None
    regex: str | None = None
    python: str | None = None

    def __post_init__(self) -> None:
        given = [k for k in ("exact", "number", "json", "regex", "python") if self._has(k)]
        if len(given) != 1:
            raise ValueError(f"expect takes one of exact, number, json, regex, python; got {given}")
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                raise ValueError(f"regex {self.regex!r}: {error}") from None

    def _has(self, kind: str) -> bool:
        return getattr(self, kind) is not None


def score(answer: str, expect: Expect, *, run_code: bool = False) -> float:
    """1 or 0; for `json` the share of the fields that are right.

    Raises ConfigError for code that was not allowed to run.
    """
    if expect.exact is not None:
        return float(_plain(answer) == _plain(expect.exact))
    if expect.number is not None:
        found = _NUMBER.findall(answer)
        off = abs(float(found[-1].replace(",", "")) - expect.number) if found else float("inf")
        return float(off <= expect.tolerance + 1e-9 * abs(expect.number))
    if expect.json is not None:
        return _fields(answer, expect.json)
    if expect.regex is not None:
        return float(re.search(expect.regex, answer) is not None)
    if not run_code:
        raise ConfigError(["a prompt expects its code to run: allow that with --run-code"])
    return float(_runs(answer, expect.python or ""))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(".!").strip("\"'` ")


def _fields(answer: str, wanted: dict[str, Any]) -> float:
    start = answer.find("{")
    try:
        value, _ = json.JSONDecoder().raw_decode(answer[start:]) if start >= 0 else (None, 0)
    except (ValueError, RecursionError):
        return 0.0
    if not isinstance(value, dict) or not wanted:
        return float(value == wanted)
    right = [k in value and bool(value[k] == v) for k, v in wanted.items()]
    return sum(right) / len(right)


def _runs(answer: str, test: str) -> bool:
    """The answer's code, then the test, in a process of its own; nothing else isolates it."""
    blocks = _CODE.findall(answer) or [answer]
    program = "\n".join([*blocks, test, ""])
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(  # noqa: S603 - the user allowed it with --run-code
                [sys.executable, "-I", "-c", program],
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=CODE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0
