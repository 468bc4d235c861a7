"""JSON in and out, with errors that name the field and the value."""

import re
from typing import Any, TypeVar

import msgspec

from locavore.core.errors import RequestError

T = TypeVar("T")

_PATH = re.compile(r"`\$\.?([^`]*)`$")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
SHOWN_CHARS = 120
"""How much of an offending value an error repeats."""

encode = msgspec.json.Encoder().encode


def decode_request(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Decode a client's body; raises RequestError with `param`."""
    try:
        if not body.isascii():
            str(body, "utf-8")  # skipped fields are not validated by the decoder
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(error, body) from None


def decode_object(body: bytes) -> dict[str, Any]:
    """The whole body as a dictionary; raises RequestError."""
    return decode_request(_OBJECTS, body)


_OBJECTS = msgspec.json.Decoder(dict[str, Any])


def invalid(error: Exception, body: bytes) -> RequestError:
    if isinstance(error, RecursionError):
        return RequestError("the body nests too deeply; send flatter JSON", code="invalid_json")
    if isinstance(error, UnicodeDecodeError):
        return RequestError(f"the body is not UTF-8: {error.reason} at byte {error.start}")
    if not isinstance(error, msgspec.ValidationError):
        return RequestError(f"the body is not JSON: {error}", code="invalid_json")
    return _invalid_field(str(error), body)


def _invalid_field(text: str, body: bytes) -> RequestError:
    what, _, _ = text.partition(" - at ")
    missing = re.search(r"missing required field `(\w+)`", what)
    found = _PATH.search(text)
    path = found.group(1) if found else ""
    if missing:
        param = f"{path}.{missing.group(1)}" if path else missing.group(1)
        return RequestError(f"{param} is required", param=param, code="missing_required_parameter")
    value = _look_up(body, path)
    return RequestError(f"{path or 'body'}: {what}: {value}", param=path or None)


def _look_up(body: bytes, path: str) -> str:
    try:
        value: Any = msgspec.json.decode(body)
        for key, index in _STEP.findall(path):
            value = value[int(index)] if index else value[key]
    except (msgspec.DecodeError, RecursionError, LookupError, TypeError, UnicodeDecodeError):
        return "(value not shown)"
    return shown(value)


def shown(value: object) -> str:
    """`repr`, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


def json_text(value: object) -> str:
    return encode(value).decode()


def parse_arguments(text: str) -> dict[str, Any] | None:
    """Tool arguments as an object; None when the model wrote something else (C27)."""
    if not text.strip():
        return {}
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return value if isinstance(value, dict) else None


def untranslatable(param: str, target: str, detail: str = "") -> RequestError:
    """What a dialect cannot carry: routing excludes the pair, or the client is told."""
    tail = f": {detail}" if detail else ""
    return RequestError(
        f"{param} cannot be carried to {target}{tail}", code="untranslatable", param=param
    )
