"""A supervisor withdraws a broken promise from all its workers, and takes up a new one."""

import json
from pathlib import Path

from locavore.core.decision import Explored
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.verdicts import Verdict, VerdictStore
from locavore.routing.estimators.promised import FOLDER, read, save
from locavore.testing.replies import chat
from locavore.testing.upstream import Received, Reply, ScriptedUpstream
from tests.e2e.serving import QUIET, Serving, eventually, locavore
from tests.ledger.records import attempt, call, decision
from tests.promises import entry

LOCAL, CLOUD = "home/small", "cloud/big"
CONFIG = """
stage = "route"
baseline = "cloud/big"
[routing]
cascade = false
[server]
workers = 2
[[backend]]
id = "cloud/big"
url = "{url}"
place = "public_api"
context_tokens = 100000
price = {{ input_mtok = 2, output_mtok = 8 }}
[[backend]]
id = "home/small"
url = "{url}"
context_tokens = 100000
price = {{ input_mtok = 0, output_mtok = 0 }}
"""


def answer(received: Received) -> Reply:
    return chat("yes", model=json.loads(received.body)["model"])


def judged_badly(home: Path, promise: str, calls: int) -> None:
    """Explored calls, as a worker's journal has them, that the local model got wrong."""
    journal = SegmentJournal(home)
    pair = Explored(local=LOCAL, cloud=CLOUD, promise=promise)
    for k in range(calls):
        made = decision(f"bad-{k}", explored=pair, propensity=0.02)
        journal.append(call(f"bad-{k}", attempt(backend=LOCAL), decision=made))
    journal.close()
    store = VerdictStore(home)
    for k in range(calls):
        store.give(Verdict(id=f"bad-{k}", served=0.0, shadow=1.0), any_key=True)
    store.close()


def places(gateway: Serving) -> set[str]:
    """Who serves `auto`, over enough connections to meet both workers."""
    return {gateway.chat().headers["x-locavore-model"] for _ in range(24)}


def test_a_broken_promise_is_withdrawn_from_all_workers_and_a_new_one_taken_up(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    first = entry(LOCAL, CLOUD, made_s=1.0)
    save(home / FOLDER, first)
    with ScriptedUpstream() as upstream:
        upstream.always(answer)
        with Serving(home, CONFIG.format(url=upstream.url) + QUIET) as gateway:
            assert places(gateway) == {LOCAL}
            judged_badly(home, first.id, 40)
            gateway.told(f"the promise for {LOCAL} is withdrawn: quality 0.000")
            (broken,) = read(home / FOLDER)
            assert broken.id == first.id
            assert broken.withdrawn is not None
            eventually(lambda: places(gateway) == {CLOUD}, "calls go to the cloud")
            assert gateway.stop() == 0
        with Serving(home, CONFIG.format(url=upstream.url) + QUIET) as gateway:
            assert places(gateway) == {CLOUD}, "withdrawn over a restart, too"
            assert "WITHDRAWN" in locavore("report", home=home).stdout
            save(home / FOLDER, entry(LOCAL, CLOUD, made_s=2.0))  # as `locavore calibrate` does
            eventually(lambda: places(gateway) == {LOCAL}, "the new promise is taken up")
            assert gateway.stop() == 0
