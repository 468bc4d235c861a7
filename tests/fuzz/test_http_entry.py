"""Random and mangled bytes at the port: a clear answer or a close, never a crash, never a leak."""

import asyncio
import itertools
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.gateway.test_framing import ACCEPTED, REFUSED
from tests.gateway.wires import Port, listening

GOOD = [
    b"POST /v1/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    b"POST /v1/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 12\r\n\r\nhello, world",
    b"POST /v1/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n3;x=y\r\n abc\r\n0\r\nt: u\r\n\r\n",
    b"POST /v1/echo HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi",
    b"POST /v1/echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi",
    b"POST /v1/echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
    b"content-length: 2\r\n\r\nhi",
    b"GET /elsewhere HTTP/1.1\r\nhost: a\r\n\r\n",
]
TOKENS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"content-length: 3\r\n",
    b"transfer-encoding: chunked\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1",
    b"\xff\xfe",
    b"%2e%2e/",
    b"..//",
    b"99999999999999999999",
    b"host: b\r\n",
    b"\r\n\r\n",
]
EXPECTED = {100, 200, 400, 404, 405, 408, 411, 413, 414, 415, 417, 421, 431, 505}
SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """One loop for all examples of a test; whatever it would log as unhandled is a failure."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        unhandled: list[dict[str, Any]] = []
        runner.get_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        yield runner.run
        assert unhandled == []


@pytest.fixture(scope="module")
def port(run: Run) -> Iterator[Port]:
    stack = AsyncExitStack()
    yield run(
        stack.enter_async_context(
            listening(head_s=2.0, body_gap_s=2.0, body_bytes=100_000, linger_s=0.2, pipelined=8)
        )
    )
    run(stack.aclose())


async def answered(port: Port, data: bytes, cuts: list[int]) -> bytes:
    """Send in pieces, end our side, and read all that comes back. `Date` is left out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, stop in itertools.pairwise(edges):
            writer.write(data[start:stop])
            await turns(5)
        # A client that ends its side is taken to have left: first let the pipeline run dry.
        await turns(40)
        writer.write_eof()
        async with asyncio.timeout(10):
            answer = await reader.read()
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    await port.emptied()
    return re.sub(rb"date: [^\r]*\r\n", b"", answer)


async def turns(count: int) -> None:
    """Let the loop, which the server shares, go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def whole_answers(answer: bytes) -> list[int]:
    """Statuses of well-framed answers; AssertionError when the bytes are anything else."""
    codes = []
    while answer:
        match = re.match(
            rb"HTTP/1\.1 (\d{3}) [A-Za-z '-]*\r\n(?:[a-z-]+: [^\r\n]*\r\n)*\r\n", answer
        )
        assert match is not None, answer
        codes.append(int(match.group(1)))
        length = re.search(rb"content-length: (\d+)", match.group(0))
        size = int(length.group(1)) if length else 0
        assert len(answer) >= match.end() + size
        answer = answer[match.end() + size :]
    return codes


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A few good requests in a row, then some damage."""
    data = b"".join(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["insert", "delete", "repeat", "flip", "cut"]))
        span = draw(st.integers(1, 40))
        if kind == "insert":
            data = data[:at] + draw(st.sampled_from(TOKENS)) + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + span :]
        elif kind == "repeat":
            data = data[: at + span] + data[at:]
        elif kind == "flip":
            data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
        else:
            data = data[:at]
    return data


@SETTINGS
@given(data=mangled(), cuts=st.lists(st.integers(0, 2000), max_size=4))
def test_c105_mangled_requests_get_a_clear_answer_and_leak_nothing(
    run: Run, port: Port, data: bytes, cuts: list[int]
) -> None:
    assert set(whole_answers(run(answered(port, data, cuts)))) <= EXPECTED


@SETTINGS
@given(data=st.binary(max_size=3000))
@example(data=b"")
@example(data=b"\r\n" * 1000)
@example(data=b"A" * 3000)
def test_c105_random_bytes_get_a_clear_answer_and_leak_nothing(
    run: Run, port: Port, data: bytes
) -> None:
    assert set(whole_answers(run(answered(port, data, [])))) <= EXPECTED


@SETTINGS
@given(
    data=st.one_of(
        mangled(),
        st.sampled_from([*REFUSED.values(), *(request for request, _ in ACCEPTED.values())]),
    ),
    cuts=st.lists(st.integers(0, 2000), min_size=1, max_size=5),
)
@example(data=GOOD[5] + GOOD[0].replace(b"v1/echo HTTP", b"HTTP"), cuts=[89])
def test_where_the_bytes_are_cut_changes_nothing(
    run: Run, port: Port, data: bytes, cuts: list[int]
) -> None:
    """Also the comparison with a head seen before must not change what is read."""
    whole, cut = run(answered(port, data, [])), run(answered(port, data, cuts))
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"  # may be left out once the body is there
    assert whole.replace(interim, b"") == cut.replace(interim, b"")


@SETTINGS
@given(
    bodies=st.lists(st.binary(max_size=300), min_size=1, max_size=8),
    names=st.lists(st.sampled_from([b"x: 1\r\n", b"y: 22\r\n", b""]), min_size=8, max_size=8),
    spaces=st.lists(st.sampled_from([b"", b" ", b"  ", b"\t"]), min_size=8, max_size=8),
    zeros=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_repeated_heads_with_other_lengths_give_each_request_its_own_body(
    run: Run,
    port: Port,
    bodies: list[bytes],
    names: list[bytes],
    spaces: list[bytes],
    zeros: list[int],
) -> None:
    async def one_by_one() -> list[tuple[int, bytes]]:
        client = await port.open()
        got = []
        for body, name, space, zero in zip(bodies, names, spaces, zeros, strict=False):
            client.send(
                b"POST /v1/echo HTTP/1.1\r\nhost: a\r\n%bcontent-length:%b%b%d\r\n%b\r\n%b"
                % (name, space, b"0" * zero, len(body), name, body)
            )
            got.append(await client.answer())
        client.close()
        return got

    assert run(one_by_one()) == [(200, body) for body in bodies]
