"""Which variables switch telemetry on, how far the collector is, and whose calls may go there."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locavore.core.backend import Place
from locavore.core.errors import ConfigError
from locavore.core.policy import Policy, Require, Rule
from locavore.core.trace import kept, parent_of
from locavore.telemetry.boundary import farthest
from locavore.telemetry.settings import settings
from tests.ledger.records import attempt, call

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:4318", Place.EMBEDDED),
        ("http://localhost:4318", Place.EMBEDDED),
        ("http://10.0.0.5:4318", Place.ON_PREM),
        ("http://otel.monitoring.svc:4318", Place.PUBLIC_API),
        ("https://8.8.8.8", Place.PUBLIC_API),
    ],
)
def test_how_far_a_collector_is(url: str, place: Place) -> None:
    found = settings({BASE: url})
    assert found is not None
    assert (found.place, found.traces, found.metrics) == (place, True, True)
    assert found.direct == (place <= Place.ON_PREM)


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {BASE: "http://localhost", "OTEL_SDK_DISABLED": "true"},
        {BASE: "http://localhost", "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    ],
)
def test_when_it_is_off(env: dict[str, str]) -> None:
    assert settings(env) is None


def test_the_farthest_of_two_collectors_counts() -> None:
    found = settings(
        {BASE: "http://localhost", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x.y"}
    )
    assert found is not None
    assert found.place == Place.PUBLIC_API


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (BASE, "ftp://x"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("LOCAVORE_TELEMETRY_PLACE", "moon"),
    ],
)
def test_a_variable_that_cannot_be_followed_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        settings({BASE: "http://localhost", name: value})
    assert value in str(caught.value)


HOME = Rule(name="home", require=Require(farthest=Place.EMBEDDED))
EUROPE = Rule(name="europe", require=Require(jurisdictions=frozenset({"EU"})))
CHEAP = Rule(name="cheap", require=Require(known_price=True))
ONLY_HOME = Rule(name="only", require=Require(backends=frozenset({"home/small", "home/large"})))
ONLY_GONE = Rule(name="only", require=Require(backends=frozenset({"home/gone"})))
FAR = Require(farthest=Place.PUBLIC_API)


@pytest.mark.parametrize(
    ("rules", "labels", "policy", "place"),
    [
        ((), (), Policy(), Place.PUBLIC_API),
        (("cheap",), (), Policy(rules=(CHEAP,)), Place.PUBLIC_API),
        (("home", "cheap"), (), Policy(rules=(CHEAP, HOME)), Place.EMBEDDED),
        (("europe",), (), Policy(rules=(EUROPE,)), Place.ON_PREM),
        (("gone",), (), Policy(), Place.EMBEDDED),
        (("only",), (), Policy(rules=(ONLY_HOME,)), Place.ON_PREM),
        (("only",), ("x",), Policy(rules=(ONLY_HOME,), limits=FAR), Place.ON_PREM),
        (("only",), (), Policy(rules=(ONLY_GONE,)), Place.EMBEDDED),
        ((), ("x",), Policy(), Place.ON_PREM),
        ((), ("x",), Policy(limits=FAR), Place.ON_PREM),
        ((), (), Policy(limits=Require(farthest=Place.PRIVATE_CLOUD)), Place.PRIVATE_CLOUD),
        ((), (), Policy(posture="local_only"), Place.PRIVATE_CLOUD),
    ],
)
def test_c91_how_far_the_telemetry_of_a_call_may_travel(
    rules: tuple[str, ...], labels: tuple[str, ...], policy: Policy, place: Place
) -> None:
    record = call("d", attempt(0))
    facts = msgspec.structs.replace(record.decision.facts, rules=rules, labels=frozenset(labels))
    decision = msgspec.structs.replace(record.decision, facts=facts)
    assert farthest(msgspec.structs.replace(record, decision=decision), policy) == place


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_traceparent_is_read_as_the_specification_says() -> None:
    found = parent_of(f"00-{TRACE}-{SPAN}-01")
    assert found == (int(TRACE, 16), int(SPAN, 16), 1)
    assert parent_of(f"cc-{TRACE}-{SPAN}-00-what-will-be") is not None  # a later version
    for wrong in (
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
    ):
        assert parent_of(wrong) is None


@given(st.binary(max_size=200))
def test_any_bytes_in_that_header_are_harmless(header: bytes) -> None:
    text = kept(header)
    assert text is None or (text.isascii() and parent_of(text))
