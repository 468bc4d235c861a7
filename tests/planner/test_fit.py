"""Fit: memory against machines, for every way models differ, and bad input."""

import pytest

from locavore.catalog.load import load
from locavore.catalog.schema import Shape
from locavore.core.errors import ConfigError
from locavore.planner import memory, units
from locavore.planner.fitting import Fit, fit, suggest
from locavore.planner.machines import target

CATALOG = load()


def on(model: str, machine: str, **options: object) -> Fit:
    host = options.pop("host_memory", None)
    place = target(CATALOG, machine, host_memory=str(host) if host else None)
    return fit(CATALOG, CATALOG.model(model), place, **options)  # type: ignore[arg-type]


def test_a_70b_needs_two_24_gb_cards_and_a_32b_one() -> None:
    assert not on("llama3.3:70b", "RTX 4090", quant="Q4_K_M").fits
    assert on("llama3.3:70b", "2x RTX 4090", quant="Q4_K_M", context_tokens=8192).fits
    assert on("qwen3:32b", "RTX 4090", quant="Q4_K_M", context_tokens=8192).fits


def test_a_refusal_says_what_is_missing() -> None:
    found = on("llama3.3:70b", "RTX 4090", quant="Q4_K_M")
    assert found.binds is not None
    assert found.headroom_bytes < 0
    assert found.needed_bytes - found.available_bytes == -found.headroom_bytes


def test_the_largest_context_fits_and_the_next_does_not() -> None:
    found = on("qwen3:32b", "RTX 4090", quant="Q4_K_M")
    most = found.largest_context_tokens
    assert on("qwen3:32b", "RTX 4090", quant="Q4_K_M", context_tokens=most).fits
    assert not on("qwen3:32b", "RTX 4090", quant="Q4_K_M", context_tokens=most + 512).fits


def test_the_best_file_fits_and_the_next_heavier_does_not() -> None:
    found = on("qwen3:32b", "RTX 4090", context_tokens=8192)
    assert found.best_quantization == found.quantization
    assert found.fits
    assert not on("qwen3:32b", "RTX 4090", quant="Q8_0", context_tokens=8192).fits


def test_offload_puts_the_rest_in_system_memory() -> None:
    found = on("llama3.3:70b", "RTX 4090", quant="Q4_K_M", host_memory="128GB")
    assert found.fits
    assert found.offloaded_layers is not None
    assert 0 < found.offloaded_layers < 80


def shape(name: str) -> Shape:
    found = CATALOG.model(name).shape
    assert found is not None
    return found


def test_cache_of_grouped_latent_and_window_attention() -> None:
    tokens = 131_072
    full = memory.cache_bytes(shape("llama3.3:70b"), tokens)
    assert full == 80 * 2 * 8 * 128 * 2 * tokens
    latent = memory.cache_bytes(shape("deepseek-v3"), tokens)
    assert latent == 61 * (512 + 64) * 2 * tokens
    gemma = shape("gemma3:27b")
    all_full = gemma.layers * 2 * gemma.kv_heads * gemma.head_dim * 2 * tokens
    assert memory.cache_bytes(gemma, tokens) < 0.3 * all_full


def test_experts_count_fully_in_memory() -> None:
    found = on("qwen3:30b-a3b", "RTX 5090", quant="Q4_K_M", context_tokens=8192)
    assert found.footprint.weights_bytes > 17e9


def test_tensor_split_halves_what_a_device_holds() -> None:
    one = on("qwen3:32b", "H100 SXM 80GB", quant="FP8", engine="vllm", context_tokens=8192)
    two = on("qwen3:32b", "2x H100 SXM 80GB", quant="FP8", engine="vllm", context_tokens=8192)
    assert two.needed_bytes < 0.6 * one.needed_bytes


def test_unified_memory_leaves_a_share_to_the_system() -> None:
    place = target(CATALOG, "Strix Halo")
    assert place.usable_bytes < place.memory_bytes
    assert on("gpt-oss-120b", "Strix Halo", context_tokens=8192).fits


def test_suggestions_fit_and_rank_by_score() -> None:
    rows = suggest(CATALOG, target(CATALOG, "RTX 4090"))
    assert rows
    for task in {row.task for row in rows}:
        scores = [row.score for row in rows if row.task == task]
        assert scores == sorted(scores, reverse=True)
    assert all(row.needed_bytes <= 24 * units.GIB for row in rows)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"context_tokens": 10_000_000}, "exceeds"),
        ({"parallel": 0}, "above zero"),
        ({"parallel": -2}, "negative"),
        ({"quant": "Q4_K_X"}, "Q4_K"),
        ({"kv_type": "q3"}, "q3"),
        ({"engine": "vlm"}, "vlm"),
    ],
)
def test_bad_input_is_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        on("qwen3:8b", "RTX 4090", **options)


def test_a_model_without_a_shape_is_refused_not_guessed() -> None:
    nameless = next(model for model in CATALOG.models.values() if model.shape is None)
    with pytest.raises(ConfigError, match="catalog add"):
        fit(CATALOG, nameless, target(CATALOG, "RTX 4090"))


def test_a_machine_may_be_described() -> None:
    place = target(CATALOG, "3x new card", memory="20GB")
    assert place.devices == 3
    with pytest.raises(ConfigError, match="describe it"):
        target(CATALOG, "card nobody knows")
