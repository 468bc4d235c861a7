"""The shipped catalog and what an operator adds: strict, sourced, overridable."""

import datetime
from pathlib import Path

import pytest

from locavore.catalog import match
from locavore.catalog.check import check
from locavore.catalog.load import load, quality_for, quality_scores
from locavore.core.errors import ConfigError
from locavore.planner.tensors import parameters

SOURCE = """
[sources.mine]
title = "a page"
url = "https://example.org"
read = 2026-11-20
"""
RATE = """
[[rates]]
key = "pue"
text = "ours"
figure = { value = 1.05, unit = "ratio", source = "%s", as_of = 2026-11-20 }
"""


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return folder


def test_every_figure_of_the_shipped_catalog_names_a_known_source() -> None:
    catalog = load()
    assert len(catalog.models) > 70
    assert len(catalog.hardware) > 90
    for model in catalog.models.values():
        catalog.license(model.license)
        if model.shape is not None:
            assert model.shape.source in catalog.sources


def test_published_parameter_counts_follow_from_the_shapes() -> None:
    for model in load().models.values():
        if model.shape is None or model.shape.parameters is None:
            continue
        if model.shape.per_layer_embedding:
            continue  # the cards count the audio and vision encoders of these
        published = model.shape.parameters.value
        assert parameters(model.shape) / 1e9 == pytest.approx(published, rel=0.03), (
            model.name
        )  # 1T is rounded


def test_an_operator_overrides_and_the_origin_is_kept(tmp_path: Path) -> None:
    catalog = load(write(tmp_path / "catalog", SOURCE + RATE % "mine"))
    assert catalog.rate("pue").figure.value == 1.05
    assert catalog.origins["rates", "pue"].endswith("mine.toml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SOURCE + (RATE % "mine").replace("text", "txt"), "txt"),
        (SOURCE + RATE % "elsewhere", "elsewhere"),
        (SOURCE + (RATE % "mine").replace("1.05", '"1.05"'), "value"),
        (SOURCE + (RATE % "mine").replace(", as_of = 2026-11-20", ""), "as_of"),
        ("rates = 3", "mine.toml"),
        ("[[[", "mine.toml"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(write(tmp_path / "catalog", text))


def test_spellings_find_their_model() -> None:
    catalog = load()
    for spelling in (
        "qwen3:8b", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B-GGUF", "qwen3-8b-q4_K_M", "QWEN3-8B",
    ):  # fmt: skip
        assert catalog.model(spelling).name == "Qwen3-8B"
    assert catalog.device("4090").name == "RTX 4090"


def test_unknown_names_come_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Llama-3\.3-70B"):
        load().model("lama3.3-70b-instruckt")
    with pytest.raises(ConfigError, match="RTX 4090"):
        load().device("RTX 4099")
    assert any(name.startswith("H100") for name in match.nearest("H 100 SXN", load().hardware))


def test_quality_scores_cover_open_and_cloud_models_and_carry_an_interval() -> None:
    scores = quality_scores()
    local = quality_for("ollama/qwen3:8b", scores)
    cloud = quality_for("openai/gpt-4.1", scores)
    assert local is not None
    assert cloud is not None
    for task in set(local) & set(cloud):
        for found in (local[task], cloud[task]):
            assert 0 <= found.low <= found.mean <= found.high <= 1
            assert found.source
    assert set(local) & set(cloud)
    assert not quality_for("nobody/has-scored-this", scores)


def test_a_task_is_compared_on_a_benchmark_that_the_baseline_has() -> None:
    plain, against = quality_scores(), quality_scores(baseline="openai/gpt-4.1")
    assert "chat" not in quality_for("gpt-4.1", plain)
    cloud, local = (quality_for(name, against)["chat"] for name in ("gpt-4.1", "qwen3-8b"))
    assert cloud.source.split(",")[0] == local.source.split(",")[0] == "MMLU-Redux"


_BASELINES = (
    "openai/gpt-4o",
    "openai/gpt-4.1",
    "openai/gpt-4.1-mini",
    "openai/gpt-5",
    "openai/gpt-5-mini",
    "anthropic/claude-sonnet-4-20250514",
    "anthropic/claude-sonnet-4-5-20250929",
    "anthropic/claude-haiku-4-5",
    "google/gemini-2.5-flash",
    "google/gemini-2.5-pro",
)


@pytest.mark.parametrize("baseline", _BASELINES)
def test_common_baselines_have_a_score_for_code_on_a_benchmark_of_local_models(
    baseline: str,
) -> None:
    local = ["gpt-oss-20b", "openai/gpt-oss-120b"]
    scores = quality_scores(baseline=baseline, candidates=local)
    cloud = quality_for(baseline, scores)["code"]
    found = [quality_for(name, scores).get("code") for name in local]
    assert any(
        other is not None and other.source.split(",")[0] == cloud.source.split(",")[0]
        for other in found
    )


@pytest.mark.parametrize(
    "baseline",
    [
        "openai/gpt-4o",
        "openai/gpt-4.1",
        "openai/gpt-4.1-mini",
        "openai/gpt-5-mini",
        "anthropic/claude-sonnet-4-5-20250929",
        "anthropic/claude-haiku-4-5",
        "google/gemini-2.5-flash",
        "google/gemini-2.5-pro",
    ],
)
def test_common_baselines_and_local_models_have_scores_for_agents_on_one_benchmark(
    baseline: str,
) -> None:
    local = ["qwen3:8b", "Qwen/Qwen3-4B-Instruct-2507"]
    scores = quality_scores(baseline=baseline, candidates=local)
    benchmarks = {
        quality_for(name, scores)["agent"].source.split(",")[0] for name in (baseline, *local)
    }
    assert len(benchmarks) == 1


def test_of_two_benchmarks_the_one_that_the_local_models_have_is_taken() -> None:
    def code(*local: str) -> str:
        scores = quality_scores(baseline="openai/gpt-4.1", candidates=local)
        return quality_for("gpt-4.1", scores)["code"].source.split(",")[0]

    assert code() == code("gpt-oss-20b") == "LiveCodeBench (AA)"
    assert code("gemma-3-12b", "gemma-3-4b") == "LiveBench coding (Aug 2025)"
    assert code("Llama-3.1-8B") == "HumanEval"


def test_a_reseller_spells_the_version_of_a_claude_with_a_dot() -> None:
    scores = quality_scores(baseline="openrouter/anthropic/claude-sonnet-4.5")
    assert quality_for("anthropic/claude-sonnet-4.5", scores)["code"].mean == pytest.approx(0.59)


def test_versions_with_one_shape_but_tables_of_their_own_keep_them_apart() -> None:
    scores = quality_scores(baseline="openai/gpt-4o")
    instruct = quality_for("Qwen/Qwen3-30B-A3B-Instruct-2507", scores)["agent"]
    thinking = quality_for("Qwen/Qwen3-30B-A3B-Thinking-2507", scores)["agent"]
    assert instruct.mean == pytest.approx(0.651)
    assert thinking.mean == pytest.approx(0.724)


def test_a_later_version_keeps_scores_of_its_own() -> None:
    catalog = load()
    assert catalog.model("Kimi-K2.5").shape == catalog.model("Kimi-K2").shape
    assert set(catalog.scores("Kimi-K2.5")) < {"Arena Elo (April 2026)"} | set(
        catalog.scores("Kimi-K2")
    )
    assert "MMLU-Redux" not in catalog.scores("Kimi-K2.5")
    assert catalog.scores("Qwen/Qwen3-8B-GGUF") == catalog.scores("Qwen3-8B")


def test_check_lists_what_is_stale_and_what_is_assumed() -> None:
    catalog = load()
    soon = check(catalog, today=datetime.date(2026, 11, 21))
    assert "assumed" in {row.kind for row in soon}
    late = check(catalog, today=datetime.date(2036, 1, 1))
    stale = [row for row in late if row.kind == "stale"]
    assert len(stale) > len([row for row in soon if row.kind == "stale"])
    assert any(row.record.startswith("rates/") for row in stale)
