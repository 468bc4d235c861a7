"""The journal's bytes on disk: a segment header, then frames.

    segment := MAGIC frame* zero*
    frame   := u32 (kind << 28 | length), u32 crc32, payload     little-endian

The checksum covers the first word and the payload. A writer stores the payload first and the
eight bytes of the head last, so a reader in another process sees a frame whole or not at all;
where memory order is weaker than that, the checksum says "not yet".
"""

import mmap
import struct
import zlib

import msgspec

MAGIC = b"LOCAVJ\x00\x01"
"""Name and version of the segment format."""
HEAD = struct.Struct("<II")
_HEAD_BYTES = HEAD.size
MAX_PAYLOAD_BYTES = (1 << 28) - 1
CALL = 0
"""Kind of a frame whose payload is a `core.outcome.CallRecord` as msgpack."""


Bytes = bytes | mmap.mmap


class Frame(msgspec.Struct, frozen=True, gc=False):
    kind: int
    payload: bytes
    start: int
    """Offset of the head in the segment."""
    end: int


def head_of(kind: int, payload: bytes) -> bytes:
    """The eight bytes that make `payload` a frame."""
    word = kind << 28 | len(payload)
    return HEAD.pack(word, zlib.crc32(payload, word))


def frames(segment: Bytes, start: int, most: int) -> list[Frame]:
    """Up to `most` whole frames from `start` on; ends before one that is absent, torn or damaged.

    One loop without calls of our own, because every call of the gateway comes by here.
    """
    unpack, crc32, size = HEAD.unpack_from, zlib.crc32, len(segment)
    found: list[Frame] = []
    while len(found) < most and (body := start + _HEAD_BYTES) <= size:
        word, checksum = unpack(segment, start)
        end = body + (word & MAX_PAYLOAD_BYTES)
        if word == 0 or end > size:
            break
        payload = segment[body:end]
        if crc32(payload, word) != checksum:
            break
        found.append(Frame(word >> 28, payload, start, end))
        start = end
    return found


def frame_at(segment: Bytes, start: int) -> Frame | None:
    """The frame whose head is at `start`; None: nothing whole is there."""
    return next(iter(frames(segment, start, 1)), None)


def after_damage(segment: Bytes, start: int) -> int | None:
    """Where reading can go on behind a damaged frame at `start`; None: it cannot.

    Only a frame's own length can say where the next one is, so this holds when a whole frame
    stands there. A torn last frame has nothing behind it and is no damage.
    """
    if start + HEAD.size > len(segment):
        return None
    word, _ = HEAD.unpack_from(segment, start)
    following = start + HEAD.size + (word & MAX_PAYLOAD_BYTES)
    return following if word and frame_at(segment, following) else None
