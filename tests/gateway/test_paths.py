"""C101: a path has one spelling; another one reaches neither a hot route nor the ASGI app."""

from typing import Any

import pytest

from locavore.gateway.exchange import Exchange
from locavore.gateway.targets import path_problem
from tests.gateway.wires import echo, listening, statuses

pytestmark = pytest.mark.anyio

OTHER_SPELLINGS = [
    b"//admin",
    b"/admin//keys",
    b"/v1/../admin",
    b"/v1/./echo",
    b"/v1/..",
    b"/.",
    b"/v1/%2e%2e/admin",
    b"/v1/%2E%2E%2Fadmin",
    b"/v1/.%2e/admin",
    b"/%61dmin",
    b"/admin%2Fkeys",
    b"/admin%2fkeys",
    b"/v1%2Fecho",
    b"/admin%5Ckeys",
    b"/admin\\keys",
    b"/admin;x=1",
    b"/admin%3Bx",
    b"/admin%00",
    b"/admin%0d%0ax:y",
    b"/admin%252e",
    b"/admin%",
    b"/admin%2",
    b"/admin%zz",
    b"/admin%7F",
    b"/v1/models/%2e%2e%2Fadmin",
    b"/v1/models/x%2F..%2F..%2Fadmin",
    b"/v1/models/x%2F..",
]


@pytest.mark.parametrize("path", OTHER_SPELLINGS)
async def test_c101_other_spellings_of_a_path_are_refused(path: bytes) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    async with listening(fallback=app) as port:
        answer = await port.talk(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path)
    assert statuses(answer) == [400]
    assert seen == []


@pytest.mark.parametrize(
    "path",
    [b"/", b"/v1/models", b"/v1/models/home%2Fqwen3-8b", b"/v1/decisions/d_1.2~x", b"/a%20b"],
)
def test_usual_paths_have_no_problem(path: bytes) -> None:
    assert path_problem(path) is None


async def test_c101_forwarding_headers_change_no_route() -> None:
    reached: list[bytes] = []
    tricks = (
        b"x-forwarded-host: admin\r\nx-forwarded-prefix: /admin\r\nx-original-url: /admin\r\n"
        b"x-rewrite-url: /admin\r\nx-http-method-override: DELETE\r\nforwarded: host=admin\r\n"
    )

    def reach(exchange: Exchange) -> None:
        reached.append(exchange.path)
        echo(exchange)

    async with listening({b"/v1/echo": {b"POST": reach}, b"/admin": {b"DELETE": reach}}) as port:
        client = await port.open()
        client.send(b"POST /v1/echo HTTP/1.1\r\nhost: admin\r\n" + tricks + b"\r\n")
        assert (await client.answer())[0] == 200
        client.close()
    assert reached == [b"/v1/echo"]


async def test_c100_only_configured_hosts_are_answered() -> None:
    async with listening(hosts=frozenset({b"127.0.0.1:4000", b"localhost:4000"})) as port:
        for host, status in (
            (b"LOCALHOST:4000", 200),
            (b"127.0.0.1:4000", 200),
            (b"evil.example:4000", 421),
            (b"localhost", 421),
            (b"", 421),
        ):
            answer = await port.talk(
                b"POST /v1/echo HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % host
            )
            assert statuses(answer) == [status]


async def test_a_query_does_not_hide_a_route_and_methods_are_named() -> None:
    async with listening() as port:
        client = await port.open()
        client.send(b"POST /v1/echo?beta=true HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx")
        assert await client.answer() == (200, b"x")
        client.send(b"PUT /v1/echo HTTP/1.1\r\nhost: a\r\n\r\n")
        status, body = await client.answer()
        assert status == 405
        assert b"takes POST, not PUT" in body
        client.send(b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.answer())[0] == 404
        client.close()
