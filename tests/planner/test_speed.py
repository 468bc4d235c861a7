"""The speed model: physics that must hold, names nobody has seen, and the prediction script."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from locavore.cli.speed import command
from locavore.core.errors import ConfigError, RequestError
from locavore.core.estimate import Estimate
from locavore.planner.coefficients import fitted
from locavore.planner.speed import predict_decode, predict_prefill
from locavore.planner.speed_families import code_path, generation, quant_family
from locavore.planner.speed_point import Load, Machine, Point, Setting
from locavore.planner.speed_rows import point_from_row, point_from_serving_row
from locavore.planner.speed_shape import Shape, find_shape
from locavore.planner.throughput import (
    predict_batched,
    predict_throughput,
    predict_tpot,
    predict_ttft,
)
from locavore.planner.throughput_features import capacity

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs/explain/speed-model.md"

CARD = Machine(
    name="RTX 4090",
    hw_class="consumer_gpu",
    bandwidth_gbs=1008.0,
    fp16_tflops=330.0,
    memory_gb=24.0,
)
EIGHT_B = Shape(
    name="Llama-3-8B",
    total_b=8.03,
    active_b=8.03,
    layers=32,
    full_layers=32,
    kv_heads=8,
    head_dim=128,
    vocab=128_256,
    hidden=4096,
    tied=False,
)
Q4 = Setting(quant="Q4_K_M", file_gb=4.92, engine="llama.cpp", backend="CUDA")
ROW = {
    "id": "r1",
    "metric": "decode",
    "hardware": "RTX 4090",
    "hw_class": "consumer_gpu",
    "n_devices": "1",
    "mem_bw_gbs": "1008",
    "fp16_tflops": "330",
    "vram_gb": "24",
    "model": "Llama-3-8B",
    "arch": "dense",
    "params_total_b": "8.03",
    "params_active_b": "8.03",
    "layers": "32",
    "full_attn_layers": "32",
    "swa_layers": "0",
    "kv_heads": "8",
    "head_dim": "128",
    "quant": "Q4_K_M",
    "bits_per_weight": "4.9",
    "file_gb": "4.92",
    "engine": "llama.cpp",
    "backend": "CUDA",
    "n_prompt": "512",
    "n_gen": "128",
    "ctx_avg": "576",
    "batch": "1",
    "kv_type": "f16",
    "tier": "A",
}
SERVING_ROW = {
    "id": "s1",
    "backend": "vllm",
    "backend_version": "0.19.0",
    "model_path": "nobody/Unheard-of-100B",
    "system": "h300_sxm",
    "precision": "fp8",
    "isl": "1024",
    "osl": "512",
    "conc": "32",
    "tp_size": "4",
    "attention_dp_size": "1",
    "moe_tp_size": "4",
    "moe_ep_size": "1",
    "params_total_b": "100",
    "params_active_b": "10",
    "layers": "48",
    "mem_bw_gbs": "6000",
    "fp16_tflops": "1500",
    "memory_gb": "192",
}


def point(
    *, machine: Machine = CARD, shape: Shape = EIGHT_B, setting: Setting = Q4, **load: float
) -> Point:
    return Point(machine=machine, shape=shape, setting=setting, load=msgspec.convert(load, Load))


def changed(value: msgspec.Struct, **fields: object) -> msgspec.Struct:
    return msgspec.structs.replace(value, **fields)


def test_decode_stays_under_the_bandwidth_roof() -> None:
    roof = CARD.bandwidth_gbs / Q4.file_gb * 1.08  # the input table is looked up, not read
    assert 0.3 * roof < predict_decode(point(context=512)).mean < roof


@pytest.mark.parametrize(
    ("slower", "faster"),
    [
        (point(context=32_000), point(context=500)),
        (
            point(context=500, setting=Setting(quant="Q8_0", file_gb=8.5, backend="CUDA")),
            point(context=500),
        ),
        (
            point(context=500, machine=Machine(name="X", bandwidth_gbs=500, fp16_tflops=330)),
            point(context=500, machine=Machine(name="X", bandwidth_gbs=1500, fp16_tflops=330)),
        ),
    ],
    ids=["context", "bytes", "bandwidth"],
)
def test_decode_follows_the_physics(slower: Point, faster: Point) -> None:
    assert predict_decode(slower).mean < predict_decode(faster).mean


def test_prefill_follows_compute_and_depth() -> None:
    weak = Machine(name="X", hw_class="consumer_gpu", bandwidth_gbs=1008, fp16_tflops=80)
    strong = Machine(name="X", hw_class="consumer_gpu", bandwidth_gbs=1008, fp16_tflops=300)
    fresh = predict_prefill(point(prompt=2048, machine=strong)).mean
    assert predict_prefill(point(prompt=2048, machine=weak)).mean < fresh
    assert predict_prefill(point(prompt=2048, depth=32_000, machine=strong)).mean < fresh


def test_a_sliding_window_bounds_the_cache() -> None:
    windowed = Shape(
        name="x",
        total_b=8.0,
        active_b=8.0,
        layers=32,
        full_layers=8,
        swa_layers=24,
        swa_window=1024,
        kv_heads=8,
        head_dim=128,
    )
    assert windowed.kv_values(64_000) < 0.3 * EIGHT_B.kv_values(64_000)


def test_batches_carry_more_in_total_and_less_each() -> None:
    server = Setting(quant="FP8", file_gb=8.2, engine="vllm 0.19", backend="CUDA")
    card = Machine(
        name="H100 SXM 80GB",
        hw_class="datacentre_gpu",
        bandwidth_gbs=3350,
        fp16_tflops=989,
        memory_gb=80,
    )
    small = point(machine=card, setting=server, prompt=512, generate=256, context=640, batch=4)
    large = point(machine=card, setting=server, prompt=512, generate=256, context=640, batch=64)
    full = point(machine=card, setting=server, prompt=512, generate=256, context=640, batch=0)
    assert predict_batched(large).mean > 3 * predict_batched(small).mean
    assert predict_tpot(large).mean > predict_tpot(small).mean
    assert predict_ttft(large).mean > predict_ttft(small).mean
    assert predict_throughput(full).mean > predict_batched(small).mean


def test_requests_beyond_memory_wait() -> None:
    tight = Machine(name="L4", hw_class="datacentre_gpu", bandwidth_gbs=300, memory_gb=24)
    server = Setting(quant="F16", file_gb=16.1, engine="vllm", backend="CUDA")
    fits = point(machine=tight, setting=server, prompt=4096, generate=512, context=4352, batch=2)
    room = capacity(fits)
    crowd = changed(fits, load=changed(fits.load, batch=int(room) * 8))
    assert isinstance(crowd, Point)
    assert predict_ttft(crowd).mean > 10 * predict_ttft(fits).mean


@pytest.mark.parametrize(
    "setting",
    [
        Setting(quant="Q4_K_M", file_gb=4.92, engine="some new engine", backend="WebGPU"),
        Setting(quant="ZQ9_TURBO", bits_per_weight=3.3, engine="llama.cpp (b99999)"),
        Setting(quant="", engine="", backend=""),
        Setting(quant="NVFP4", engine="tensorrt-llm 2.0", backend="cuda", devices=4),
    ],
)
@pytest.mark.parametrize("machine", ["GPU from 2031", "M9 Ultra", "Ryzen 12 9999X CPU", "Arc X9"])
def test_unknown_names_are_predicted(setting: Setting, machine: str) -> None:
    where = Machine(name=machine, bandwidth_gbs=700.0, fp16_tflops=90.0, memory_gb=48.0)
    estimate = predict_decode(point(machine=where, setting=setting, context=500))
    assert 0 < estimate.low < estimate.mean < estimate.high
    assert estimate.unit == "tok/s"
    assert "no run on this hardware" in estimate.source


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (point(machine=Machine(name="X", bandwidth_gbs=0.0)), "bandwidth (GB/s) is 0.0"),
        (point(machine=Machine(name="X", bandwidth_gbs=-5.0)), "-5.0"),
        (
            point(
                shape=Shape(total_b=8, active_b=9, layers=1, full_layers=1, kv_heads=1, head_dim=1)
            ),
            "active parameters 9",
        ),
        (point(context=-1), "context is -1"),
    ],
)
def test_impossible_input_is_refused_by_value(bad: Point, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        predict_decode(bad)


def test_prefill_needs_a_prompt() -> None:
    with pytest.raises(RequestError, match="prompt is 0"):
        predict_prefill(point())


@pytest.mark.parametrize(
    ("engine", "backend", "machine", "path"),
    [
        ("llama.cpp (2024-05)", "CUDA", "RTX 3090", "llamacpp-cuda-old"),
        ("llama.cpp (b9187)", "Vulkan", "Strix Halo 8060S", "llamacpp-vulkan"),
        ("ollama", "", "M2 Ultra", "llamacpp-metal"),
        ("ollama", "", "RX 7900 XTX", "llamacpp-rocm"),
        ("ik_llama.cpp", "CPU", "EPYC", "ik-cpu"),
        ("vLLM 0.9", "", "H100", "vllm"),
        ("sglang", "cuda", "b200", "vllm"),
        ("vllm-mlx", "Metal", "M3 Max", "mlx"),
        ("TensorRT-LLM", "", "B200", "trtllm"),
        ("unheard-of", "", "RTX 9090", "llamacpp-cuda"),
    ],
)
def test_code_paths(engine: str, backend: str, machine: str, path: str) -> None:
    hw_class = "apple" if machine.startswith("M") else "consumer_gpu"
    assert code_path(engine, backend, machine, hw_class) == path


@pytest.mark.parametrize(
    ("name", "bits", "family"),
    [
        ("UD-Q4_K_XL", 4.9, "k"),
        ("IQ2_XXS", 2.1, "iq"),
        ("IQ4_NL", 4.5, "legacy"),
        ("MXFP4", 4.6, "legacy"),
        ("awq-int4", 4.3, "wq"),
        ("NVFP4", 4.6, "fp4"),
        ("exl3-4.0bpw", 4.0, "exl"),
        ("bf16", 16, "f16"),
        ("fp8-static", 8.1, "q8"),
        ("something", 4.4, "k"),
        ("something", 16.0, "f16"),
    ],
)
def test_quantization_families(name: str, bits: float, family: str) -> None:
    assert quant_family(name, bits) == family


@pytest.mark.parametrize(
    ("name", "family"),
    [("RTX 4090", "ada"), ("M2 Ultra 76-core GPU", "apple-m2"), ("gb200", "blackwell-dc"),
     ("H200 SXM", "hopper"), ("MI300X", "cdna"), ("who knows", "other")],
)  # fmt: skip
def test_generations(name: str, family: str) -> None:
    assert generation(name, "apple" if name.startswith("M2") else "") == family


def test_known_shapes_are_found_under_other_spellings() -> None:
    assert find_shape("meta-llama/Llama-3.1-70B-Instruct", 70.55) is not None
    assert find_shape("Nobody/Unheard-of-100B", 100.0) is None


def test_rows_of_catalog_models_take_the_exact_shape() -> None:
    """gemma-4-31B caches 4 heads of 512 in full layers and 16 of 256 in windows; rows say one."""
    row = {
        **ROW,
        "model": "gemma-4-31B",
        "params_total_b": "30.7",
        "params_active_b": "30.7",
        "layers": "60",
        "full_attn_layers": "10",
        "swa_layers": "50",
        "swa_window": "1024",
        "kv_heads": "16",
        "head_dim": "256",
    }
    shape = point_from_row(row).shape
    assert shape.kv_values(10_000) == 2 * (10 * 4 * 512 * 10_000 + 50 * 16 * 256 * 1024)
    other = point_from_row({**row, "layers": "48", "full_attn_layers": "8"}).shape
    assert (other.layers, other.kv_heads) == (48, 16)  # not the catalog's: the row decides


def test_a_mixture_reads_only_the_chosen_experts() -> None:
    shape = find_shape("Qwen3-30B-A3B", 30.53)
    assert shape is not None
    assert shape.expert_share == pytest.approx(8 / 128)
    assert shape.dense_b + shape.expert_b == pytest.approx(shape.total_b)


@pytest.mark.parametrize(
    ("changes", "tensor_parallel"),
    [
        ({"parallelism": "TP4PP1", "note": "sm-layer/pp2048"}, False),
        ({"parallelism": "TP4PP1", "note": "sm-row/pp2048"}, True),
        ({"parallelism": "TP4PP1", "engine": "vllm"}, True),
    ],
)
def test_llama_cpp_splits_by_layers_unless_told(
    changes: dict[str, str], tensor_parallel: bool
) -> None:
    assert point_from_row({**ROW, "n_devices": "4", **changes}).tensor_parallel is tensor_parallel


def test_a_clients_speed_includes_its_prompt() -> None:
    """Crowd-submitted vLLM speeds count the whole request; controlled ones do not."""
    row = {**ROW, "engine": "vllm", "quant": "AWQ", "n_prompt": "40000", "ctx_avg": "40064"}
    crowd = predict_decode(point_from_row({**row, "tier": "C"})).mean
    controlled = predict_decode(point_from_row(row)).mean
    assert crowd < 0.6 * controlled


def test_ollama_runs_mlx_weights_with_mlx() -> None:
    row = {**ROW, "hardware": "M5 Max", "hw_class": "apple", "engine": "ollama", "backend": "Metal"}
    assert point_from_row({**row, "quant": "4bit"}).path == "mlx"
    assert point_from_row(row).path == "llamacpp-metal"


def test_drafts_of_several_tokens_shorten_a_step() -> None:
    deepseek = {
        **SERVING_ROW,
        "backend": "trtllm",
        "model_path": "deepseek-ai/DeepSeek-R1",
        "params_total_b": "671",
        "params_active_b": "37.5",
        "layers": "61",
    }
    plain = predict_tpot(point_from_serving_row({**deepseek, "mtp": "0"})).mean
    drafted = predict_tpot(point_from_serving_row({**deepseek, "mtp": "1"})).mean
    assert drafted < 0.8 * plain


def test_attention_slows_a_cpu_with_the_context() -> None:
    cpu = Machine(name="Ryzen 7950X", hw_class="cpu", bandwidth_gbs=83.2, fp16_tflops=1.8)
    setting = Setting(quant="Q4_K_M", file_gb=4.92, engine="llama.cpp", backend="CPU", threads=16)
    short, long = (
        1 / predict_decode(point(machine=cpu, setting=setting, context=n)).mean
        for n in (100, 16_000)
    )
    cache_s = EIGHT_B.kv_values(15_900) * 2 / 83.2e9
    assert long - short > cache_s


def test_small_heads_cost_a_cpu_more() -> None:
    """Each head and position has a cost of its own: 64 heads of 64 take longer than 32 of 128."""
    cpu = Machine(name="Ryzen 7950X", hw_class="cpu", bandwidth_gbs=83.2, fp16_tflops=1.8)
    setting = Setting(quant="Q4_K_M", file_gb=4.92, engine="llama.cpp", backend="CPU", threads=16)
    small = msgspec.structs.replace(EIGHT_B, head_dim=64, kv_heads=16)
    speeds = [
        predict_decode(point(machine=cpu, shape=shape, setting=setting, context=8000)).mean
        for shape in (small, EIGHT_B)
    ]
    assert speeds[0] < 0.95 * speeds[1]


def test_coefficients_are_dated_sourced_and_positive() -> None:
    data = fitted()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", data.as_of)
    assert len(data.sources) > 10
    values = [c.value for formula in data.formulas.values() for c in formula.values()]
    assert all(value > 0 for value in values)
    assert all(band.low < 1 < band.high for band in data.bands.values())


# --- rows and the prediction script ---------------------------------------------------------


def test_rows_become_points() -> None:
    made = point_from_row(ROW)
    assert made.machine == CARD
    assert made.path == "llamacpp-cuda"
    assert made.load.context == 576


@pytest.mark.parametrize(
    ("columns", "devices", "attention_dp"),
    [
        ((4, 1, 4, 1), 4, 1),
        ((16, 1, 4, 4), 4, 1),  # the same four devices, multiplied into two columns
        ((1, 16, 4, 4), 4, 4),
        ((2, 2, 1, 4), 2, 2),
        ((1, 8, 1, 8), 8, 8),
    ],
)
def test_serving_layouts_count_devices_once(
    columns: tuple[int, int, int, int], devices: int, attention_dp: int
) -> None:
    names = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    row = {**SERVING_ROW, **{n: str(v) for n, v in zip(names, columns, strict=True)}}
    setting = point_from_serving_row(row).setting
    assert (setting.devices, setting.attention_dp) == (devices, attention_dp)


def predicted(rows: list[dict[str, str]], tmp_path: Path) -> list[dict[str, str]]:
    """What `benchmarks/planner/predict.py` writes for these rows."""
    source, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    with source.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    script = [sys.executable, "benchmarks/planner/predict.py"]
    subprocess.run([*script, "--rows", str(source), "--out", str(out)], cwd=ROOT, check=True)
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predict_writes_speeds_and_leaves_the_impossible_empty(tmp_path: Path) -> None:
    rows = [
        ROW,
        {**ROW, "id": "r2", "metric": "prefill"},
        {**ROW, "id": "r3", "metric": "decode_batched", "batch": "8", "engine": "vllm"},
        {**ROW, "id": "r4", "metric": "throughput_out", "batch": "0", "engine": "vllm"},
        {**ROW, "id": "r5", "hardware": "Unheard-of card", "model": "Unheard-of-8B"},
        {
            **ROW,
            "id": "r9",
            "engine": "Unheard-of",
            "backend": "???",
            "quant": "Z7_X",
            "kv_type": "?",
        },
        {**ROW, "id": "r6", "mem_bw_gbs": ""},
        {**ROW, "id": "r10", "mem_bw_gbs": "nan"},
        {**ROW, "id": "r11", "fp16_tflops": "inf"},
        {**ROW, "id": "r7", "metric": "elegance"},
        {**ROW, "id": "r8", "params_total_b": "many"},
    ]
    made = predicted(rows, tmp_path)
    assert [row["id"] for row in made] == [row["id"] for row in rows]
    for row in made[:6]:
        assert float(row["low80"]) < float(row["predicted"]) < float(row["high80"])
    for row in made[6:]:
        assert row["predicted"] == row["low80"] == row["high80"] == ""


def test_decode_never_exceeds_the_bandwidth(tmp_path: Path) -> None:
    rows = [{**ROW, "id": str(bw), "mem_bw_gbs": str(bw)} for bw in (1, 20, 400, 8000)]
    for row, made in zip(rows, predicted(rows, tmp_path), strict=True):
        assert float(made["predicted"]) * float(row["file_gb"]) <= 1.2 * float(row["mem_bw_gbs"])


def test_intervals_hold_four_fifths_of_held_out_measurements() -> None:
    for shares in fitted().coverage.values():
        assert 75 <= shares["all"] <= 85


DEV_HEADER = (
    "id,source,path,hardware,hw_class,n_devices,parallelism,mem_bw_gbs,mem_bw_cite,fp16_tflops,"
    "vram_gb,model,model_as_published,arch,params_total_b,params_active_b,layers,"
    "full_attn_layers,swa_layers,swa_window,kv_heads,head_dim,quant,bits_per_weight,file_gb,"
    "file_size_estimated,engine,backend,metric,n_prompt,n_gen,depth,ctx_avg,batch,kv_type,"
    "value_tps,mem_used_gb,spec_decode,tier,note"
)
SERVING_HEADER = (
    "id,silicon_data_source,backend,backend_version,model_path,system,precision,isl,osl,"
    "global_batch,conc,tp_size,attention_dp_size,moe_tp_size,moe_ep_size,params_total_b,"
    "params_active_b,layers,mem_bw_gbs,fp16_tflops,memory_gb,mtp,measured_ttft_ms,"
    "measured_tpot_ms"
)
DEV_MEASURED = ("value_tps", "mem_used_gb")
SERVING_MEASURED = ("measured_ttft_ms", "measured_tpot_ms")


def shaped(row: dict[str, str], header: str, leave_out: Sequence[str]) -> dict[str, str]:
    """The row with exactly these columns, empty where it says nothing."""
    return {c: row.get(c, "") for c in header.split(",") if c not in leave_out}


@pytest.mark.parametrize(
    ("row", "header", "measured", "written"),
    [
        (ROW, DEV_HEADER, DEV_MEASURED, "id predicted low80 high80"),
        (
            SERVING_ROW,
            SERVING_HEADER,
            SERVING_MEASURED,
            "id predicted_ttft_ms ttft_low80 ttft_high80 predicted_tpot_ms tpot_low80 tpot_high80",
        ),
    ],
    ids=["dev", "serving_dev"],
)
def test_predict_needs_no_measured_column(
    row: dict[str, str],
    header: str,
    measured: Sequence[str],
    written: str,
    tmp_path: Path,
) -> None:
    """Files of both published forms: measured columns gone, empty or filled give the same."""
    unknown = {**row, "id": "unknown"} | dict.fromkeys(
        ("hardware", "model", "model_path"), "Nobody"
    )
    broken = {**row, "id": "broken", "mem_bw_gbs": "fast"}
    rows = [row, unknown, broken]
    gone = predicted([shaped(r, header, measured) for r in rows], tmp_path)
    empty = predicted([shaped(r, header, ()) for r in rows], tmp_path)
    filled = predicted(
        [{**shaped(r, header, ()), **dict.fromkeys(measured, "7.5")} for r in rows], tmp_path
    )
    assert gone == empty == filled
    assert list(gone[0]) == written.split()
    assert all(
        float(value) > 0 for made in gone[:2] for name, value in made.items() if name != "id"
    )
    assert list(gone[2].values()) == ["broken", *[""] * (len(gone[2]) - 1)]


def test_predict_writes_serving_times(tmp_path: Path) -> None:
    (made,) = predicted([SERVING_ROW], tmp_path)
    assert set(made) == {
        "id", "predicted_ttft_ms", "ttft_low80", "ttft_high80",
        "predicted_tpot_ms", "tpot_low80", "tpot_high80",
    }  # fmt: skip
    assert float(made["ttft_low80"]) < float(made["predicted_ttft_ms"]) < float(made["ttft_high80"])
    assert float(made["tpot_low80"]) < float(made["predicted_tpot_ms"]) < float(made["tpot_high80"])


# --- the command ----------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCAVORE_HOME", str(tmp_path))
    return tmp_path


def documented() -> list[str]:
    return re.findall(r"^\$ locavore speed (.*)$", DOC.read_text(), re.M)


@pytest.mark.parametrize("line", documented())
def test_documented_commands_run(line: str, home: Path) -> None:
    import shlex

    result = CliRunner().invoke(command, shlex.split(line), catch_exceptions=False)
    assert result.exit_code == 0
    assert "decode, one stream" in result.output
    assert "80 %" in result.output


def test_json_carries_intervals_and_basis(home: Path) -> None:
    arguments = ["llama3.1:8b", "--on", "2x H100", "--engine", "vllm", "--batch", "16", "--json"]
    made = json.loads(CliRunner().invoke(command, arguments, catch_exceptions=False).output)
    for key in ("decode", "prefill", "batched", "tpot_ms", "ttft_ms", "full_load"):
        estimate = msgspec.convert(made[key], Estimate)
        assert estimate.low < estimate.mean < estimate.high
        assert "coefficients" in estimate.source


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["nosuch-model", "--on", "RTX 4090"], ConfigError, "nearest"),
        (["qwen3:8b", "--on", "RTX 4711"], ConfigError, "nearest"),
        (["qwen3:8b", "--on", "RTX 4090", "--batch", "0"], RequestError, "batch is 0"),
        (["qwen3:8b", "--on", "RTX 4090", "--measure"], RequestError, "'RTX 4090'"),
        (["qwen3:8b", "--keep"], RequestError, "--measure"),
        (["qwen3:8b", "--on", "new", "--memory", "20GB"], RequestError, "--bandwidth"),
        (["qwen3:8b", "--on", "RTX 4090", "--context", "-5"], Exception, "-5"),
    ],
)
def test_bad_requests_say_what_to_do(
    arguments: list[str], kind: type[Exception], message: str, home: Path
) -> None:
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)


def test_documented_errors_are_the_stored_ones() -> None:
    text = DOC.read_text()
    for label, errors in fitted().errors.items():
        (line,) = [row for row in text.splitlines() if row.startswith(f"| {label} |")]
        for view in ("fitted", "hardware", "model"):
            median, p90 = errors[view]
            assert f" {median:g} / {p90:g} " in line
