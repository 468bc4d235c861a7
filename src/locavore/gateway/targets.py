"""Which request targets may be looked up at all (C101).

A path is accepted in exactly one spelling. Proxies, key checks and routers decode and normalise
differently; a second spelling of a path is how a request reaches a route that the check before it
did not see. So nothing is normalised here: another spelling is refused.
"""

import re

# Unreserved and a few harmless sub-delimiters. No `;` (path parameters), no `\`, no control bytes.
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_.~!$&'()*+,=:@-]*)+")
_DOTS = re.compile(rb"/\.{1,2}(?:/|$)")
_ESCAPE = re.compile(rb"%(..?)?")
_HEX = re.compile(rb"[0-9A-Fa-f]{2}")
_NEEDS_NO_ESCAPE = re.compile(rb"[A-Za-z0-9_.~-]")
_NEVER = frozenset(b"\\;%\x7f") | frozenset(range(32))
_QUERY = re.compile(rb"[\x21\x22\x24-\x7e]*")

SLASH_MAY_BE_ESCAPED = (b"/v1/models/",)
"""Model ids hold a slash, and official clients escape it."""


def path_problem(path: bytes) -> str | None:
    """What is ambiguous about a raw path, or None."""
    if b"%" in path:
        problem = _escape_problem(path)
        if problem:
            return problem
        path = _ESCAPE.sub(b"x", path)
    if not _PLAIN.fullmatch(path):
        return "it is not an absolute path of plain characters"
    if b"//" in path:
        return "it holds an empty segment"
    if _DOTS.search(path):
        return "it holds a dot segment"
    return None


def query_problem(query: bytes) -> str | None:
    return None if _QUERY.fullmatch(query) else "its query holds bytes that must be escaped"


def _escape_problem(path: bytes) -> str | None:
    slash_allowed = path.startswith(SLASH_MAY_BE_ESCAPED)
    decoded = bytearray()
    for match in _ESCAPE.finditer(path):
        digits = match.group(1) or b""
        if not _HEX.fullmatch(digits):
            return "it holds a malformed percent escape"
        byte = int(digits, 16)
        if byte in _NEVER or (byte == 0x2F and not slash_allowed):
            return f"it escapes {bytes([byte])!r}"
        if _NEEDS_NO_ESCAPE.fullmatch(bytes([byte])):
            return f"it escapes {bytes([byte])!r}, which needs no escape"
        decoded.append(byte)
    if b"/" in decoded and _DOTS.search(re.sub(rb"%2[Ff]", b"/", path)):
        return "it holds a dot segment"
    return None
