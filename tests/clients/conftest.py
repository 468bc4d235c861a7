"""Real SDKs before a gateway before a scripted upstream."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from locavore.testing import ScriptedUpstream
from locavore.testing.gateway import RunningGateway
from tests.clients.sides import CAPABILITIES, CONFIG, Sides


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    with ScriptedUpstream() as upstream:
        config = CONFIG.format(
            url=upstream.url, origin=upstream.origin, capabilities=json.dumps(CAPABILITIES)
        )
        with RunningGateway(tmp_path / "home", config) as gateway:
            yield Sides(upstream, gateway)
