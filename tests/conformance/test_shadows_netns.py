"""C91 for shadows: every call under a promise is explored, and a labelled one sends nothing out."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from locavore.routing.estimators.promised import FOLDER, save
from locavore.testing import ScriptedUpstream, replies
from tests.conformance.namespaces import INTERNET, Building, unavailable
from tests.conformance.test_labels_netns import CONFIG, LABELLED, Scene
from tests.e2e.serving import Serving
from tests.promises import entry

MISSING = unavailable()
pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.xdist_group("namespaces"),
]
EXPLORED = CONFIG + "\n[explore]\nshare = 1.0\nkeep_answers_s = 600\n"


@pytest.fixture
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        building = stack.enter_context(Building())
        with building.outside.entered():
            cloud = stack.enter_context(ScriptedUpstream(host=INTERNET))
            cloud.always(replies.chat("Cloud."))
        with building.inside.entered():
            home = stack.enter_context(ScriptedUpstream())
            home.always(replies.chat("Local."))
            folder = tmp_path_factory.mktemp("explored")
            save(folder / FOLDER, entry("home/m", "cloud/big"))
            config = EXPLORED.format(cloud=cloud.url, home=home.url)
            serving = stack.enter_context(Serving(folder, config, "--workers=1"))
        yield Scene(building, serving, home, cloud)


def test_c91_a_labelled_call_has_no_shadow_outside(scene: Scene) -> None:
    for _ in range(5):
        labelled = scene.chat(LABELLED, model="auto")
        assert (labelled.text, "x-locavore-explored" in labelled.headers) == ("Local.", False)
    assert scene.building.sent_packets() == 0
    session = {"x-locavore-session": "case-17"}
    assert scene.chat(LABELLED | session, model="auto").text == "Local."
    assert scene.chat(session, model="auto").text == "Local.", "its session carries the label"
    with scene.building.inside.entered():
        ask = [{"role": "user", "content": "nothing secret"}]
        free = scene.serving.chat(model="auto", messages=ask)
    assert (free.text, free.headers["x-locavore-explored"]) == ("Local.", "true")
    (shadow,) = scene.cloud.wait_for_requests(1)  # in order: an earlier one would be there
    assert json.loads(shadow.body)["messages"] == ask
    kept = list((scene.serving.home / "shadows").glob("*"))
    assert len(kept) <= 1, "of the free call at most"
