"""Calibration: the real engine's own timings, kept and used."""

from pathlib import Path

import pytest

from locavore.catalog.load import load
from locavore.core.errors import LocavoreError, RequestError
from locavore.engines.embedded import EmbeddedEngine
from locavore.engines.gguf import read_header
from locavore.engines.weights import built_in
from locavore.planner import machines, quantization
from locavore.planner.speed_gguf import write_shape
from locavore.planner.speed_measure import (
    Measurement,
    copy_bandwidth_gbs,
    keep,
    kept,
    measurements_file,
    timed_run,
)
from locavore.planner.speed_report import Ask, report

pytestmark = pytest.mark.anyio


def measurement(**changes: object) -> Measurement:
    facts: dict[str, object] = {
        "machine": "A CPU",
        "cpu": "A CPU",
        "threads": 2,
        "bandwidth_gbs": 20.0,
        "model": "Qwen3-0.6B",
        "quant": "Q4_K_M",
        "file_bytes": 400_000_000,
        "decode_tps": 20.0,
        "prefill_tps": 100.0,
        "prompt_tokens": 256,
        "generated_tokens": 48,
        "engine_build": "test",
        "as_of": "2026-11-21",
    }
    return Measurement(**{**facts, **changes})  # type: ignore[arg-type]


async def test_the_engine_times_a_run(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path)
    try:
        running = await engine.start(built_in(tmp_path), parallel=1)
        decode, prefill = await timed_run(running)
    finally:
        await engine.close()
    assert decode > 0
    assert prefill > 0


def test_a_written_shape_has_the_predicted_size(tmp_path: Path) -> None:
    shape = load().model("Qwen3-0.6B").shape
    assert shape is not None
    path = tmp_path / "shape.gguf"
    size = write_shape(path, shape, "Q4_K_M")
    header = read_header(path)
    assert size == path.stat().st_size
    assert header.number("block_count") == shape.layers
    weights = quantization.weight_bytes(shape, "Q4_K_M")
    assert 0 <= size - weights < 8_000_000  # metadata: 150,000 token names
    assert path.stat().st_blocks * 512 < 0.1 * size  # a hole in the file, not bytes on disk


def test_only_plain_transformers_are_written(tmp_path: Path) -> None:
    shape = load().model("Qwen3-30B-A3B").shape
    assert shape is not None
    with pytest.raises(RequestError, match="not a plain transformer"):
        write_shape(tmp_path / "x.gguf", shape, "Q4_K_M")


def test_copying_has_a_bandwidth() -> None:
    assert copy_bandwidth_gbs(1) > 0


def test_measurements_are_kept_and_replaced(tmp_path: Path) -> None:
    assert kept(tmp_path) == []
    keep(tmp_path, measurement(decode_tps=20.0))
    keep(tmp_path, measurement(decode_tps=25.0))
    keep(tmp_path, measurement(machine="Another"))
    assert [(m.machine, m.decode_tps) for m in kept(tmp_path)] == [
        ("A CPU", 25.0),
        ("Another", 20.0),
    ]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = measurements_file(tmp_path)
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(LocavoreError, match="damaged"):
        kept(tmp_path)


def test_an_anchor_scales_the_prediction(tmp_path: Path) -> None:
    catalog = load()
    here = machines.target(catalog, "new", memory="16GB", bandwidth_gbs=80.0)
    here = machines.Target(
        name="new",
        kind="cpu",
        memory_bytes=here.memory_bytes,
        usable_bytes=here.usable_bytes,
        bandwidth_gbs=80.0,
        backend="cpu",
        source="described",
    )
    model, ask = catalog.model("Llama-3.2-1B"), Ask(prompt_tokens=256, context_tokens=280)
    plain = report(catalog, model, here, ask, home=tmp_path)
    slow = report(catalog, model, here, ask, home=tmp_path, anchor=measurement(decode_tps=5.0))
    fast = report(catalog, model, here, ask, home=tmp_path, anchor=measurement(decode_tps=50.0))
    assert fast.decode.mean == pytest.approx(10 * slow.decode.mean)
    assert "scaled by a run here" in fast.decode.source
    assert plain.decode.source != fast.decode.source
