"""Where an upstream is and how to get a connected transport to it: TCP, TLS, Unix socket, proxy."""

import asyncio
import base64
import functools
import importlib.util
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import unquote, urlsplit

import msgspec

from locavore.engines.tls import TlsTransport

P = TypeVar("P", bound=asyncio.Protocol)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed base URL."""

    scheme: str
    """`http`, `https` or `unix`."""
    host: str
    port: int
    base_path: bytes
    """Without a trailing slash; `/v1` for a Unix socket."""
    socket_path: str | None = None
    proxy: "Proxy | None" = None

    @property
    def host_header(self) -> bytes:
        name = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}.get(self.scheme)
        return (name if self.port in (usual, 0) else f"{name}:{self.port}").encode("idna")

    @property
    def name(self) -> str:
        """For messages; holds no credentials."""
        return self.socket_path or f"{self.scheme}://{self.host}:{self.port}"


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP proxy. `authorization` is the whole header value."""

    host: str
    port: int
    authorization: bytes | None = None

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


class ProxyRefused(OSError):
    """The proxy answered CONNECT with something else than 2xx."""


def parse_origin(url: str, proxy: "Proxy | None" = None) -> Origin:
    """`http://host:port/v1`, `https://...` or `unix:/path.sock`; ValueError for anything else."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"a unix: URL needs an absolute path: {url!r}")
        return Origin(scheme="unix", host="localhost", port=0, base_path=b"/v1", socket_path=path)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"an engine URL starts with http://, https:// or unix:/ : {parts.scheme!r}"
        )
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("an engine URL holds no credentials, query or fragment; use headers")
    if any(ord(char) <= 0x20 or ord(char) > 0x7E for char in parts.path):
        raise ValueError(f"an engine URL's path must be escaped ASCII: {parts.path!r}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Origin(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        base_path=parts.path.rstrip("/").encode(),
        proxy=proxy,
    )


def parse_proxy(url: str) -> Proxy:
    """`http://[user:password@]host:port`; other kinds of proxy are a ValueError."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"only http:// proxies are supported, not {parts.scheme!r}")
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = b"Basic " + base64.b64encode(pair)
    return Proxy(host=parts.hostname, port=parts.port or 80, authorization=authorization)


def proxy_from(environment: Mapping[str, str], scheme: str, host: str, port: int) -> Proxy | None:
    """What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` (either case) say of a host."""
    if scheme == "unix" or _bypassed(environment, host, port):
        return None
    for name in (f"{scheme}_proxy", "all_proxy"):
        url = environment.get(name) or environment.get(name.upper())
        if url:
            return parse_proxy(url)
    return None


def _bypassed(environment: Mapping[str, str], host: str, port: int) -> bool:
    """Loopback never goes through a proxy: it would be the proxy's loopback."""
    if host in ("localhost", "::1") or host.startswith("127."):
        return True
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    for entry in (part.strip().lower() for part in listed.split(",")):
        name, _, entry_port = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
        if not name or (entry_port and entry_port != str(port)):
            continue
        name = name.removeprefix("*").lstrip(".")
        if name in ("", host) or host.endswith(f".{name}"):
            return True
    return False


@functools.cache
def trust(ca_file: str | None) -> ssl.SSLContext:
    """One shared context per bundle: parsing the system's certificates takes tens of ms.

    OpenSSL itself reads `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    if ca_file is None and not _has_system_roots() and importlib.util.find_spec("certifi"):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _has_system_roots() -> bool:
    paths = ssl.get_default_verify_paths()
    directory = Path(paths.capath) if paths.capath else None
    return bool(
        paths.cafile or (directory and directory.is_dir() and next(directory.iterdir(), None))
    )


async def dial(protocol: P, origin: Origin, context: ssl.SSLContext | None) -> P:
    """Connect `protocol`. Raises OSError (which TLS failures are, too)."""
    loop = asyncio.get_running_loop()
    if context is not None:
        await _dial_tls(TlsTransport(protocol, context, origin.host), origin)
    elif origin.socket_path is not None:
        await loop.create_unix_connection(lambda: protocol, origin.socket_path)
    else:
        to = origin.proxy or origin
        await loop.create_connection(lambda: protocol, to.host, to.port)
    return protocol


async def _dial_tls(tls: TlsTransport, origin: Origin) -> None:
    loop = asyncio.get_running_loop()
    try:
        if origin.proxy is None:
            await loop.create_connection(lambda: tls, origin.host, origin.port)
        else:
            await _dial_tunnel(tls, origin, origin.proxy)
        await tls.connected
    except BaseException:
        tls.abort()
        raise


async def _dial_tunnel(tls: TlsTransport, origin: Origin, proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    transport, tunnel = await loop.create_connection(
        lambda: _Tunnel(origin, proxy), proxy.host, proxy.port
    )
    try:
        await tunnel.opened
    except BaseException:
        transport.abort()
        raise
    tls.sent_bytes = tunnel.sent_bytes
    transport.set_protocol(tls)
    tls.connection_made(transport)


class _Tunnel(asyncio.Protocol):
    """Sends CONNECT and waits for the 2xx head, nothing more."""

    def __init__(self, origin: Origin, proxy: Proxy) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._origin = origin
        self._proxy = proxy
        self._head = b""
        self.sent_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        host = f"[{self._origin.host}]" if ":" in self._origin.host else self._origin.host
        target = f"{host}:{self._origin.port}".encode()
        lines = [b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n" % (target, target)]
        if self._proxy.authorization is not None:
            lines.append(b"proxy-authorization: %b\r\n" % self._proxy.authorization)
        connect = b"".join([*lines, b"\r\n"])
        self.sent_bytes = len(connect)
        cast(asyncio.Transport, transport).write(connect)

    def data_received(self, data: bytes) -> None:
        if self.opened.done():
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) < 16384:
            return
        line = self._head.partition(b"\r\n")[0]
        words = line.split(b" ", 2)
        fine = len(words) > 1 and words[1].startswith(b"2") and words[0].startswith(b"HTTP/1.")
        # Bytes behind the head would have to come from the server, which speaks after us in TLS.
        if fine and end + 4 == len(self._head):
            self.opened.set_result(None)
        else:
            self.opened.set_exception(ProxyRefused(f"the proxy answered {line[:100]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio.Protocol
        if not self.opened.done():
            self.opened.set_exception(ProxyRefused("the proxy closed the connection"))
