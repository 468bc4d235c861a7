"""`metadata.labels` and `metadata.session_id`: what a client tells us, not its upstream."""

import msgspec

from locavore.core.errors import RequestError
from locavore.wire.decoding import shown

LABELS = "labels"
SESSION = "session_id"


class Marks(msgspec.Struct, frozen=True):
    labels: frozenset[str] = frozenset()
    session: str | None = None
    user: str | None = None


NONE = Marks()
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode


def read_marks(metadata: msgspec.Raw) -> Marks:
    """Marks of the raw `metadata` value; raises RequestError when ours are not strings."""
    raw = bytes(metadata)
    if not raw or raw == b"null":
        return NONE
    try:
        fields = _decode(raw)
    except msgspec.ValidationError:
        value = shown(_decode_any(raw))
        raise RequestError(f"metadata: expected an object, got {value}", param="metadata") from None
    labels = _text(fields, LABELS)
    return Marks(
        labels=split_labels(labels) if labels else frozenset(),
        session=_text(fields, SESSION),
        user=_text(fields, "user_id"),
    )


def split_labels(text: str) -> frozenset[str]:
    """Labels of a comma-separated list."""
    return frozenset(part for label in text.split(",") if (part := label.strip()))


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    if name not in fields:
        return None
    value = _decode_any(fields[name])
    if value is None or isinstance(value, str):
        return value
    param = f"metadata.{name}"
    raise RequestError(f"{param}: expected a string, got {shown(value)}", param=param)
