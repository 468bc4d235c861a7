"""Parsed TOML against the list of keys: every problem is told, with its key and its value."""

import difflib
import re
from collections.abc import Mapping
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from locavore.config.schema import SECRET, File, Table

_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Reader:
    """Walks parsed TOML; `problems` has a line for everything that is wrong."""

    def __init__(self, source: str, env: Mapping[str, str]) -> None:
        self.source = source
        self.env = env
        self.problems: list[str] = []

    def problem(self, key: str, what: str) -> None:
        self.problems.append(f"{self.source}: {key}: {what}")

    def file(self, values: dict[str, Any]) -> File:
        """What could be read: a key with a problem anywhere in it keeps its default.

        So the rest can still be checked, and an operator sees every problem at once.
        """
        clean: dict[str, Any] = {}
        for name, value in values.items():
            before = len(self.problems)
            read = self.table(File, {name: value})
            if len(self.problems) == before:
                clean[name] = getattr(read, name)
        return File(**clean)

    def table(self, kind: type[Any], values: object, at: str = "") -> Any:
        """A `kind`, or None when a problem was found in it."""
        if not isinstance(values, dict):
            self.problem(at, f"expected a table, got {shown(values)}")
            return None
        fields = {f.name: f for f in msgspec.structs.fields(kind)}
        before = len(self.problems)
        for name in values.keys() - fields.keys():
            self._unknown(_join(at, name), name, list(fields))
        found = {
            name: self._value(fields[name].type, value, _join(at, name))
            for name, value in values.items()
            if name in fields
        }
        for name, field in fields.items():
            if field.required and name not in values:
                self.problem(_join(at, name), "missing, and it has no default")
        return kind(**found) if len(self.problems) == before else None

    def _unknown(self, key: str, name: str, known: list[str]) -> None:
        self.problem(key, f"unknown key{nearest(name, known)}")

    def _value(self, kind: Any, value: object, at: str, *, secret: bool = False) -> Any:
        kind, secret = plain(kind), secret or _is_secret(kind)
        if isinstance(kind, type) and issubclass(kind, Table):
            return self.table(kind, value, at)
        inner = items(kind)
        if inner is not None and isinstance(value, list | dict):
            return self._collection(inner, value, at, secret=secret)
        return self._leaf(kind, value, at, secret=secret)

    def _collection(self, kind: Any, value: Any, at: str, *, secret: bool) -> Any:
        if isinstance(value, dict):
            return {k: self._value(kind, v, _join(at, k), secret=secret) for k, v in value.items()}
        return tuple(self._value(kind, v, f"{at}[{i}]") for i, v in enumerate(value))

    def _leaf(self, kind: Any, value: object, at: str, *, secret: bool) -> Any:
        told = len(self.problems)
        expanded = self._expand(value, at) if isinstance(value, str) else value
        if len(self.problems) > told:
            return None  # the variable is missing: what its emptiness breaks is no second problem
        try:
            return msgspec.convert(expanded, kind)
        except msgspec.ValidationError as error:
            got = "a secret of another form" if secret else shown(value)
            self.problem(at, f"{_expected(kind, error)}, got {got}{_choice(kind, value)}")
            return None

    def _expand(self, text: str, at: str) -> str:
        """`${NAME}` from the environment: replaced as text, never run."""

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            if name not in self.env:
                self.problem(at, f"{match[0]}: no environment variable {name!r}; set it")
            return self.env.get(name, "")

        return _ENV.sub(replace, text)


def nearest(name: str, known: list[str]) -> str:
    """`; did you mean ...?`, or what there is."""
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "; known: " + ", ".join(sorted(known)) if len(known) <= 40 else ""


def shown(value: object) -> str:
    """A value as the file would show it, cut short."""
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def plain(kind: Any) -> Any:
    """Without `| None` around a table or collection; leaves keep their annotation."""
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if isinstance(inner, type) and issubclass(inner, Table):
        return inner
    if get_origin(inner) in (Union, UnionType):
        rest = [k for k in get_args(inner) if k is not type(None)]
        if len(rest) == 1 and (items(rest[0]) is not None or is_table(rest[0])):
            return rest[0]
    return kind


def is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Table)


def items(kind: Any) -> Any:
    """Type of the items of a tuple or dict; None for anything else."""
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(inner) is tuple:
        return get_args(inner)[0]
    return get_args(inner)[1] if get_origin(inner) is dict else None


def _is_secret(kind: Any) -> bool:
    notes = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return any(isinstance(n, Meta) and n.extra == SECRET for n in notes)


def _choices(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [c for inner in get_args(kind) for c in _choices(inner)]


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "array": "a list",
    "object": "a table",
}
"""msgspec's names of types -> those of the reference page."""


def _expected(kind: Any, error: msgspec.ValidationError) -> str:
    choices = _choices(kind)
    if choices:
        return "expected one of " + ", ".join(choices)
    said = str(error).split(" - at `")[0].split(", got")[0].replace(" | null", "")
    for name, words in _WORDS.items():
        said = said.replace(f"`{name}`", words)
    return said.replace("Expected", "expected")


def _choice(kind: Any, value: object) -> str:
    choices = _choices(kind)
    if not choices or not isinstance(value, str):
        return ""
    close = difflib.get_close_matches(value, choices, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
