"""No bare number for quality, cost or latency: a figure, its interval, and what it rests on."""

import msgspec


class Estimate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A figure with the interval it is believed to lie in."""

    mean: float
    low: float
    high: float
    n: int = 0
    """Observations behind it; 0 for a formula or a citation."""
    source: str
    unit: str = ""

    @classmethod
    def exact(cls, value: float, *, source: str, unit: str = "") -> "Estimate":
        return cls(mean=value, low=value, high=value, source=source, unit=unit)
