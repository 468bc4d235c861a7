"""What the peer's kernel acknowledged: whether a request may be sent again (C51)."""

import asyncio
import socket
import struct

_TCP_INFO_BYTES_ACKED = struct.Struct("@120xQ")  # linux/tcp.h: tcpi_bytes_acked


def acked_bytes(transport: asyncio.Transport) -> int | None:
    """Bytes of ours that were acknowledged, ever; None: the system does not say."""
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_INFO", None)
    if sock is None or option is None or sock.family == socket.AF_UNIX:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, option, 128)
    except OSError:
        return None
    return int(_TCP_INFO_BYTES_ACKED.unpack(info)[0]) if len(info) == 128 else None
