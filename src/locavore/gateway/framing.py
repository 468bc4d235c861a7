"""Headers that decide where a request ends, and those a second parser could read differently."""

from locavore.gateway.refusals import Refusal

FRAMING = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"expect",
    }
)
"""They may come once."""
USUAL = frozenset({b"host", b"content-length"})
"""With no other of them there is nothing to check."""


def check_framing(framing: dict[bytes, bytes], http_version: str) -> bool:
    """Whether the client waits for `100 Continue`. Raises Refusal."""
    coding = framing.get(b"transfer-encoding")
    if coding is not None:
        if b"content-length" in framing:
            raise Refusal(400, "bad_http", "Content-Length and Transfer-Encoding exclude.")
        if coding.strip().lower() != b"chunked" or http_version != "1.1":
            raise Refusal(
                400, "bad_http", f"Transfer-Encoding {coding!r} is not `chunked` on HTTP/1.1."
            )
    packing = framing.get(b"content-encoding", b"identity").strip().lower()
    if packing != b"identity":
        raise Refusal(
            415,
            "content_encoding",
            f"Request bodies must not be compressed; Content-Encoding was {packing!r}.",
        )
    expect = framing.get(b"expect")
    if expect is None:
        return False
    if expect.strip().lower() != b"100-continue":
        raise Refusal(417, "expectation_failed", f"Expect {expect!r} is not understood.")
    return True
