"""What can be read off a request's text: hashed n-grams and a few dozen counts.

Everything is bounded by `READ_CHARS`, so that a 1 MB prompt costs what a long one costs; the
length itself is a feature. Tokens are bytes: any script and any garbage has features.
"""

import re
from math import log1p
from zlib import crc32

READ_CHARS = 900
"""A text is read up to here from its start, and up to a third of it from its end."""

# Upper case to lower, every digit to "0" (a number is known by its length), controls to blanks.
_FOLD = bytes(
    c + 32 if 65 <= c <= 90 else 48 if 48 <= c <= 57 else 32 if c < 33 else c for c in range(256)
)
_TOKEN = re.compile(rb"[a-z]+|0{1,8}|[\x80-\xff]{1,3}|[^ a-z0]")
_OPTION = re.compile(r"^\(?[A-J][.)] *(.*)$", re.MULTILINE)
_NUMBER = re.compile(rb"0[0,]*(?:\.0+)?")
_ONLY_LETTERS = bytes(c if 97 <= c <= 122 else 32 for c in range(256))


def _gram(*words: bytes) -> int:
    value = 0
    for word in words:
        value = crc32(word, value)
    return value


# Bigrams continue the CRC of the first word; a phrase is known by the pair that marks it.
_CUES: tuple[frozenset[int], ...] = tuple(
    frozenset(_gram(*phrase.split()) for phrase in phrases)
    for phrases in (
        (b"not", b"except"),
        (b"the following",),
        (b"if",),
        (b"how many", b"how much"),
        (b"what is", b"find", b"calculate", b"compute", b"determine"),
        (b"prove", b"explain", b"describe", b"why"),
        (b"def", b"return", b"function", b"` `", b"import"),
        (b"%", b"percent"),
        (b"each", b"every", b"all"),
    )
)
_MARKS = (b"\n", b"\\$", b"=", b"([{", b"?", b"_", b'"', b",", b".", b"+*-/^")

DENSE = 33
"""Length of `dense`."""


def read(text: str) -> str:
    """The part of a text that is looked at."""
    if len(text) <= READ_CHARS * 4 // 3:
        return text
    return text[:READ_CHARS] + "\n" + text[-READ_CHARS // 3 :]


def ngrams(text: str) -> set[int]:
    """CRC-32 of each word and each pair of neighbouring words, without counts."""
    tokens = _TOKEN.findall(text.encode("utf-8", "replace").translate(_FOLD))
    ones = list(map(crc32, tokens))
    return {*ones, *map(crc32, tokens[1:], ones)}


def dense(text: str, chars: int, grams: set[int]) -> list[float]:
    """Counts on a logarithmic scale and shares.

    `text` as `read` gives it, `chars` of the whole text, `grams` of `ngrams`.
    """
    size = len(text) or 1
    raw = text.encode("utf-8", "replace")
    folded = raw.translate(_FOLD)
    numbers, words = _NUMBER.findall(folded), folded.translate(_ONLY_LETTERS).split()
    digits = sum(map(len, numbers))
    letters = sum(map(len, words))
    options = _OPTION.findall(text)
    option_chars = sum(map(len, options))
    many = len(words) or 1
    values = [
        log1p(chars),
        log1p(max(size - option_chars, 0)),
        float(len(options)),
        log1p(option_chars / len(options)) if options else 0.0,
        1.0 if options else 0.0,
        log1p(len(numbers)),
        10.0 * digits / size,
        log1p(max(map(len, numbers), default=0)),
        log1p(digits),
        letters / many,
        (len(raw) - len(raw.translate(None, _UPPER))) / many,
        len(set(words)) / many,
        log1p(many),
        log1p(max(map(len, text.split("\n")))),
    ]
    # `translate` with a deletion set counts a whole class of bytes in one pass.
    values += [log1p(len(raw) - len(raw.translate(None, marks))) for marks in _MARKS]
    values += [float(len(cue & grams)) for cue in _CUES]
    return values


_UPPER = bytes(range(65, 91))
