"""Fields of a decoded JSON object, with the type they must have or a RequestError."""

from typing import Any

from locavore.core.errors import RequestError
from locavore.wire.decoding import shown


def _wrong(name: str, where: str, expected: str, value: object) -> RequestError:
    param = f"{where}.{name}" if where else name
    return RequestError(f"{param}: expected {expected}, got {shown(value)}", param=param)


def text(fields: dict[str, Any], name: str, where: str = "") -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise _wrong(name, where, "a string", value)
    return value


def boolean(fields: dict[str, Any], name: str, where: str = "") -> bool | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, where, "true or false", value)
    return value


def whole(fields: dict[str, Any], name: str, where: str = "") -> int | None:
    value = fields.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _wrong(name, where, "a whole number", value)


def number(fields: dict[str, Any], name: str, where: str = "") -> float | None:
    value = fields.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise _wrong(name, where, "a number", value)


def mapping(fields: dict[str, Any], name: str, where: str) -> dict[str, Any] | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, dict):
        raise _wrong(name, where, "an object", value)
    return value


def items(fields: dict[str, Any], name: str, where: str) -> list[Any]:
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(name, where, "a list", value)
    return value
