"""Raw bytes in, status and close out: what the port does with HTTP as nobody should write it."""

import pytest

from tests.gateway.wires import Port, listening, statuses

pytestmark = pytest.mark.anyio

START = b"POST /v1/echo HTTP/1.1\r\nhost: a\r\n"
CHUNKED = START + b"transfer-encoding: chunked\r\n\r\n"
SECOND = b"GET /second HTTP/1.1\r\nhost: a\r\n\r\n"


def lines(*header_lines: bytes) -> bytes:
    """A POST with these header lines and the body `ab`."""
    return START + b"".join(line + b"\r\n" for line in header_lines) + b"\r\nab"


def first_line(line: bytes) -> bytes:
    return line + b"\r\nhost: a\r\ncontent-length: 2\r\n\r\nab"


LENGTHS = {
    "length and chunked": START
    + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": START
    + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    "length twice, same": lines(b"content-length: 2", b"content-length: 2"),
    "length twice, other": lines(b"content-length: 2", b"content-length: 9"),
    "length list": lines(b"content-length: 2, 2"),
    "length plus": lines(b"content-length: +2"),
    "length minus": lines(b"content-length: -2"),
    "length hex": lines(b"content-length: 0x2"),
    "length inner space": lines(b"content-length: 2 2"),
    "length empty": lines(b"content-length:"),
    "length blank": lines(b"content-length: "),
    "length overflow": lines(b"content-length: 99999999999999999999999"),
    "space before colon": lines(b"content-length : 2"),
    "space before name": lines(b" content-length: 2"),
}
CODINGS = {
    "gzip then chunked": START + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked then gzip": START + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "identity": START + b"transfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "not quite chunked": START + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "quoted": START + b'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "vertical tab": START + b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": START
    + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, then identity": START
    + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked on 1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"2\r\nab\r\n0\r\n\r\n",
}
CHUNKS = {
    "bare LF": CHUNKED + b"2\nab\n0\n\n",
    "space after size": CHUNKED + b"2 \r\nab\r\n0\r\n\r\n",
    "0x size": CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n",
    "negative size": CHUNKED + b"-2\r\nab\r\n0\r\n\r\n",
    "size overflow": CHUNKED + b"ffffffffffffffffff\r\nab\r\n0\r\n\r\n",
    "LF in extension": CHUNKED + b"2;\n\r\nab\r\n0\r\n\r\n",
    "no CRLF after data": CHUNKED + b"2\r\nabX0\r\n\r\n",
    "data longer than size": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "length in the trailer": CHUNKED + b"2\r\nab\r\n0\r\ncontent-length: 5\r\n\r\n",
}
HEADERS = {
    "folded by space": lines(b"x: a\r\n b", b"content-length: 2"),
    "folded by tab": lines(b"x: a\r\n\tb", b"content-length: 2"),
    "bare CR": lines(b"x: a\rb", b"content-length: 2"),
    "bare LF": lines(b"x: a\nb: c", b"content-length: 2"),
    "NUL": lines(b"x: a\0b", b"content-length: 2"),
    "control byte": lines(b"x: a\x01b", b"content-length: 2"),
    "name not ASCII": lines(b"x\xff: a", b"content-length: 2"),
    "no name": lines(b": a", b"content-length: 2"),
    "no colon": lines(b"novalue", b"content-length: 2"),
    "LF line ends": b"POST /v1/echo HTTP/1.1\nhost: a\ncontent-length: 2\n\nab",
    "head ends in LF": START + b"content-length: 2\r\n\nab",
    "two hosts": lines(b"host: b", b"content-length: 2"),
    "no host": b"POST /v1/echo HTTP/1.1\r\ncontent-length: 2\r\n\r\nab",
}
FIRST_LINES = {
    "absolute form": first_line(b"POST http://a/v1/echo HTTP/1.1"),
    "other authority": first_line(b"POST http://b/v1/echo HTTP/1.1"),
    "authority form": first_line(b"POST a:80 HTTP/1.1"),
    "no slash": first_line(b"POST v1/echo HTTP/1.1"),
    "fragment": first_line(b"POST /v1/echo#x HTTP/1.1"),
    "space in path": first_line(b"POST /v1/ec ho HTTP/1.1"),
    "tab": first_line(b"POST\t/v1/echo HTTP/1.1"),
    "control byte": first_line(b"POST /v1/echo?a\x01b HTTP/1.1"),
    "raw UTF-8": first_line(b"POST /v1/ech\xc3\xb6 HTTP/1.1"),
    "HTTP/1.2": first_line(b"POST /v1/echo HTTP/1.2"),
    "HTTP/1.1.1": first_line(b"POST /v1/echo HTTP/1.1.1"),
    "lower-case version": first_line(b"POST /v1/echo http/1.1"),
    "lower-case method": first_line(b"post /v1/echo HTTP/1.1"),
    "unknown method": first_line(b"FROB /v1/echo HTTP/1.1"),
    "asterisk": b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    "NUL first": b"\0" + first_line(b"POST /v1/echo HTTP/1.1"),
    "HTTP/0.9": b"GET /v1/echo\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
}
REFUSED = {
    f"{kind}: {name}": request
    for kind, table in {
        "length": LENGTHS,
        "coding": CODINGS,
        "chunk": CHUNKS,
        "header": HEADERS,
        "first line": FIRST_LINES,
    }.items()
    for name, request in table.items()
}
ACCEPTED = {
    "plain": (lines(b"content-length: 2"), b"ab"),
    "upper-case coding": (
        START + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"ab",
    ),
    "chunk extension": (CHUNKED + b"2;a=b\r\nab\r\n0\r\n\r\n", b"ab"),
    "trailer": (CHUNKED + b"2\r\nab\r\n0\r\nx: y\r\n\r\n", b"ab"),
    "latin-1 value": (lines(b"x: \xff\xfe", b"content-length: 2"), b"ab"),
    "empty line first": (b"\r\n\r\n" + lines(b"content-length: 2"), b"ab"),
    "identity coding": (lines(b"content-encoding: identity", b"content-length: 2"), b"ab"),
    "no body": (START + b"\r\n", b""),
    "HTTP/1.0 without host": (
        b"POST /v1/echo HTTP/1.0\r\ncontent-length: 2\r\n\r\nab",
        b"ab",
    ),
}


async def refused(port: Port, request: bytes, status: int) -> bytes:
    """One error answer in OpenAI's shape, then the end; what follows is never a request."""
    answer = await port.talk(request + SECOND)
    assert statuses(answer) == [status]
    body = answer.partition(b"\r\n\r\n")[2]
    assert body.startswith(b'{"error":{"message":"')
    assert body.endswith(b'"}}')
    await port.emptied()
    return body


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
async def test_c105_ambiguous_or_malformed_framing_is_a_400_and_the_end(
    request_bytes: bytes,
) -> None:
    async with listening() as port:
        await refused(port, request_bytes, 400)


@pytest.mark.parametrize(("request_bytes", "body"), ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_unusual_but_unambiguous_framing_is_served(request_bytes: bytes, body: bytes) -> None:
    async with listening() as port:
        client = await port.open()
        client.send(request_bytes)
        assert await client.answer() == (200, body)
        client.close()


@pytest.mark.parametrize("cut", range(1, 70))
async def test_any_cut_of_the_bytes_is_the_same_request(cut: int) -> None:
    request = CHUNKED + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
    async with listening() as port:
        client = await port.open()
        client.send(request[:cut])
        await client.writer.drain()
        client.send(request[cut:])
        assert await client.answer() == (200, b"abcde")
        client.close()
