"""A gateway before scripted upstreams, and clients that see every byte."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from locavore.testing import ScriptedUpstream
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import Client

Start = Callable[..., Client]


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """The first backend's server: `home/m`, on premises."""
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def other() -> Iterator[ScriptedUpstream]:
    """A second server, for fallbacks."""
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a gateway from configuration text; ends with the test."""
    with ExitStack() as stack:

        def run(config: str, **env: str) -> Client:
            gateway = stack.enter_context(RunningGateway(tmp_path / "home", config, env=env))
            return Client(gateway)

        yield run
