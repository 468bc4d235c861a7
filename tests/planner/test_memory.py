"""Memory predictions against published sizes, logged buffers and the real engine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from locavore.catalog.load import load
from locavore.catalog.schema import Model, Shape
from locavore.core.errors import ConfigError
from locavore.planner import memory, quantization, tensors
from locavore.planner.speed_gguf import write_shape

MIB = memory.MIB

# llama.cpp tools/quantize/README.md, Llama-3.1-8B: bits per weight of each file type.
BITS_PER_WEIGHT = {
    "IQ1_S": 2.0042, "IQ1_M": 2.1460, "IQ2_XXS": 2.3824, "IQ2_XS": 2.5882, "IQ2_S": 2.7403,
    "IQ2_M": 2.9294, "IQ3_XXS": 3.2548, "IQ3_XS": 3.4977, "IQ3_S": 3.6606, "IQ3_M": 3.7628,
    "IQ4_XS": 4.4597, "IQ4_NL": 4.6818, "Q2_K_S": 2.9697, "Q2_K": 3.1593, "Q3_K_S": 3.6429,
    "Q3_K_L": 4.2979, "Q4_K_S": 4.6672, "Q4_K_M": 4.8944, "Q5_K_S": 5.5704, "Q5_K_M": 5.7036,
    "Q6_K": 6.5633, "Q8_0": 8.5008, "F16": 16.0005,
}  # fmt: skip


def shape(name: str) -> Shape:
    found = load().model(name).shape
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "bits"), BITS_PER_WEIGHT.items())
def test_bits_per_weight_equal_the_published_table(name: str, bits: float) -> None:
    llama = shape("Llama-3.1-8B")
    predicted = quantization.weight_bytes(llama, name) * 8 / tensors.parameters(llama)
    assert predicted == pytest.approx(bits, abs=2e-4)


@pytest.mark.parametrize(
    "model", [m for m in load().models.values() if m.shape], ids=lambda m: m.name
)
def test_parameters_follow_from_the_shape(model: Model) -> None:
    assert model.shape is not None
    published = model.shape.parameters
    if published is None:
        assert tensors.parameters(model.shape) > 1e8
        return
    # Published figures are rounded, and some count a vision tower (Gemma E models, Scout).
    assert tensors.parameters(model.shape) / 1e9 == pytest.approx(published.value, rel=0.11)


@pytest.mark.parametrize(
    ("name", "context", "mib"),
    [("Llama-3-8B", 8192, 1024), ("Qwen3-8B", 1024, 144), ("Llama-3-70B", 1024, 320)],
)
def test_cache_equals_what_llama_cpp_logs(name: str, context: int, mib: int) -> None:
    assert memory.cache_bytes(shape(name), context) == mib * MIB


def test_sliding_windows_bound_the_cache() -> None:
    gemma = shape("gemma-3-1b")
    # The engine logs 32 MiB for 4 full layers at 8,192 cells and 22 MiB for 22 layers at 1,024.
    assert memory.cache_bytes(gemma, 8192) == 54 * MIB


def test_latent_attention_caches_the_latent_only() -> None:
    deepseek = shape("DeepSeek-R1-671B")
    assert memory.cache_bytes_per_token(deepseek) == 61 * (512 + 64) * 2


def test_linear_layers_hold_a_fixed_state() -> None:
    hybrid = shape("Qwen3-Next-80B-A3B")
    assert memory.cache_bytes_per_token(hybrid) == 12 * 2 * 2 * 256 * 2
    growth = memory.cache_bytes(hybrid, 2048) - memory.cache_bytes(hybrid, 1024)
    assert growth == 1024 * memory.cache_bytes_per_token(hybrid)
    assert memory.state_bytes(hybrid) > 0


@pytest.mark.parametrize(
    ("devices", "context", "logged_mib"),
    [(1, 8192, 560.0), (2, 8192, 1280.03), (4, 8192, 2560.05), (6, 8192, 3840.07),
     (8, 8192, 5120.09), (1, 512, 258.5)],
)  # fmt: skip
def test_compute_buffers_equal_the_logs_of_may_2024(
    devices: int, context: int, logged_mib: float
) -> None:
    """Llama-3-8B without flash attention, layers split over `devices`."""
    setting = memory.Setting(
        quantization="Q4_K_M", context_tokens=context, devices=devices, flash_attention=False
    )
    how = memory.engine("llama.cpp-cuda")
    predicted = memory.compute_bytes(shape("Llama-3-8B"), setting, how) / MIB
    assert predicted == pytest.approx(logged_mib, rel=0.001)


def test_embedding_stays_on_the_host() -> None:
    """The same logs: 4,403.49 MiB on the device, 281.81 MiB in system memory."""
    setting = memory.Setting(quantization="Q4_K_M", context_tokens=8192)
    found = memory.footprint(shape("Llama-3-8B"), setting)
    assert found.weights_bytes / MIB == pytest.approx(4403.49, abs=0.01)
    assert found.host_bytes / MIB == pytest.approx(281.81, abs=0.01)


LOADS = [("Qwen3-0.6B", "Q4_K_M", 4096, "f16"), ("Llama-3.2-1B", "Q8_0", 2048, "q8_0")]


@pytest.mark.parametrize(("name", "quant", "context", "kv_type"), LOADS)
def test_prediction_equals_what_the_real_engine_allocates(
    name: str, quant: str, context: int, kv_type: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    write_shape(path, shape(name), quant)
    log = _run(path, context, kv_type, prompt=0).stderr
    setting = memory.Setting(
        quantization=quant, context_tokens=context, kv_type=kv_type, engine="embedded"
    )
    found = memory.footprint(shape(name), setting)
    assert found.weights_bytes / MIB == pytest.approx(_logged(log, "CPU_Mapped model"), abs=0.01)
    assert found.repack_bytes / MIB == pytest.approx(_logged(log, "CPU_REPACK model"), abs=0.01)
    assert found.cache_bytes / MIB == pytest.approx(_logged(log, "CPU KV"), abs=0.01)
    assert found.compute_bytes / MIB == pytest.approx(_logged(log, "CPU compute"), rel=0.01)


@pytest.mark.torture
@pytest.mark.parametrize(("name", "quant", "context", "kv_type"), LOADS)
def test_prediction_equals_resident_memory_to_one_percent(
    name: str, quant: str, context: int, kv_type: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    write_shape(path, shape(name), quant)
    resident = int(_run(path, context, kv_type, prompt=1000).stdout.split()[1])
    setting = memory.Setting(
        quantization=quant, context_tokens=context, kv_type=kv_type, engine="embedded"
    )
    assert memory.footprint(shape(name), setting).total_bytes == pytest.approx(resident, rel=0.01)


def _run(
    path: Path, context: int, kv_type: str, *, prompt: int
) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("load_model.py")
    command = [sys.executable, str(script), str(path), str(context), kv_type, str(prompt)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)


def _logged(log: str, what: str) -> float:
    found = re.search(rf"{what} buffer size = +([\d.]+) MiB", log)
    return float(found.group(1)) if found else 0.0


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(ConfigError, match="nearest: Q4_K_M"):
        quantization.canonical("q4km")
    with pytest.raises(ConfigError, match="no cache type 'q9'"):
        memory.kv_bits("q9")
    with pytest.raises(ConfigError, match="no memory model for engine"):
        memory.engine("llama.cpq")
