"""The fit of the speed model: coefficients found again, groups held out, intervals that hold."""

import numpy as np
import pytest

from benchmarks.planner.fit_errors import Result, Task
from benchmarks.planner.fit_rows import Measured
from benchmarks.planner.intervals import Bands
from benchmarks.planner.solver import Array, Fit, Prior, Sample, chosen, cross_validate
from locavore.planner.speed_point import Load, Machine, Point, Setting
from locavore.planner.speed_shape import Shape

PRIORS = {"cost": Prior(0.0, 1.0, {"maker": 0.5}), "machine": Prior(0.0, 1e-4)}
TRUE_COST = {"a": 2.0, "b": 3.0, "c": 4.5}


def formula(f: dict[str, Array], c: dict[str, Array]) -> Array:
    return f["work"] * c["cost"]


def samples(*, noise: float = 0.02) -> list[Sample]:
    random = np.random.default_rng(7)
    return [
        Sample(
            features={"work": float(work)},
            labels={"maker": maker},
            value=float(work * cost * np.exp(random.normal(0, noise))),
            noise=0.1,
            cluster=(maker, work),
        )
        for maker, cost in TRUE_COST.items()
        for work in range(1, 9)
    ]


def test_the_fit_finds_what_makers_have_in_common_and_apart() -> None:
    table = Fit(formula, PRIORS, samples()).table()["cost"]
    for maker, cost in TRUE_COST.items():
        assert table["value"] * table["by"]["maker"].get(maker, 1.0) == pytest.approx(
            cost, rel=0.05
        )


def test_a_group_held_out_is_predicted_from_the_others() -> None:
    rows = samples()
    held = cross_validate(formula, PRIORS, rows, [s.labels["maker"] for s in rows], nested=True)
    for maker, low, high in (("a", 2.5, 4.5), ("c", 2.0, 3.0)):
        found = [p / s.features["work"] for p, s in zip(held, rows, strict=True)
                 if s.labels["maker"] == maker]  # fmt: skip
        assert low < min(found) <= max(found) < high  # between the others, far from its own


def test_widths_are_chosen_by_what_predicts_held_out_rows() -> None:
    rows = samples()
    works = [s.features["work"] for s in rows]
    before = PRIORS["cost"].by["maker"]
    picked = chosen(formula, PRIORS, rows, works)["cost"].by["maker"]
    assert picked in (0.5 * before, before, 2 * before)


def point(index: int) -> Point:
    return Point(
        machine=Machine(name=f"card {index % 5}", bandwidth_gbs=900.0, fp16_tflops=100.0),
        shape=Shape(
            total_b=8.0 + index % 7,
            active_b=8.0 + index % 7,
            layers=32,
            full_layers=32,
            kv_heads=8,
            head_dim=128,
        ),
        setting=Setting(quant="Q4_K_M", backend="CUDA"),
        load=Load(),
    )


@pytest.mark.parametrize(("metric", "times"), [("decode", 2.0), ("tpot", 0.5)])
def test_intervals_lie_where_the_measurements_are(metric: str, times: float) -> None:
    """Measured speeds at half of the prediction, or times at half of it: the interval reaches down.

    A speed at half of the prediction is a time twice as long.
    """
    rows = [
        Measured(point(i), metric, "A", Sample({}, {"path": "p"}, 10.0 * times, 0.1, cluster=i))
        for i in range(60)
    ]
    predicted = np.full(60, 10.0)
    views = {"hardware": predicted, "model": predicted}
    task = Task(metric, formula, PRIORS, rows)
    bands = Bands()
    bands.add(Result(task, Fit(formula, PRIORS, samples()), views))
    assert bands.factors()[metric]["low"] == pytest.approx(0.5, rel=0.01)
    assert bands.coverage()["model"][metric] == 100.0
