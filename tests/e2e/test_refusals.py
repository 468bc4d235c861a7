"""Calls that are turned away cost nothing: they are counted, and are in no book."""

import re
from pathlib import Path

from locavore.testing import ScriptedUpstream, replies
from tests.conformance.client import backend
from tests.e2e.serving import QUIET, Serving, eventually, locavore

PRICE = {"input_mtok": "0", "output_mtok": "1000"}
USED = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
BUDGET = '[[budget]]\nscope = "all"\nunit = "usd"\nlimit = "0.011"\nperiod = "total"\n'


def refusals(serving: Serving) -> dict[str, int]:
    """Code -> count."""
    text = serving.get("/metrics").body.decode()
    told = re.findall(r'^locavore_refusals_total\{code="(\w+)"\} (\d+)$', text, re.M)
    return {code: int(count) for code, count in told}


def test_refusals_are_counted_by_code_and_outlive_a_worker(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat(usage=USED))
        config = backend("home/m", upstream, price=PRICE) + BUDGET + QUIET
        with Serving(tmp_path, config, "--workers=1") as serving:
            statuses = [serving.chat(model="home/m", max_tokens=10).status for _ in range(3)]
            assert statuses == [200, 429, 429]
            assert serving.chat(model="home/m", messages="none").status == 400
            eventually(lambda: len(refusals(serving)) > 1, "both kinds are counted")
            found = refusals(serving)
            assert found.pop("insufficient_quota") == 2
            assert sum(found.values()) == 1
            (worker,) = serving.children()["workers"]
            worker.kill()
            worker.wait(20)
            eventually(lambda: serving.children()["workers"] != [worker], "another worker")
            eventually(lambda: _asked(serving), "it serves")
            kept = eventually(lambda: refusals(serving), "counts of the worker that is gone")
            assert kept["insufficient_quota"] == 2
    report = locavore("report", "--json", home=tmp_path)
    assert '"calls":1,' in report.stdout


def _asked(serving: Serving) -> bool:
    try:
        return serving.get("/health/live").status == 200
    except OSError:
        return False
