"""Volumes, fine-tuning, licenses, models added from their files, workloads from the ledger."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from locavore.catalog.load import load
from locavore.catalog.schema import Shape
from locavore.core.errors import ConfigError
from locavore.ledger.query import Line, Report
from locavore.planner import licenses
from locavore.planner.adding import add, from_config
from locavore.planner.finetune import Job, adapter_parameters, finetune, training_bytes
from locavore.planner.ledger_volume import measured
from locavore.planner.speed_gguf import write_shape
from locavore.planner.tensors import parameters
from locavore.planner.volume import USES, volume

CATALOG = load()


def shape_named(name: str) -> Shape:
    found = CATALOG.model(name).shape
    assert found is not None
    return found


def test_batch_volume_reproduces_the_documents_own_count() -> None:
    bare = {"prompt_tokens": 0, "answer_tokens": 0, "retries": 0, "item_tokens": 100}
    found = volume("batch", 100_000, bare)
    assert found.input_tokens_day + found.output_tokens_day == 10e6
    assert found.hidden_factor == 1
    assert found.high_tokens_day == 10e6 * found.underestimation_factor


def test_chat_counts_what_is_sent_along() -> None:
    found = volume("chat", 1000, {"messages": 10, "turns": 3, "system_tokens": 100,
                                  "message_tokens": 20, "answer_tokens": 80})  # fmt: skip
    assert found.input_tokens_call == 100 + 20 + (3 - 1) / 2 * 100
    assert found.first_guess_tokens_day == 10_000 * 100
    assert found.hidden_factor == pytest.approx(300 / 100)


def test_services_priced_by_the_unit() -> None:
    found = volume("speech", 100, {"minutes": 10})
    minute = CATALOG.rate("unit.audio_minute").figure.value
    assert found.service_usd_month == pytest.approx(1000 * 365 / 12 * minute)
    assert volume("search", 1000).service_usd_month
    assert volume("chat", 1000).service_usd_month is None


@pytest.mark.parametrize("use", USES)
def test_every_use_has_a_volume_and_lists_its_assumptions(use: str) -> None:
    found = volume(use, 100)
    assert found.tokens_month > 0
    assert len(found.assumed) == len(USES[use][2])
    assert found.hidden_factor >= 1


@pytest.mark.parametrize(
    ("use", "count", "parameters_", "says"),
    [
        ("chatt", 1, {}, "chat"),
        ("chat", -1, {}, "negative"),
        ("chat", 1, {"message": 1}, "messages"),
        ("chat", 1, {"turns": 0.5}, "below 1"),
        ("batch", 1, {"item_tokens": 0, "prompt_tokens": 0, "answer_tokens": 0}, "no tokens"),
    ],
)
def test_bad_volumes(use: str, count: float, parameters_: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        volume(use, count, parameters_)


def test_training_memory_by_method() -> None:
    shape, job = shape_named("llama3.1:8b"), Job()
    full, lora, qlora = (training_bytes(shape, name, job) for name in ("full", "lora", "qlora"))
    assert full > 16 * parameters(shape)
    assert lora > 2 * parameters(shape)
    assert 5e9 < qlora < lora < full
    per_layer = 16 * (4096 + 4096 + 4096 + 1024 + 4096 + 1024 + 4096 + 4096 + 3 * (4096 + 14336))
    assert adapter_parameters(shape, 16) == 32 * per_layer


def test_finetune_fits_what_the_documents_say_fits() -> None:
    small = finetune("qwen3:8b", "RTX 4060 Ti 16GB")
    assert [row.fits for row in small.methods if row.name == "qlora"] == [True]
    large = finetune("llama3.3:70b", "A100 SXM 80GB")
    assert large.best == "qlora"
    assert not any(row.fits for row in large.methods if row.name == "full")


def test_finetune_break_even_follows_from_its_parts() -> None:
    found = finetune("qwen3:8b", "RTX 4090", Job(inference_tokens_day=5e6))
    assert found.months is not None
    assert found.upfront_usd is not None
    assert found.own_usd_month is not None
    assert found.months > found.upfront_usd / found.api_usd_month
    idle = finetune("qwen3:8b", "RTX 4090")
    assert idle.months is None
    assert "API" in idle.verdict


def test_when_not_to_finetune() -> None:
    job = Job(examples=40, knowledge_changes=True, needs_reasoning=True)
    assert len(finetune("qwen3:8b", "RTX 4090", job).not_when) == 3
    with pytest.raises(ConfigError, match="examples"):
        finetune("qwen3:8b", "RTX 4090", Job(examples=0, epochs=-1))


def test_a_model_too_large_says_by_how_much() -> None:
    found = finetune("llama3.3:70b", "RTX 4090")
    assert found.best is None
    assert "more than" in found.verdict


def check(model: str, **use: object) -> licenses.Verdict:
    return licenses.check_model(CATALOG, CATALOG.model(model), licenses.Use(**use))  # type: ignore[arg-type]


def test_800_million_users_may_not_use_llama() -> None:
    found = check("llama4:scout", users=800e6, distribute_weights=True)
    assert not found.allowed
    assert [duty.code for duty in found.forbidden] == ["users"]
    assert "attribution" in {duty.code for duty in found.duties}


def test_an_unstated_number_of_users_is_an_open_question() -> None:
    found = check("llama4:scout")
    assert found.allowed
    assert [duty.code for duty in found.undecided] == ["users"]
    assert not check("llama4:scout", users=1e6).undecided


def test_research_licenses_forbid_products_and_permissive_ones_ask_little() -> None:
    research = next(m for m in CATALOG.models.values() if m.license == "qwen-research")
    assert not check(research.name).allowed
    assert check(research.name, product=False).allowed
    assert check("qwen3:8b", users=1e10).allowed
    assert not check("qwen3:8b").duties
    assert check("qwen3:8b", distribute_weights=True).duties


def test_a_gguf_file_becomes_a_catalog_model(tmp_path: Path) -> None:
    shape = shape_named("qwen3:0.6b")
    path = tmp_path / "weights.gguf"
    write_shape(path, shape, "Q4_K_M")
    folder = tmp_path / "catalog"
    _model, file = add(
        str(path), name="ours-0.6B", license="apache-2.0", catalog=CATALOG, to=folder
    )
    assert file.parent == folder
    again = load(folder).model("ours-0.6B").shape
    assert again is not None
    assert parameters(again) == parameters(shape)
    assert (again.qk_norm, again.tied_embeddings, again.kv_heads) == (True, True, shape.kv_heads)
    add(str(path), name="ours-0.6B", license="apache-2.0", catalog=CATALOG, to=folder)


DEEPSEEK = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_attention_heads": 128,
    "num_key_value_heads": 128, "num_hidden_layers": 61, "intermediate_size": 18432,
    "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "first_k_dense_replace": 3, "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
    "vocab_size": 129280, "max_position_embeddings": 163840, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_config_gives_the_catalog_shape() -> None:
    assert parameters(from_config(DEEPSEEK, "x")) == parameters(shape_named("deepseek-v3"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mamba9"}, "mamba9"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"vocab_size": None}, "vocab_size"),
        ({"use_sliding_window": True}, "sliding window"),
    ],
)
def test_a_config_that_is_not_understood_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        from_config({**DEEPSEEK, **change}, "config.json")


def test_adding_refuses_damage_and_unknown_licenses(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 40)
    with pytest.raises(ConfigError, match=r"broken\.gguf"):
        add(str(broken), license="mit", catalog=CATALOG, to=tmp_path)
    with pytest.raises(ConfigError, match="neither"):
        add("no-such-file.gguf", license="mit", catalog=CATALOG, to=tmp_path)
    good = tmp_path / "config.json"
    good.write_text('{"model_type": "llama"')
    with pytest.raises(ConfigError, match="no JSON"):
        add(str(good), license="mit", catalog=CATALOG, to=tmp_path)


def line(group: str, **values: int) -> Line:
    counts: dict[str, Any] = dict.fromkeys(
        ("calls", "served", "failed", "refused", "cancelled", "attempts", "unknown_cost",
         "missing_usage", "estimated", "input_tokens", "output_tokens", "cache_read_tokens",
         "cache_write_tokens", "reasoning_tokens", "compared"), 0,
    ) | values  # fmt: skip
    zero = Decimal(0)
    return Line(
        group=group, duration_s=0.0, cost_usd=zero, compared_cost_usd=zero, baseline_usd=zero,
        **counts,
    )  # fmt: skip


def test_the_ledger_gives_a_workload() -> None:
    total = line("total", served=100, attempts=110, missing_usage=10, input_tokens=400_000,
                 output_tokens=20_000, cache_read_tokens=100_000)  # fmt: skip
    books = Report(
        by="day", since_s=None, until_s=0, lines=(line("2026-11-01"),), total=total, rejects=0
    )
    start = 1_793_491_200.0  # 2026-11-01T00:00Z
    facts = measured(books, now=start + 10 * 86_400)
    assert facts["input_tokens_day"] == 40_000
    assert facts["output_tokens_day"] == 2_000
    assert facts["cached_share"] == 0.25
    assert facts["input_tokens_call"] == 4_000
    empty = Report(by="day", since_s=None, until_s=0, lines=(), total=line("total"), rejects=0)
    with pytest.raises(ConfigError, match="no served call"):
        measured(empty, now=start)
