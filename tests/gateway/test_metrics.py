"""`/metrics`: budgets of the configuration, and nothing that names a caller."""

import re
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from locavore.core.access import Grant, Quota
from locavore.ledger.keys import KeyStore
from locavore.testing import ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import CHAT, Client, backend

PRICE = {"input_mtok": "0", "output_mtok": "10000"}
"""One cent per output token."""
USED = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
BUDGETS = """
[[budget]]
scope = "all"
unit = "usd"
limit = "0.20"
period = "total"

[[budget]]
scope = "tenant"
name = "acme"
unit = "usd"
limit = "0.50"
period = "total"

[[budget]]
scope = "tenant"
unit = "usd"
limit = "1"

[[budget]]
scope = "user"
name = "ada@acme"
unit = "usd"
limit = "1"
"""


def remaining(text: str) -> dict[str, Decimal]:
    """Dollars by `scope:name`."""
    found = re.findall(
        r'^locavore_budget_remaining_usd\{scope="(\w+)",name="(\w*)",[^}]*\} (\S+)$', text, re.M
    )
    return {f"{scope}:{name}": Decimal(value) for scope, name, value in found}


def test_budgets_tell_what_is_left_and_no_caller_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    own = Quota(scope="key", name="search-key", unit="usd", limit=Decimal(1))
    with closing(KeyStore(home)) as store:
        secret = store.create(Grant(name="search-key", tenant="acme", quotas=(own,)))
    headers = {"x-api-key": secret}
    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat(usage=USED))
        config = backend("home/m", upstream, price=PRICE) + BUDGETS
        with RunningGateway(home, config) as gateway:
            client = Client(gateway)
            before = client.ask("GET", "/metrics", headers=headers).body.decode()
            body = CHAT | {"max_tokens": 10, "user": "ada@acme"}
            assert client.ask("POST", "/v1/chat/completions", body, headers).status == 200
            after = client.ask("GET", "/metrics", headers=headers).body.decode()
    assert remaining(before) == {"all:": Decimal("0.20"), "tenant:acme": Decimal("0.50")}
    # A call takes three cents; what a worker holds for the next calls is set aside, too.
    assert Decimal(0) <= remaining(after)["all:"] <= Decimal("0.17")
    assert Decimal(0) <= remaining(after)["tenant:acme"] <= Decimal("0.47")
    for named in ("search-key", "ada", secret[8:]):
        assert named not in after
