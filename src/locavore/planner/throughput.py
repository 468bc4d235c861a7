"""Many streams at once: throughput at a batch or at full load, TPOT and TTFT under load.

One step of a batch reads the weights it touches once and every sequence's cache; prompts of new
requests interleave. What fits beside the weights bounds the batch.
"""

from locavore.core.estimate import Estimate
from locavore.planner.coefficients import band, band_keys, serving_labels, values
from locavore.planner.speed import basis, check, rate_estimate
from locavore.planner.speed_formulas import prompt_ms, step_ms, tpot_ms, ttft_ms
from locavore.planner.speed_point import Point
from locavore.planner.throughput_features import (
    MAX_SEQUENCES,
    batch_features,
    capacity,
    group_devices,
)


def predict_batched(point: Point, *, tier: str = "") -> Estimate:
    """Generated tokens per second, all `load.batch` streams together, prompts already read."""
    check(point)
    batch = max(point.load.batch, 1)
    f = generation_features(point, batch)
    c = values("serving", serving_labels(point, "decode_batched"))
    return rate_estimate(
        "decode_batched", point, 1000 * batch / (tpot_ms(f, c) * c["machine"]), tier
    )


def predict_throughput(point: Point, *, tier: str = "") -> Estimate:
    """Generated tokens per second at the highest load the memory carries, all devices together."""
    check(point)
    batch, copies = full_load(point)
    f = batch_features(point, batch)
    c = values("serving", serving_labels(point, "throughput_out"))
    value = 1000 * batch * copies / (tpot_ms(f, c) * c["machine"])
    return rate_estimate("throughput_out", point, value, tier)


def predict_tpot(point: Point, *, tier: str = "") -> Estimate:
    """Milliseconds between a request's tokens with `load.batch` requests in flight."""
    check(point)
    batch, _ = admitted(point)
    f = batch_features(point, batch)
    c = values("serving", serving_labels(point, "serving"))
    return _time_estimate("tpot", point, tpot_ms(f, c) * c["machine"], tier)


def predict_ttft(point: Point, *, tier: str = "") -> Estimate:
    """Milliseconds to the first token with `load.batch` requests in flight."""
    check(point)
    f = first_token_features(point)
    c = values("ttft", serving_labels(point, "serving"))
    return _time_estimate("ttft", point, ttft_ms(f, c) * c["machine"], tier)


def predict_prompt_rate(point: Point, *, tier: str = "") -> Estimate:
    """Prompt tokens per second of a serving engine, from what prompts cost its batches."""
    check(point)
    c = values("serving", serving_labels(point, "serving"))
    ms = prompt_ms(batch_features(point, 1), c) * c["machine"]
    return rate_estimate("prefill", point, 1000 * point.load.prompt / ms, tier)


def full_load(point: Point) -> tuple[float, float]:
    """(sequences in one group of devices, groups)."""
    group = group_devices(point)
    limit = MAX_SEQUENCES * (group if point.path == "trtllm" else 1)
    return max(min(capacity(point), limit), 1.0), point.setting.devices / group


def admitted(point: Point) -> tuple[float, float]:
    """(sequences that run, requests waiting per one that runs)."""
    asked = max(point.load.batch, 1)
    running = max(min(float(asked), capacity(point)), 1.0)
    return running, asked / running - 1


def generation_features(point: Point, batch: float) -> dict[str, float]:
    """Features of a batch that only generates: no prompts in between."""
    f = batch_features(point, batch)
    return {**f, "prompt_gflop": 0.0, "prompt_attention_gflop": 0.0}


def first_token_features(point: Point) -> dict[str, float]:
    """What TTFT takes: the serving model's own times for this point."""
    batch, waiting = admitted(point)
    f = batch_features(point, batch)
    c = values("serving", serving_labels(point, "serving"))
    return {
        "alone_ms": prompt_ms(f, c),
        "step_ms": step_ms(f, c),
        "batch": batch,
        "wait_ms": waiting * f["generate"] * tpot_ms(f, c),
    }


def _time_estimate(metric: str, point: Point, value: float, tier: str) -> Estimate:
    """A time with its interval: bands are factors of the time itself."""
    width = band(band_keys(metric, point, tier))
    return Estimate(
        mean=value,
        low=value * width.low,
        high=value * width.high,
        n=width.n,
        source=basis(point, width),
        unit="ms",
    )
