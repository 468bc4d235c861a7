"""Telemetry of labelled calls, with every packet that leaves the building counted by the kernel."""

from pathlib import Path

import pytest

from locavore.testing import ScriptedUpstream, replies
from tests.conformance.namespaces import INTERNET, Building, unavailable
from tests.e2e.serving import QUIET, Serving, eventually
from tests.telemetry.collector import Collector

MISSING = unavailable()
pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.xdist_group("namespaces"),
]
RULE = """
[[rule]]
name = "health stays in the building"
when = { label = "health" }
require = { farthest = "on_prem" }
"""


def test_c91_a_collector_outside_is_told_nothing_of_a_labelled_call(tmp_path: Path) -> None:
    with Building() as building:
        with building.outside.entered():
            collector = Collector(INTERNET)
        with collector, building.inside.entered(), ScriptedUpstream() as home:
            home.always(replies.chat())
            text = f'{QUIET}{RULE}[[backend]]\nid = "home/m"\nurl = "{home.url}"\n'
            env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
            with Serving(tmp_path, text, "--workers=1", env=env) as serving:
                assert serving.chat({"x-locavore-labels": "health"}).status == 200
                serving.told("theirs is withheld")
                assert building.sent_packets() == 0
                assert serving.chat().status == 200  # and what is not labelled arrives
                eventually(lambda: len(collector.spans) == 2, "spans arrive")
                assert building.sent_packets() > 0
