"""How fast one stream decodes and a prompt is read: physics with a few fitted coefficients.

The formulas are in `speed_formulas`, what they take in `speed_features`, the coefficients and
intervals in `data/speed-coefficients.json`, written by `benchmarks/planner/fit.py`.
"""

from locavore.core.errors import RequestError
from locavore.core.estimate import Estimate
from locavore.planner.coefficients import Band, band, band_keys, fitted, labels, values
from locavore.planner.speed_features import decode_features, prefill_features
from locavore.planner.speed_formulas import decode_ms, prefill_ms
from locavore.planner.speed_point import Point

DECODE_FORMULA = (
    "1 / (((weights/(bandwidth*share) + kv/(bandwidth*kv_share))^4 + (weights*unpack/rate)^4)^(1/4)"
    " + layers*launch + exchange)"
)
PREFILL_FORMULA = (
    "1 / (matmul/(rate*share) joined with weights/bandwidth per chunk"
    " + attention/reach + layers*launch/chunk)"
)


def predict_decode(point: Point, *, tier: str = "") -> Estimate:
    """Tokens per second of one stream, with an 80 % interval.

    tier: who would measure it: `A` (controlled, the default), `B` documented application or `C`
    crowd; it widens the interval and changes nothing else.
    """
    check(point)
    known = labels(point)
    c = values("decode", known)
    f = decode_features(point)
    ms = max(decode_ms(f, c) * c["machine"], 1000 * f["weights_gb"] / f["bandwidth_gbs"])
    return rate_estimate("decode", point, 1000 / ms, tier)


def predict_prefill(point: Point, *, tier: str = "") -> Estimate:
    """Prompt tokens per second for `load.prompt` tokens after `load.depth`, 80 % interval."""
    check(point)
    if point.load.prompt <= 0:
        raise RequestError(f"prompt is {point.load.prompt!r} tokens; give a prompt above zero")
    known = labels(point)
    c = values("prefill", known)
    ms = prefill_ms(prefill_features(point), c) * c["machine"]
    return rate_estimate("prefill", point, 1000 / ms, tier)


def rate_estimate(metric: str, point: Point, value: float, tier: str = "") -> Estimate:
    """A speed with its interval and what it rests on."""
    width = band(band_keys(metric, point, tier))
    return Estimate(
        mean=value,
        low=value * width.low,
        high=value * width.high,
        n=width.n,
        source=basis(point, width),
        unit="tok/s",
    )


def basis(point: Point, width: Band) -> str:
    """One line: which coefficient set, whether this hardware was measured, from how many runs."""
    data = fitted()
    known = point.machine.name.lower() in data.machines
    machine = "this hardware was measured" if known else "no run on this hardware"
    return (
        f"physical model, coefficients {point.path} of {data.as_of}; {machine}; "
        f"interval from {width.n} held-out predictions"
    )


def check(point: Point) -> None:
    """Refuse what no formula can answer, naming the value."""
    machine, shape, setting = point.machine, point.shape, point.setting
    positive = {
        "bandwidth (GB/s)": machine.bandwidth_gbs,
        "parameters (10^9)": shape.total_b,
        "active parameters (10^9)": shape.active_b,
        "layers": float(shape.layers),
        "devices": float(setting.devices),
    }
    for name, value in positive.items():
        if not value > 0:
            raise RequestError(f"{name} is {value!r}; give a number above zero", param=name)
    if shape.active_b > shape.total_b * 1.001:
        raise RequestError(
            f"active parameters {shape.active_b!r} exceed the total {shape.total_b!r}; swap them"
        )
    if point.load.context < 0:
        raise RequestError(f"context is {point.load.context!r} tokens; give zero or more")
