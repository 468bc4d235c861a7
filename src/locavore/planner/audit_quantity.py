"""Figures with units as people write them: intervals of numbers with dimensions.

`49.24 USD/hour`, `5-10 GB`, `128 MiB/ktok`, `85 %`. Arithmetic keeps the interval and the
middle, and refuses to add what has different dimensions; conversion finds period errors because
an hour is not a month.
"""

import re
from collections.abc import Callable

import msgspec

from locavore.core.errors import RequestError

HOUR_S = 3600.0
_SCALES: dict[str, tuple[float, str]] = {
    "x": (1.0, ""),
    "%": (0.01, ""),
    "points": (1.0, ""),
    "count": (1.0, ""),
    "s": (1.0, "s"),
    "ms": (1e-3, "s"),
    "min": (60.0, "s"),
    "hour": (HOUR_S, "s"),
    "h": (HOUR_S, "s"),
    "day": (24 * HOUR_S, "s"),
    "week": (7 * 24 * HOUR_S, "s"),
    "month": (730 * HOUR_S, "s"),  # a twelfth of a year, as clouds bill
    "month30": (720 * HOUR_S, "s"),
    "year": (8760 * HOUR_S, "s"),
    "tok": (1.0, "tok"),
    "ktok": (1e3, "tok"),
    "Mtok": (1e6, "tok"),
    "Gtok": (1e9, "tok"),
    "B": (1.0, "B"),
    "kB": (1e3, "B"),
    "MB": (1e6, "B"),
    "GB": (1e9, "B"),
    "TB": (1e12, "B"),
    "MiB": (2.0**20, "B"),
    "GiB": (2.0**30, "B"),
    "bit": (0.125, "B"),
    "param": (1.0, "param"),
    "Mparam": (1e6, "param"),
    "Gparam": (1e9, "param"),
    "W": (1.0, "W"),
    "kW": (1e3, "W"),
    "kWh": (1e3 * HOUR_S, "W s"),
    "USD": (1.0, "USD"),
    "kUSD": (1e3, "USD"),
    "EUR": (1.0, "EUR"),
    "kEUR": (1e3, "EUR"),
    "call": (1.0, "call"),
    "kcall": (1e3, "call"),
    "Mcall": (1e6, "call"),
    "char": (1.0, "char"),
    "kchar": (1e3, "char"),
    "Mchar": (1e6, "char"),
    "user": (1.0, "user"),
    "word": (1.0, "word"),
    "elo": (1.0, "elo"),
    "ppl": (1.0, "ppl"),
    "Mtransfer": (1e6, "transfer"),
    "transfer": (1.0, "transfer"),
    "channel": (1.0, ""),
    "GFLOP": (1e9, "FLOP"),
    "TFLOP": (1e12, "FLOP"),
}
_NUMBER = re.compile(
    r"\s*~?\s*(-?[\d.,]+(?:e-?\d+)?)\s*(?:(?:-|\.\.|to)\s*(-?[\d.,]+(?:e-?\d+)?))?\s*(.*)"
)

Dimensions = dict[str, int]


class Quantity(msgspec.Struct, frozen=True, kw_only=True):
    """An interval in base units, its middle, and its dimensions (base unit -> power)."""

    low: float
    mid: float
    high: float
    dimensions: Dimensions = {}
    digits: float = 0.0
    """Half a unit in the last place as written, in base units; 0: computed."""

    @property
    def is_range(self) -> bool:
        return self.high - self.low > 1e-9 * max(abs(self.high), abs(self.low), 1e-30)


def unit(text: str) -> tuple[float, Dimensions]:
    """`USD/Mtok` -> (scale to base units, dimensions). Raises RequestError for unknown units."""
    scale = 1.0
    powers: Dimensions = {}
    for i, part in enumerate(text.strip().split("/")):
        sign = 1 if i == 0 else -1
        for name in part.split():
            if name not in _SCALES:
                known = ", ".join(sorted(_SCALES))
                raise RequestError(f"unit {name!r} in {text!r} is unknown; known: {known}")
            factor, bases = _SCALES[name]
            scale *= factor**sign
            for base in bases.split():
                powers[base] = powers.get(base, 0) + sign
    return scale, {k: v for k, v in powers.items() if v}


def parse(text: str) -> Quantity:
    """A figure as written, `low-high unit` or `value unit`."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise RequestError(f"{text!r} is not a figure; write for example '5-10 GB' or '0.14 EUR'")
    first, second, rest = match.groups()
    scale, dimensions = unit(rest)
    low, high = _number(first), _number(second or first)
    if low > high:
        raise RequestError(f"range {text!r} runs backwards; write the smaller figure first")
    return Quantity(
        low=low * scale,
        mid=(low + high) / 2 * scale,
        high=high * scale,
        dimensions=dimensions,
        digits=max(_half_place(first), _half_place(second or first)) * scale,
    )


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        raise RequestError(f"{text!r} is not a number") from None


def _half_place(text: str) -> float:
    """`0.06` -> 0.005; `380` -> 0.5; `7800` -> 50: trailing zeros of a whole number say nothing."""
    plain = text.replace(",", "").lstrip("-")
    if "e" in plain:
        return 0.0
    if "." in plain:
        return 0.5 * 10.0 ** -len(plain.split(".")[1])
    zeros = len(plain) - len(plain.rstrip("0"))
    return 0.5 * 10.0 ** min(zeros, max(len(plain) - 2, 0))


def number(value: float) -> Quantity:
    return Quantity(low=value, mid=value, high=value)


def add(a: Quantity, b: Quantity) -> Quantity:
    _alike(a, b, "added to")
    return Quantity(
        low=a.low + b.low, mid=a.mid + b.mid, high=a.high + b.high, dimensions=a.dimensions
    )


def subtract(a: Quantity, b: Quantity) -> Quantity:
    _alike(a, b, "compared with")
    return Quantity(
        low=a.low - b.high, mid=a.mid - b.mid, high=a.high - b.low, dimensions=a.dimensions
    )


def multiply(a: Quantity, b: Quantity) -> Quantity:
    return _combine(a, b, lambda x, y: x * y, 1)


def divide(a: Quantity, b: Quantity) -> Quantity:
    if b.low <= 0 <= b.high:
        raise RequestError(f"division by {show(b)!r}, which contains zero")
    return _combine(a, b, lambda x, y: x / y, -1)


def _combine(
    a: Quantity, b: Quantity, operation: Callable[[float, float], float], sign: int
) -> Quantity:
    corners = [operation(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    powers = dict(a.dimensions)
    for base, power in b.dimensions.items():
        powers[base] = powers.get(base, 0) + sign * power
    return Quantity(
        low=min(corners),
        mid=operation(a.mid, b.mid),
        high=max(corners),
        dimensions={k: v for k, v in powers.items() if v},
    )


def smallest(items: list[Quantity]) -> Quantity:
    for item in items[1:]:
        _alike(items[0], item, "compared with")
    return Quantity(
        low=min(i.low for i in items),
        mid=min(i.mid for i in items),
        high=min(i.high for i in items),
        dimensions=items[0].dimensions,
    )


def largest(items: list[Quantity]) -> Quantity:
    for item in items[1:]:
        _alike(items[0], item, "compared with")
    return Quantity(
        low=max(i.low for i in items),
        mid=max(i.mid for i in items),
        high=max(i.high for i in items),
        dimensions=items[0].dimensions,
    )


def _alike(a: Quantity, b: Quantity, verb: str) -> None:
    if a.dimensions != b.dimensions:
        raise RequestError(f"{show(a)!r} cannot be {verb} {show(b)!r}: the units differ")


def show(q: Quantity, unit_text: str | None = None) -> str:
    """`35,945 USD/month`; in base units when no unit is asked for."""
    if unit_text is None:
        name = " ".join(f"{k}^{v}" if v != 1 else k for k, v in sorted(q.dimensions.items()))
        return f"{_span(q, 1.0)} {name}".strip()
    scale, dimensions = unit(unit_text)
    if dimensions != q.dimensions:
        raise RequestError(f"{show(q)!r} cannot be shown in {unit_text!r}: the units differ")
    return f"{_span(q, scale)} {unit_text}".replace(" %", "%").replace(" x", "x").strip()


def _span(q: Quantity, scale: float) -> str:
    low, high = _short(q.low / scale), _short(q.high / scale)
    return low if low == high else f"{low}-{high}"


def _short(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
