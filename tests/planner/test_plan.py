"""Plans: the documents' own questions, limits that bind, break-even against hand arithmetic."""

import functools
import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from locavore.catalog.load import load
from locavore.core.errors import ConfigError
from locavore.core.money import Price, Rate
from locavore.planner import breakeven, report
from locavore.planner.offline import html, short
from locavore.planner.planning import Plan, impossible, plan
from locavore.planner.search import pareto
from locavore.planner.workload import Slice, Workload

CATALOG = load()


@functools.cache
def at(tokens_day: float, **options: object) -> Plan:
    facts: dict[str, Any] = {"models": ("llama3.3:70b",), **options}
    work = Workload(
        input_tokens_day=tokens_day * 0.75, output_tokens_day=tokens_day * 0.25, **facts
    )
    return plan(work)


def test_a_70b_at_ten_users_names_machines_and_says_the_api_is_cheaper() -> None:
    found = at(1.3e6, peak_concurrency=10.0)
    machines = {option.machine for option in report.machines(found)}
    assert len(machines) >= 4
    best = report.planned(found)
    assert best is not None
    assert best.capacity is not None
    assert best.capacity.stream_tokens_s.mean >= 10
    assert not found.recommendation.self_host
    assert any("utilization" in line for line in found.recommendation.reasons_against)


@pytest.mark.parametrize("tokens_day", [10e6, 100e6, 500e6, 5e9 * 12 / 365])
def test_api_or_self_host_at_the_documents_volumes(tokens_day: float) -> None:
    found = at(tokens_day)
    assert found.price_list.startswith("genai-prices ")
    assert {row.kind for row in found.break_evens} >= {"closed_api", "open_api"}
    for row in found.break_evens:
        assert 0 <= row.probability_now <= 1
        assert (row.volume_tokens_month is None) == (row.utilization is None)
        if row.volume_tokens_month is None and row.kind != "rent":
            assert row.reason
    dear = next(row for row in found.break_evens if "sonnet" in row.against)
    cheap = min(found.break_evens, key=lambda row: row.usd_month_against)
    assert dear.probability_now >= cheap.probability_now


def test_more_volume_makes_self_hosting_likelier() -> None:
    chances = []
    for tokens_day in (1e6, 100e6, 2e9):
        rows = {row.against: row for row in at(tokens_day).break_evens}
        chances.append(rows["openai/gpt-4.1"].probability_now)
    assert chances == sorted(chances)
    assert chances[0] < 0.1 < 0.9 < chances[-1]


def test_classification_on_a_laptop_or_an_api() -> None:
    found = at(
        1e6, task="classify", models=("qwen3:8b",), owned=("M4 Max",), hours_day=8.0,
        input_tokens_call=500.0, output_tokens_call=10.0,
    )  # fmt: skip
    assert {option.kind for option in found.options if option.local} == {"own"}
    best = report.planned(found)
    assert best is not None
    assert best.bill is not None
    assert best.bill.upfront_usd == 0
    assert found.task_models[0].name.startswith("deberta")


def test_break_even_volume_is_where_the_lines_cross() -> None:
    found = at(100e6, models=("qwen3:32b",))
    best = report.planned(found)
    assert best is not None
    for row in found.break_evens:
        if row.volume_tokens_month is None:
            continue
        api = next(option for option in found.options if option.name == row.against)
        bill, _ = best.installation
        fixed, variable = breakeven.fixed_and_variable(bill, found.workload)
        own = fixed + variable * row.volume_tokens_month / 1e6
        assert own == pytest.approx(api.usd_mtok * row.volume_tokens_month / 1e6)


def test_the_bill_is_the_sum_of_its_parts_and_lies_in_its_range() -> None:
    for option in at(100e6).options:
        if option.bill is not None:
            assert option.usd_month == pytest.approx(sum(p.mean for p in option.bill.components))
            assert option.usd_month_low <= option.usd_month <= option.usd_month_high
            assert all(part.source and part.formula for part in option.bill.components)


def test_nothing_on_the_pareto_front_is_beaten() -> None:
    found = at(100e6, task="qa", models=())
    front = pareto(found.options)
    assert {o.name for o in front} == {o.name for o in found.pareto}
    cheapest = min(found.options, key=lambda option: option.usd_month)
    assert cheapest.name in {option.name for option in front}


def test_the_median_draw_is_the_central_figure() -> None:
    rng = random.Random(1)
    drawn = sorted(breakeven.median_draw(rng, 1, 2, 10) for _ in range(4001))
    assert drawn[2000] == pytest.approx(2, rel=0.05)
    assert drawn[0] >= 1
    assert drawn[-1] <= 10


def test_horizon_sums_growth_and_falling_prices() -> None:
    work = Workload(input_tokens_day=1, output_tokens_day=1, growth_year=1.0, horizon_months=24)
    assert breakeven.api_horizon(work, 0.5) == pytest.approx(1.0)
    by_hand = sum(2 ** (month / 12) for month in range(24)) / 24
    assert breakeven.api_horizon(work, 0.0) == pytest.approx(by_hand)
    assert sum(share for share, _ in breakeven.growth_steps(work)) == pytest.approx(1)


def test_privacy_leaves_only_own_machines() -> None:
    found = at(10e6, privacy="on_prem")
    assert {option.kind for option in found.options} == {"buy"}
    assert found.recommendation.self_host
    assert any("privacy" in line for line in found.recommendation.reasons_for)
    rented = at(10e6, privacy="private_cloud")
    assert {option.kind for option in rented.options} == {"buy", "rent"}


def test_a_license_excludes_a_model_and_says_why() -> None:
    found = at(10e6, users=800e6, models=("llama3.3:70b", "qwen3:32b"))
    assert {option.model for option in found.options if option.local} == {"Qwen3-32B"}
    refused = next(row for row in found.refused if row.name == "Llama-3.3-70B")
    assert "700 million" in refused.reason


def test_a_prototype_is_sent_to_the_api() -> None:
    found = at(5e9, stage="prototype")
    assert not found.recommendation.self_host
    assert any("prototype" in line for line in found.recommendation.reasons_against)


def test_missing_engineers_count_against_servers() -> None:
    found = at(100e6, engineers=False)
    assert any("engineering" in line for line in found.recommendation.reasons_against)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"machines": ("RTX 4090",), "models": ("deepseek-v3",)}, "memory"),
        ({"machines": ("Strix Halo",), "min_tokens_s_user": 500.0}, "speed"),
        ({"machines": ("Strix Halo",), "max_ttft_s": 0.001}, "speed|first token"),
        ({"context_tokens": 1_000_000}, "context"),
        ({"task": "qa", "min_quality": 0.999, "models": ("qwen3:8b",)}, "quality"),
        ({"min_elo": 3000.0}, "Elo"),
    ],
)
def test_the_impossible_says_which_limit_binds(options: dict[str, object], limit: str) -> None:
    found = at(10e6, privacy="on_prem", **options)
    assert not found.options
    assert found.recommendation.choice == "none"
    error = impossible(found)
    assert error is not None
    assert any(part in str(error.problems) for part in limit.split("|"))


def test_missing_prices_stay_missing_and_an_overlay_fills_them() -> None:
    apis = ("acme/new-model",)
    assert at(10e6, apis=apis).missing == apis
    price = Price(
        rate=Rate(input_mtok=Decimal(1), output_mtok=Decimal(2)), source="config", as_of=None
    )
    work = Workload(input_tokens_day=5e6, output_tokens_day=5e6, models=("qwen3:8b",), apis=apis)
    found = plan(work, overlay={"acme/new-model": price})
    option = next(o for o in found.options if o.name == "acme/new-model")
    assert option.usd_mtok == 1.5
    assert not found.missing


def test_assumptions_list_what_nobody_gave() -> None:
    work = Workload(input_tokens_day=1e6, output_tokens_day=1e6, models=("qwen3:8b",))
    lines = plan(work, given={"input_tokens_day", "output_tokens_day"}).assumptions
    assert "horizon_months = 36" in lines
    lines = plan(work, given={"horizon_months"}).assumptions
    assert "horizon_months = 36" not in lines


def test_rates_can_be_overridden_and_unknown_ones_are_refused() -> None:
    work = Workload(input_tokens_day=1e6, output_tokens_day=1e6, models=("qwen3:8b",))
    dear = plan(work, rates={"engineering_usd_hour": 500.0})
    usual = plan(work)
    assert report.planned(dear) is not None
    assert min(o.usd_month for o in dear.options if o.local) > min(
        o.usd_month for o in usual.options if o.local
    )
    with pytest.raises(ConfigError, match="engineering_usd_hour"):
        plan(work, rates={"enginering_usd_hour": 1.0})


def test_hybrid_pays_the_api_for_the_cloud_share_only() -> None:
    slices = (Slice(task="qa", share=0.6), Slice(task="reasoning", share=0.4, min_quality=1.5))
    split = at(50e6, task="qa", models=("qwen3:32b",), slices=slices).hybrid
    assert split is not None
    assert split.usd_month is not None
    assert split.usd_month_cloud_only is not None
    where = {part.task: part.where for part in split.slices}
    assert where["reasoning"] in ("cloud", "unknown")
    assert split.local_share == pytest.approx(0.6 if where["qa"] == "local" else 0.0)


def test_sensitivity_moves_the_right_way() -> None:
    rows = {row.factor: row for row in at(100e6).sensitivity}
    fall = rows["fall of API prices a year"]
    assert fall.saving_low_usd_month > fall.saving_high_usd_month
    hour = rows["engineering hour"]
    assert hour.saving_low_usd_month > hour.saving_high_usd_month
    assert rows["resale value"].saving_low_usd_month < rows["resale value"].saving_high_usd_month


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"input_tokens_day": -1.0}, "input_tokens_day is -1"),
        ({"input_tokens_day": 0.0, "output_tokens_day": 0.0}, "both 0"),
        ({"input_tokens_day": float("nan")}, "finite"),
        ({"hours_day": 25.0}, "hours_day"),
        ({"cached_share": 1.5}, "cached_share"),
        ({"input_tokens_call": 9000.0}, "does not fit"),
        ({"slices": (Slice(task="qa", share=0.4),)}, "add to 0.4"),
        ({"apis": ("gpt-4.1",)}, "provider/model"),
        ({"machines": ("RTX 40900",)}, "RTX 4090"),
        ({"region": "XX.business"}, "electricity"),
    ],
)
def test_bad_workloads_name_the_value(facts: dict[str, object], says: str) -> None:
    work = Workload(input_tokens_day=1e6, output_tokens_day=1e5, models=("qwen3:8b",))
    with pytest.raises(ConfigError) as caught:
        plan(msgspec.structs.replace(work, **facts))
    assert says in str(caught.value.problems)


def test_the_html_report_needs_nothing_from_elsewhere() -> None:
    text = html(at(100e6, task="qa", models=("qwen3:32b",)))
    assert text.count("<svg") == 3
    for outside in ("<script", "<link", "src=", "@import", "url("):
        assert outside not in text
    assert "Formulas and sources" in text


def test_markdown_and_text_plot() -> None:
    found = at(100e6)
    assert "| option | USD/month |" in report.markdown(found)
    assert found.curve is not None
    lines = report.plot(found.curve)
    assert any("o" in line for line in lines)
    assert len({len(line) for line in lines[:14]}) == 1
    assert any("seed" in line for line in report.explain(found))


def test_reading_without_writing_still_keeps_machines_busy() -> None:
    work = Workload(input_tokens_day=2e9, output_tokens_day=0, models=("qwen3:32b",))
    found = plan(work)
    for option in found.options:
        if option.capacity is not None:
            assert option.capacity.utilization > 0
    assert found.break_evens


def test_an_absurd_volume_names_the_limit() -> None:
    work = Workload(input_tokens_day=1e14, output_tokens_day=1e14, models=("qwen3:32b",))
    found = plan(msgspec.structs.replace(work, privacy="on_prem"))
    assert not found.options
    assert any("replicas" in row.reason for row in found.refused)


def _random_workload(rng: random.Random) -> Workload:
    return Workload(
        input_tokens_day=10 ** rng.uniform(2, 13),
        output_tokens_day=rng.choice([0, 10 ** rng.uniform(2, 13)]),
        task=rng.choice(["chat", "qa", "classify", "no such task"]),
        models=rng.choice([(), ("qwen3:8b",), ("deepseek-v3", "gpt-oss-120b"), ("gemma-4-31B",)]),
        machines=rng.choice([(), ("RTX 4090",), ("8x H100 SXM 80GB",), ("MI300X", "Strix Halo")]),
        owned=rng.choice([(), ("M4 Max",)]),
        privacy=rng.choice(["any", "on_prem", "private_cloud"]),
        peak_concurrency=rng.choice([None, 1.0, 50.0, 3000.0]),
        hours_day=rng.choice([24.0, 0.5]),
        growth_year=rng.choice([0, 3.0]),
        horizon_months=rng.choice([1, 7, 36, 120]),
        cached_share=rng.choice([0, 0.5]),
        min_quality=rng.choice([None, 0.7]),
        stage=rng.choice(["prototype", "steady"]),
        engineers=rng.choice([True, False]),
        context_tokens=rng.choice([8192, 131072]),
    )


@pytest.mark.parametrize("seed", range(30))
def test_any_workload_gives_a_coherent_plan(seed: int) -> None:
    found = plan(_random_workload(random.Random(seed)))
    for option in found.options:
        assert option.usd_month_low <= option.usd_month + 1e-6
        assert option.usd_month <= option.usd_month_high + 1e-6
        if option.capacity is not None:
            assert 0 < option.capacity.utilization <= 1.001
    assert found.options or impossible(found) is not None
    assert html(found).endswith("</html>\n")
    assert report.markdown(found)
    assert msgspec.json.encode(found)


def test_numbers_on_an_axis_are_read_at_a_glance() -> None:
    assert [short(value) for value in (0.73, 10, 100, 1_000, 2.5e6)] == [
        "0.73", "10", "100", "1k", "2.5M",
    ]  # fmt: skip
