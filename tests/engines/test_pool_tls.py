"""TLS with a private CA, and HTTP proxies, on real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from locavore.core.errors import Fault
from locavore.engines.dial import Proxy, parse_proxy, proxy_from
from tests.engines.test_pool import OK, STREAM, Script, Upstream, always, make, send

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@asynccontextmanager
async def secure(
    script: Script,
    authority: trustme.CA,
    *names: str,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> AsyncIterator[tuple[int, Upstream]]:
    """A scripted upstream behind TLS for `names`; gives its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    context.maximum_version = version
    scripted = Upstream(script)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], scripted
    finally:
        await scripted.stop(server)


async def test_a_private_ca_is_trusted_when_named(authority: trustme.CA, ca_file: str) -> None:
    async with secure(always(OK), authority, "localhost") as (port, scripted):
        engine = make(f"https://localhost:{port}/v1", ca_file=ca_file)
        for _ in range(3):
            assert (await send(engine).end()).body == b"hi"
        assert len(scripted.peers) == 1
        shown = scripted.peers[0].writer.get_extra_info("ssl_object")
        assert shown.selected_alpn_protocol() == "http/1.1"
        await engine.aclose()


async def test_an_unknown_ca_is_a_connect_failure(authority: trustme.CA) -> None:
    async with secure(always(OK), authority, "localhost") as (port, _):
        engine = make(f"https://localhost:{port}/v1")
        seen = await send(engine).end()
        assert seen.error.fault is Fault.CONNECT
        assert "certificate verify failed" in seen.error.message
        assert not seen.call.sent
        await engine.aclose()


async def test_a_certificate_for_another_name_is_refused(
    authority: trustme.CA, ca_file: str
) -> None:
    async with secure(always(OK), authority, "elsewhere.example") as (port, _):
        engine = make(f"https://localhost:{port}/v1", ca_file=ca_file)
        assert (await send(engine).end()).error.fault is Fault.CONNECT
        await engine.aclose()


async def test_a_stream_over_tls_that_is_cut_is_truncated(
    authority: trustme.CA, ca_file: str
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        peer.send(STREAM + b"2\r\nhi\r\n")
        await peer.writer.drain()
        await asyncio.sleep(0.02)
        peer.reset()

    async with secure(script, authority, "localhost") as (port, _):
        engine = make(f"https://localhost:{port}/v1", ca_file=ca_file)
        seen = await send(engine).end()
        assert seen.body == b"hi"
        assert seen.error.fault is Fault.TRUNCATED
        await engine.aclose()


async def test_c51_a_tls_connection_closed_while_idle_is_replaced(
    authority: trustme.CA, ca_file: str
) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        peer.send(OK)
        await peer.writer.drain()
        peer.close()

    async with secure(script, authority, "localhost") as (port, _):
        engine = make(f"https://localhost:{port}/v1", ca_file=ca_file)
        for _ in range(5):
            assert (await send(engine).end()).error is None
        await engine.aclose()


async def test_plain_http_on_a_tls_port_and_the_reverse_are_clear_failures(
    authority: trustme.CA, ca_file: str
) -> None:
    async with secure(always(OK), authority, "localhost") as (port, _):
        plain = make(f"http://localhost:{port}/v1")
        assert (await send(plain).end()).error.fault in (Fault.RESET, Fault.PROTOCOL)
        await plain.aclose()
    scripted = Upstream(always(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"))
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    engine = make(f"https://localhost:{port}/v1", ca_file=ca_file)
    seen = await send(engine, connect_s=0.3).end()
    assert seen.error.fault in (Fault.CONNECT, Fault.CONNECT_TIMEOUT)
    await engine.aclose()
    await scripted.stop(server)


class ProxyServer:
    """CONNECT tunnels and absolute-form requests, as proxies do them."""

    def __init__(self, verdict: bytes = b"200 Connection established") -> None:
        self.heads: list[bytes] = []
        self.verdict = verdict
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if not head.startswith(b"CONNECT"):
            writer.write(OK)
            await reader.read()
        else:
            writer.write(b"HTTP/1.1 %b\r\nx: y\r\n\r\n" % self.verdict)
            if self.verdict.startswith(b"200"):
                target = head.split()[1].decode()
                other = await asyncio.open_connection("127.0.0.1", int(target.partition(":")[2]))
                back = asyncio.create_task(copy(other[0], writer))
                await copy(reader, other[1])
                await back
        writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def proxying(verdict: bytes = b"200 OK") -> AsyncIterator[tuple[ProxyServer, str]]:
    proxy = ProxyServer(verdict)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield proxy, f"http://user:p%40ss@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def test_https_goes_through_a_tunnel_and_is_still_verified(
    authority: trustme.CA, ca_file: str
) -> None:
    async with (
        secure(always(OK), authority, "localhost") as (port, _),
        proxying() as (proxy, url),
    ):
        for trusted, fault in ((ca_file, None), (None, Fault.CONNECT)):
            engine = make(f"https://localhost:{port}/v1", ca_file=trusted, proxy_url=url)
            seen = await send(engine).end()
            assert (seen.error.fault if seen.error else None) is fault
            if fault is None:
                assert (await send(engine).end()).body == b"hi"
            await engine.aclose()
    target = b"localhost:%d" % port
    assert (
        proxy.heads
        == [
            b"CONNECT %b HTTP/1.1\r\nhost: %b\r\nproxy-authorization: Basic dXNlcjpwQHNz\r\n\r\n"
            % (target, target)
        ]
        * 2
    )


async def test_a_proxy_that_refuses_is_a_connect_failure_without_its_password(
    authority: trustme.CA, ca_file: str
) -> None:
    async with proxying(b"407 Proxy Authentication Required") as (_, url):
        engine = make("https://localhost:9/v1", ca_file=ca_file, proxy_url=url)
        seen = await send(engine).end()
        assert seen.error.fault is Fault.CONNECT
        assert "407" in seen.error.message
        assert "p%40ss" not in seen.error.message + repr(engine) + repr(engine.origin)
        await engine.aclose()


async def test_plain_http_through_a_proxy_names_the_whole_url() -> None:
    async with proxying() as (proxy, url):
        engine = make("http://models.example:8000/v1", proxy_url=url)
        assert (await send(engine).end()).body == b"hi"
        await engine.aclose()
    assert proxy.heads[0].startswith(
        b"POST http://models.example:8000/v1/chat HTTP/1.1\r\nhost: models.example:8000\r\n"
    )
    assert b"proxy-authorization: Basic dXNlcjpwQHNz\r\n" in proxy.heads[0]


@pytest.mark.parametrize(
    ("environment", "host", "proxied"),
    [
        ({"HTTPS_PROXY": "http://p:3128"}, "api.example", True),
        ({"https_proxy": "p:3128"}, "api.example", True),
        ({"ALL_PROXY": "http://p:3128"}, "api.example", True),
        ({"HTTP_PROXY": "http://p:3128"}, "api.example", False),
        ({"HTTPS_PROXY": "http://p:3128"}, "localhost", False),
        ({"HTTPS_PROXY": "http://p:3128"}, "127.0.0.1", False),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "x, .example"}, "api.example", False),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "api.example:443"}, "api.example", False),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "api.example:80"}, "api.example", True),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, "api.example", False),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "i.example"}, "api.example", True),
        ({}, "api.example", False),
    ],
)
def test_proxy_variables(environment: dict[str, str], host: str, proxied: bool) -> None:
    found = proxy_from(environment, "https", host, 443)
    assert found == (Proxy(host="p", port=3128) if proxied else None)


def test_other_kinds_of_proxy_are_refused() -> None:
    with pytest.raises(ValueError, match="only http:// proxies"):
        parse_proxy("socks5://p:1080")
