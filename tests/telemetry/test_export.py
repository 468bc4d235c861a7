"""A gateway with the standard variables, and a receiver that decodes what it is told."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from locavore.telemetry.meters import Meters
from locavore.testing import ScriptedUpstream, replies
from tests.docs.examples import sections
from tests.e2e.serving import QUIET, Serving, eventually, locavore
from tests.telemetry.collector import Collector, attributes

DOCS = Path(__file__).parents[2] / "docs"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CANARY = "canary-7f3a"
"""In prompt, answer, key, user and session; must be in nothing that is sent."""
RULES = """
[[rule]]
name = "patients stay"
when = { label = "health" }
require = { farthest = "on_prem" }
"""
OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "200"}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        server.always(replies.chat(f"answer {CANARY}"))
        yield server


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        yield server


def config(upstream: ScriptedUpstream, more: str = "") -> str:
    price = 'price = { input_mtok = "1", output_mtok = "2" }'
    backend = f'[[backend]]\nid = "openai/m"\nurl = "{upstream.url}"\n{price}\n'
    return f'{QUIET}{backend}{more}\n[keys]\nweb = "sk-{CANARY}-0123456789"\n'


def chat(serving: Serving, **headers: str) -> int:
    message = {"role": "user", "content": f"prompt {CANARY}"}
    sent = {"authorization": f"Bearer sk-{CANARY}-0123456789", **headers}
    return serving.chat(sent, model="openai/m", messages=[message], user=CANARY).status


def test_spans_and_metrics_of_calls_reach_a_collector(
    tmp_path: Path, upstream: ScriptedUpstream, collector: Collector
) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "gw", **OFTEN}
    env["OTEL_EXPORTER_OTLP_HEADERS"] = "x-tenant=acme"
    with Serving(tmp_path, config(upstream), "--workers=1", env=env) as serving:
        trace = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-locavore-session": CANARY}
        assert chat(serving, **trace) == 200
        spans = eventually(lambda: collector.spans, "spans arrive")
        assert protobuf_is_loaded(serving)
        metrics = eventually(lambda: told(collector), "metrics arrive")
    call, attempt = sorted(spans, key=lambda span: span.kind)
    assert [span.trace_id.hex() for span in spans] == [TRACE, TRACE]
    assert (call.parent_span_id.hex(), attempt.parent_span_id) == (PARENT, call.span_id)
    assert (call.name, attempt.name) == ("chat openai/m", "chat m")
    found = attributes(attempt)
    assert found["gen_ai.provider.name"] == "openai"
    assert found["gen_ai.usage.input_tokens"] > 0
    assert found["locavore.cost_usd"] > 0
    assert "gen_ai.usage.input_tokens" not in attributes(call)
    resource = collector.resources[0]
    assert attributes(resource.resource)["service.name"] == "gw"
    assert resource.scope_spans[0].schema_url.endswith("/1.41.0")
    points = {attributes(p)["gen_ai.token.type"]: p for p in histogram(metrics)}
    assert points["input"].sum == found["gen_ai.usage.input_tokens"]
    assert list(points["output"].explicit_bounds) == [4**n for n in range(14)]
    assert metrics["locavore.cost"].sum.data_points[0].as_double == found["locavore.cost_usd"]
    assert collector.headers[0]["x-tenant"] == "acme"
    assert CANARY.encode() not in b"".join(collector.bodies)


def protobuf_is_loaded(serving: Serving) -> bool:
    """The SDK comes with it; where telemetry is off, its memory and start-up are not paid."""
    return "google/_upb" in Path(f"/proc/{serving.process.pid}/maps").read_text()


def told(collector: Collector) -> dict[str, Any]:
    """The metrics, once they are of calls."""
    found = collector.metrics
    return found if "gen_ai.client.token.usage" in found else {}


def histogram(metrics: dict[str, Any]) -> Any:
    return metrics["gen_ai.client.token.usage"].histogram.data_points


def test_c91_telemetry_of_a_labelled_call_travels_no_farther_than_the_call(
    tmp_path: Path, upstream: ScriptedUpstream, collector: Collector
) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **OFTEN}
    env["LOCAVORE_TELEMETRY_PLACE"] = "public_api"
    with Serving(tmp_path, config(upstream, RULES), "--workers=1", env=env) as serving:
        assert chat(serving, **{"x-locavore-labels": "health"}) == 200
        serving.told("theirs is withheld")
        assert chat(serving) == 200
        spans = eventually(lambda: collector.spans, "the other call's spans arrive")
        metrics = eventually(lambda: told(collector), "metrics arrive")
        assert serving.stop() == 0
    assert len(spans) == len(collector.spans) == 2
    assert [point.count for point in histogram(metrics)] == [1, 1]


def test_a_collector_that_refuses_is_tried_again_and_loses_no_span(
    tmp_path: Path, upstream: ScriptedUpstream, collector: Collector
) -> None:
    collector.statuses = [400, 400]  # of those that the exporter itself does not repeat
    env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces"}
    with Serving(tmp_path, config(upstream), "--workers=1", env=env) as serving:
        assert chat(serving) == 200
        serving.told("telemetry: the collector does not take spans")
        assert chat(serving) == 200  # served all the same
        eventually(lambda: len(collector.spans) == 4, "all spans arrive")
        serving.told("telemetry: the collector answers again")
    assert collector.metrics == {}


def test_an_unsampled_trace_of_the_client_is_left_alone(
    tmp_path: Path, upstream: ScriptedUpstream, collector: Collector
) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with Serving(tmp_path, config(upstream), "--workers=1", env=env) as serving:
        assert chat(serving, traceparent=f"00-{TRACE}-{PARENT}-00") == 200
        assert chat(serving, traceparent="nonsense") == 200
        spans = eventually(lambda: collector.spans, "the other call's spans arrive")
        assert serving.stop() == 0
    assert len(spans) == len(collector.spans) == 2
    assert TRACE not in {span.trace_id.hex() for span in spans}


def test_the_standard_sampler_decides_where_the_client_does_not(
    tmp_path: Path, upstream: ScriptedUpstream, collector: Collector
) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    env["OTEL_TRACES_SAMPLER"] = "parentbased_always_off"
    with Serving(tmp_path, config(upstream), "--workers=1", env=env) as serving:
        assert chat(serving) == 200
        assert chat(serving, traceparent=f"00-{TRACE}-{PARENT}-01") == 200
        eventually(lambda: collector.spans, "the sampled trace arrives")
        assert serving.stop() == 0
    assert [span.trace_id.hex() for span in collector.spans] == [TRACE, TRACE]


def test_measured_energy_is_a_counter_by_its_source() -> None:
    reader = InMemoryMetricReader()
    meters = Meters(MeterProvider([reader]).get_meter("t"))
    for meter, joules in (("nvml:GPU-1", 5), ("nvml:GPU-2", 7), ("rapl:intel-rapl:0", 2)):
        meters.energy(meter, joules)
    told = reader.get_metrics_data()
    assert told is not None
    (metric,) = told.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("locavore.energy", "J")
    points = [p for p in metric.data.data_points if isinstance(p, NumberDataPoint)]
    by_source = {dict(p.attributes or {})["locavore.energy.source"]: p.value for p in points}
    assert by_source == {"nvml": 12, "rapl": 2}


def test_the_last_calls_are_told_before_the_end_and_a_second_start_goes_on(
    tmp_path: Path, upstream: ScriptedUpstream, collector: Collector
) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    for start in (1, 2):
        with Serving(tmp_path, config(upstream), "--workers=1", env=env) as serving:
            assert chat(serving) == 200
            assert serving.stop() == 0
        assert len(collector.spans) == 2 * start
    assert "gen_ai.server.request.duration" in collector.metrics


def test_a_collector_that_never_answers_does_not_hold_up_the_end(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{mute.getsockname()[1]}"}
        env["OTEL_EXPORTER_OTLP_TIMEOUT"] = "600"
        with Serving(tmp_path, config(upstream), "--workers=1", env=env) as serving:
            assert chat(serving) == 200
            assert serving.stop() == 0  # within the limit of a stop, not of the exporter


def test_the_guide_switches_it_on(
    tmp_path: Path, upstream: ScriptedUpstream, collector: Collector
) -> None:
    (code,) = [code for part in sections("howto/telemetry.md") for code in part.code("sh")]
    exported = re.findall(r"^export (\w+)=(\S+)$", code, re.MULTILINE)
    assert code.splitlines()[-1] == "locavore serve"
    env = {k: v.replace("http://127.0.0.1:4318", collector.url) for k, v in exported}
    with Serving(tmp_path, config(upstream), "--workers=1", env=env) as serving:
        assert chat(serving) == 200
        spans = eventually(lambda: collector.spans, "spans arrive")
        assert serving.stop() == 0  # the metrics of the last minute are told at the end
    resource = attributes(collector.resources[0].resource)
    assert resource["service.name"] == "locavore-berlin"
    guide = (DOCS / "howto" / "telemetry.md").read_text("utf-8")
    names = {name for span in spans for name in attributes(span)} | set(collector.metrics)
    assert [n for n in names if n not in guide and f"`.{_tail(n)}`" not in guide] == []


def _tail(name: str) -> str:
    """Tables write `gen_ai.usage.input_tokens`, then `.output_tokens`."""
    for begin in ("gen_ai.usage.", "gen_ai.client.operation.", "locavore."):
        if name.startswith(begin):
            return name.removeprefix(begin)
    return name


def test_it_is_off_without_a_collector_and_a_bad_variable_is_told(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    (tmp_path / "config.toml").write_text(config(upstream))
    grpc = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    grpc["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
    refused = locavore("serve", "--port=0", home=tmp_path, **grpc)
    assert refused.returncode != 0
    assert "only http/protobuf, got 'grpc'" in refused.stderr
    with Serving(tmp_path, config(upstream), "--workers=1") as serving:
        assert not protobuf_is_loaded(serving)
