"""Which calls count for the savings."""

from pathlib import Path

from locavore.testing import ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import Client, backend

PRICE = {"input_mtok": "1", "output_mtok": "1"}


def test_a_fixed_choice_is_paid_and_saves_nothing(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat())
        config = 'baseline = "home/dear"\n' + "".join(
            backend(id_, upstream, price=PRICE) for id_ in ("home/m", "home/dear")
        )
        with RunningGateway(tmp_path / "home", config) as gateway:
            client = Client(gateway)
            assert client.chat(model="home/m").status == 200
            fixed = {"x-locavore-no-fallback": "true"}
            assert client.chat(model="home/m", headers=fixed).status == 200
            free, measured = gateway.records()
    assert free.baseline_cost is not None
    assert measured.baseline_cost is None
    cost = measured.attempts[0].cost
    assert cost is not None
    assert cost.usd is not None
