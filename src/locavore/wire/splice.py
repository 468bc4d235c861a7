"""Change top-level fields of a JSON body and leave every other byte as it came.

A body that passes through is not re-encoded: number spellings, key order and unknown fields stay
as the client wrote them, and 30 KB of messages cost nothing. The fast way is taken only when each
key that matters is found exactly once at the top level; otherwise the body is decoded and encoded.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from locavore.wire.decoding import decode_object, encode
from locavore.wire.labelling import LABELS, SESSION

_NULL = msgspec.Raw(b"null")
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def rewrite(
    body: bytes,
    *,
    model: str,
    old_model: str,
    add_usage: bool = False,
    drop_marks: bool = False,
    drop: Sequence[str] = (),
    unstored: bool = False,
) -> bytes:
    """The body with its model replaced and our own marks removed.

    `add_usage` asks the upstream for usage in the stream; `drop` names further top-level fields;
    `unstored` says `store: false` where the client left that open.
    """
    if not (add_usage or drop_marks or drop or unstored):
        if model == old_model:
            return body
        quick = _replace_model(body, model, old_model)
        if quick is not None:
            return quick
    return _rebuild(body, model, add_usage, drop_marks, drop, unstored)


_MODEL_KEY = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*"')
_quoted = functools.lru_cache(1024)(encode)


def _replace_model(body: bytes, model: str, old_model: str) -> bytes | None:
    """Replace the value in place; None when the key is not certain to be the top-level one.

    `"model"` cannot stand inside a string (its quotes would be escaped), so a single occurrence
    followed by a colon, with the value that the decoder read at the top level, is a key; it is the
    top level's because the decoder found one there.
    """
    key_at = body.find(b'"model"')
    # From its end a text without the key is searched twice as fast as from its start.
    if key_at < 0 or body.rfind(b'"model"') != key_at or body.find(b"\\u", 0, key_at) >= 0:
        return None
    found = _MODEL_KEY.match(body, key_at)
    if found is None:
        return None
    at = found.end() - 1
    old = _quoted(old_model)
    if not body.startswith(old, at):
        return None
    return body[:at] + _quoted(model) + body[at + len(old) :]


def _rebuild(
    body: bytes,
    model: str,
    add_usage: bool,
    drop_marks: bool,
    drop: Sequence[str],
    unstored: bool,
) -> bytes:
    fields = _RAW_FIELDS.decode(body)  # duplicate keys: the last wins, here as upstream
    for name in drop:
        fields.pop(name, None)
    fields["model"] = msgspec.Raw(encode(model))
    if drop_marks:
        _drop_marks(fields)
    if unstored and bytes(fields.get("store", _NULL)) == b"null":
        fields["store"] = msgspec.Raw(b"false")
    if add_usage:
        options = decode_object(bytes(fields["stream_options"])) if _has_options(fields) else {}
        fields["stream_options"] = msgspec.Raw(encode({**options, "include_usage": True}))
    return encode(fields)


def _has_options(fields: dict[str, msgspec.Raw]) -> bool:
    return "stream_options" in fields and bytes(fields["stream_options"]) != b"null"


def _drop_marks(fields: dict[str, msgspec.Raw]) -> None:
    if "metadata" not in fields:
        return
    raw = bytes(fields["metadata"])
    if raw == b"null":
        return
    metadata = _OBJECT.decode(raw)
    before = len(metadata)
    metadata.pop(LABELS, None)
    metadata.pop(SESSION, None)
    if len(metadata) == before:
        return
    if metadata:
        fields["metadata"] = msgspec.Raw(encode(metadata))
    else:
        del fields["metadata"]
