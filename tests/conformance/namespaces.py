"""Network namespaces: a machine whose every packet to the outside is counted.

`Building` is a namespace with loopback and one link to a second namespace, which stands for the
internet. Code runs in it by entering it with its thread; threads and processes started there stay.
"""

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

CLONE_NEWNET = 0x40000000
INSIDE, OUTSIDE = "10.99.0.2", "10.99.0.1"
INTERNET = "203.0.113.7"
"""An address nobody has (RFC 5737)."""
HOLD = "import sys; sys.stdin.read()"
"""A process that only keeps a namespace alive."""


def unavailable() -> str | None:
    """Why there are no network namespaces here; None: there are."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not all(shutil.which(tool) for tool in ("ip", "unshare", "nsenter")):
        return "iproute2 and util-linux are not installed"
    tried = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else f"unshare -n: {tried.stderr.decode().strip()}"


class Namespace:
    """A network namespace that lives as long as this object's context."""

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(
            ["unshare", "-n", sys.executable, "-c", HOLD], stdin=subprocess.PIPE
        )
        self.pid = self._holder.pid
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self.pid}/ns/net").readlink() == own:
            os.sched_yield()  # until `unshare` has done what it is for
        self.run("ip", "link", "set", "lo", "up")
        # No neighbour discovery: every packet counted is one that somebody sent.
        for scope in ("all", "default"):
            self.run("sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=1")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(10)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", *command],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts meanwhile, is in the namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (
            Path("/proc/thread-self/ns/net").open() as before,
            Path(f"/proc/{self.pid}/ns/net").open() as here,
        ):
            _enter(libc, here.fileno())
            try:
                yield
            finally:
                _enter(libc, before.fileno())


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Building:
    """`inside` runs the gateway; `outside` is the internet; `sent_packets` is what left."""

    def __init__(self) -> None:
        self.inside, self.outside = Namespace(), Namespace()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.inside)
            stack.enter_context(self.outside)
            self._link()
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()

    def _link(self) -> None:
        ends = (self.inside, "wan", INSIDE), (self.outside, "lan", OUTSIDE)
        link = ["type", "veth", "peer", "name", "lan", "netns", str(self.outside.pid)]
        self.inside.run("ip", "link", "add", "wan", *link)
        for space, device, address in ends:
            space.run("ip", "address", "add", f"{address}/24", "dev", device)
            space.run("ip", "link", "set", device, "up")
        self.inside.run("ip", "route", "add", "default", "via", OUTSIDE)
        self.outside.run("ip", "address", "add", f"{INTERNET}/32", "dev", "lo")

    def sent_packets(self) -> int:
        """Packets that left the building so far, of any kind."""
        told = json.loads(self.inside.run("ip", "-s", "-j", "link", "show", "wan"))
        return int(told[0]["stats64"]["tx"]["packets"])
