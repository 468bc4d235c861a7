"""`/metrics`: budgets of the configuration, and nothing that names a caller."""

import re
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from locavore.core.access import Grant, Quota
from locavore.ledger.keys import KeyStore
from locavore.testing import Hold, ScriptedUpstream, replies
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


SAMPLE = re.compile(r'^(\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)$')


def parsed(text: str) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Name -> labels -> value. Fails for a line that is no Prometheus text, or told twice."""
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for line in text.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            continue
        match = SAMPLE.match(line)
        assert match, line
        labels = frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
        series = found.setdefault(match[1], {})
        assert labels not in series, line
        series[labels] = float(match[3])
    return found


def scrape(gateway: RunningGateway) -> str:
    gateway.records()  # what the journal has is in the ledger now
    return Client(gateway).ask("GET", "/metrics").body.decode()


def test_calls_are_in_histograms_with_the_standard_names_and_buckets(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat(usage=USED))
        with RunningGateway(
            tmp_path / "home", backend("mistral/m", upstream, price=PRICE)
        ) as gateway:
            client = Client(gateway)
            for _ in range(3):
                assert client.chat(model="mistral/m").status == 200
            # The books hold whole milliseconds.
            upstream.always(replies.chat_stream(between=(Hold(seconds=0.005),)))
            assert client.chat(model="mistral/m", stream=True).status == 200
            found = parsed(scrape(gateway))
    who = {
        ("gen_ai_operation_name", "chat"),
        ("gen_ai_provider_name", "mistral_ai"),  # as the conventions name it
        ("gen_ai_request_model", "m"),
    }
    name = "gen_ai_server_request_duration_seconds"
    assert found[f"{name}_count"] == {frozenset(who): 4.0}
    steps = found[f"{name}_bucket"]
    edges = sorted(float(dict(labels)["le"]) for labels in steps)
    assert edges == [*(0.01 * 2**n for n in range(14)), float("inf")]
    counts = [steps[frozenset(who | {("le", f"{edge:.10g}")})] for edge in edges[:-1]]
    assert counts == sorted(counts)
    assert steps[frozenset(who | {("le", "+Inf")})] == 4.0
    assert found[f"{name}_sum"][frozenset(who)] > 0
    assert found["gen_ai_server_time_to_first_token_seconds_count"] == {frozenset(who): 1.0}
    assert found["gen_ai_client_operation_duration_seconds_count"] == {frozenset(who): 4.0}
    sent = found["gen_ai_client_token_usage_sum"][frozenset(who | {("gen_ai_token_type", "input")})]
    assert sent >= 3 * 12
    decided = {frozenset({("target", "on_prem"), ("reason", "named")}): 4.0}
    assert found["locavore_route_decisions_total"] == decided


def test_hops_are_counted_and_a_model_that_is_not_configured_any_more_is_no_label(
    tmp_path: Path,
) -> None:
    with ScriptedUpstream() as upstream, ScriptedUpstream() as second:
        upstream.always(replies.openai_error(503, "overloaded"))
        second.always(replies.chat(usage=USED))
        fallback = '[fallback]\n"home/m" = ["near/n"]\n[retry]\nattempts = 2\n'
        config = backend("home/m", upstream) + backend("near/n", second)
        with RunningGateway(tmp_path / "home", config + fallback) as gateway:
            assert Client(gateway).chat().status == 200
            found = parsed(scrape(gateway))
        with RunningGateway(tmp_path / "home", backend("home/m", upstream)) as gateway:
            later = parsed(scrape(gateway))
    hop = {frozenset({("provider", "near"), ("reason", "overloaded")}): 1.0}
    assert found["locavore_fallbacks_total"] == hop
    retries = found["locavore_retries_total"]
    assert retries == {frozenset({("provider", "home"), ("reason", "overloaded")}): 1.0}
    name = "gen_ai_server_request_duration_seconds_count"
    models = [
        {dict(labels)["gen_ai_request_model"] for labels in told[name]} for told in (found, later)
    ]
    assert models == [{"n"}, {"other"}]
