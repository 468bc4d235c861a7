"""What each machine and engine multiplies a prompt with, and what devices exchange for it."""

from pathlib import Path

import pytest

from benchmarks.planner.fit_table import write_table
from locavore.planner.speed import predict_prefill
from locavore.planner.speed_features import exchanged_mb, prompt_rate
from locavore.planner.speed_point import Load, Machine, Point, Setting
from locavore.planner.speed_shape import Shape

SHAPE = Shape(
    name="x", total_b=8.0, active_b=8.0, layers=32, full_layers=32, kv_heads=8, head_dim=128
)


def point(name: str, hw_class: str, setting: Setting, *, tflops: float = 100) -> Point:
    machine = Machine(name=name, hw_class=hw_class, bandwidth_gbs=900, fp16_tflops=tflops)
    return Point(machine=machine, shape=SHAPE, setting=setting, load=Load(prompt=2048))


@pytest.mark.parametrize(
    ("name", "hw_class", "engine", "quant", "share"),
    [
        ("RTX 3090", "consumer_gpu", "llama.cpp", "Q4_K_M", 1.0),
        ("RTX 3090", "consumer_gpu", "vllm", "awq", 0.5),  # 32-bit sums
        ("RTX A6000", "workstation_gpu", "vllm", "awq", 1.0),
        ("H100 SXM", "datacentre_gpu", "vllm", "FP8", 1.0),
        ("GTX 1070", "consumer_gpu", "vllm", "awq", 1.0),  # no matrix units to slow down
        ("GTX 1070", "consumer_gpu", "llama.cpp", "Q4_K_M", 2.0),  # four 8-bit products a slot
        ("GTX 1070", "consumer_gpu", "llama.cpp", "F16", 1.0),
        ("MI100", "datacentre_gpu", "llama.cpp", "Q4_0", 0.25),
        ("MI100", "datacentre_gpu", "llama.cpp", "F16", 1.0),
        ("Arc A770", "consumer_gpu", "llama.cpp", "Q4_0", 0.25),
    ],
)
def test_prompts_run_on_the_units_an_engine_uses(
    name: str, hw_class: str, engine: str, quant: str, share: float
) -> None:
    assert prompt_rate(point(name, hw_class, Setting(engine=engine, quant=quant))) == 100 * share


def test_bf16_on_vulkan_leaves_the_matrix_units() -> None:
    def rate(backend: str) -> float:
        return prompt_rate(
            point("RX 7900 XTX", "consumer_gpu", Setting(quant="BF16", backend=backend))
        )

    assert rate("Vulkan") < rate("ROCm")


def test_tensor_parallel_prompts_wait_for_slow_links() -> None:
    four = Setting(engine="vllm", devices=4, quant="awq")
    alone = Setting(engine="vllm", quant="awq")
    consumer = exchanged_mb(point("RTX 3090", "consumer_gpu", four))
    workstation = exchanged_mb(point("RTX A6000", "workstation_gpu", four))
    assert 0 < workstation < consumer
    assert exchanged_mb(point("H100 SXM", "datacentre_gpu", four)) == 0  # NVLink
    assert exchanged_mb(point("RTX 3090", "consumer_gpu", alone)) == 0


def test_a_row_split_reads_prompts_slower_than_a_layer_split() -> None:
    def speed(parallelism: str) -> float:
        setting = Setting(quant="Q4_K_M", devices=4, parallelism=parallelism)
        return predict_prefill(point("RTX 3090", "consumer_gpu", setting)).mean

    assert speed("row") < speed("layer")


def test_ik_llama_reads_prompts_faster_on_a_cpu() -> None:
    def speed(engine: str, quant: str) -> float:
        setting = Setting(engine=engine, backend="CPU", quant=quant)
        return predict_prefill(point("EPYC 7763", "cpu", setting, tflops=3)).mean

    assert speed("ik_llama.cpp", "Q4_K_M") > 1.5 * speed("llama.cpp", "Q4_K_M")
    assert speed("llama.cpp", "IQ2_XS") < speed("llama.cpp", "Q4_K_M")


def test_the_fit_writes_its_errors_under_the_tables_head(tmp_path: Path) -> None:
    doc = tmp_path / "page.md"
    doc.write_text(
        "before\n\n| class | goal | fitted |\n| --- | --- | --- |\n| old | | 9 / 9 |\n\nafter\n"
    )
    write_table({"new": {"goal": "1 / 2", "n": 3, "fitted": [4.0, 5.5]}}, doc)
    text = doc.read_text()
    assert "| new | 1 / 2 | 4 / 5.5 |" in text
    assert "old" not in text
    assert text.startswith("before\n\n| class | goal |")
    assert text.endswith("\nafter\n")
