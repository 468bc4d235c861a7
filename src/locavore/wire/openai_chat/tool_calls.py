"""Which tool call a delta belongs to, when the engine's `index` cannot be trusted (C20-C22).

Engines send index 0 for every call, no index at all, an id on each delta, on the first only or
never, the whole call in one delta, and arguments as an object instead of JSON text.
"""

from typing import Any
from uuid import uuid4

import msgspec

from locavore.wire.decoding import json_text, parse_arguments


class FunctionDelta(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | list[Any] | None = None


class CallDelta(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionDelta | None = None


class Placed(msgspec.Struct, frozen=True):
    """A delta with its true place. `id` and `name` are set when it opens a call."""

    index: int
    opens: bool
    id: str
    name: str
    arguments: str
    repaired: bool
    """The delta as received would mislead a client that trusts it."""


class _Call(msgspec.Struct):
    index: int
    id: str
    given_id: str | None
    name: str
    arguments: str = ""


def new_call_id() -> str:
    return f"call_{uuid4().hex[:24]}"


class CallTracker:
    """The calls of one choice."""

    __slots__ = ("_by_id", "_by_slot", "_calls", "_last")

    def __init__(self) -> None:
        self._calls = 0
        self._by_id: dict[str, _Call] = {}
        self._by_slot: dict[int | None, _Call] = {}
        self._last: _Call | None = None

    @property
    def any(self) -> bool:
        return self._calls > 0

    def place(self, delta: CallDelta) -> Placed:
        function = delta.function or FunctionDelta()
        arguments = function.arguments
        text = arguments if isinstance(arguments, str) else _as_text(arguments)
        call = self._find(delta, function)
        opens = call is None
        if call is None:
            call = self._open(delta, function)
        call.arguments += text
        self._last = call
        self._by_slot[delta.index] = call
        repaired = (
            delta.index != call.index
            or (opens and (not delta.id or delta.type != "function"))
            or (arguments is not None and not isinstance(arguments, str))
        )
        return Placed(call.index, opens, call.id, call.name, text, repaired)

    def _find(self, delta: CallDelta, function: FunctionDelta) -> _Call | None:
        """The open call this delta continues; None: it begins one."""
        if delta.id and delta.id in self._by_id:
            return self._by_id[delta.id]
        slot = self._by_slot.get(delta.index) if delta.index is not None else self._last
        if slot is None:
            return None if function.name or delta.id else self._last
        if delta.id:
            return None
        if function.name and _begins_another(slot, function.name):
            return None
        return slot

    def _open(self, delta: CallDelta, function: FunctionDelta) -> _Call:
        call = _Call(self._calls, delta.id or new_call_id(), delta.id, function.name or "")
        self._calls += 1
        self._by_id[call.id] = call
        return call


def _begins_another(call: _Call, name: str) -> bool:
    """A named delta without an id in a used slot: a new call, or the name once more?"""
    if name != call.name:
        return True
    return bool(call.arguments) and parse_arguments(call.arguments) is not None


def _as_text(arguments: object) -> str:
    return "" if arguments is None else json_text(arguments)


def patched(delta: dict[str, Any], placed: Placed) -> dict[str, Any]:
    """A delta of a decoded chunk, made right."""
    delta = dict(delta)
    function = dict(delta.get("function") or {})
    function["arguments"] = placed.arguments
    delta["index"] = placed.index
    if placed.opens:
        delta["id"] = placed.id
        delta["type"] = "function"
        function["name"] = placed.name
    delta["function"] = function
    return delta
