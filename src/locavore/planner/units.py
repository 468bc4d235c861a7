"""Quantities as people write them: `24GB`, `10M/day`, `128K`, `EUR 0.15/kWh`, `2x RTX 4090`.

Each parser names the value it refuses and says what would do.
"""

import math
import re

from locavore.core.errors import ConfigError

GIB = 2**30
DAYS_PER_MONTH = 365 / 12
HOURS_PER_MONTH = 730.0

_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_PERIOD_DAYS = {
    "second": 1 / 86400, "s": 1 / 86400, "hour": 1 / 24, "h": 1 / 24, "day": 1.0, "d": 1.0,
    "week": 7.0, "w": 7.0, "month": DAYS_PER_MONTH, "mo": DAYS_PER_MONTH, "year": 365.0,
    "y": 365.0,
}  # fmt: skip
_NUMBER = r"([-+]?\d[\d_,]*(?:\.\d+)?(?:[eE][-+]?\d+)?)"


def amount(text: str, *, what: str, most: float = 1e15, zero: bool = False) -> float:
    """A count with an optional scale: `800M`, `5_000`, `1.5K`, `2e9`.

    Raises ConfigError for a negative, zero (unless `zero`), unreadable or absurd value.
    """
    found = re.fullmatch(rf"\s*{_NUMBER}\s*([kKmMbBgGtT]?)\s*", text)
    if not found:
        raise ConfigError([f"{what} is {text!r}; write a number such as 500, 10M or 5B"])
    value = float(found.group(1).replace("_", "").replace(",", "")) * _SCALE[
        found.group(2).lower()
    ]  # fmt: skip
    return checked(value, what=what, most=most, zero=zero, shown=text)


def checked(
    value: float, *, what: str, most: float, zero: bool = False, shown: object = None
) -> float:
    """`value` if it is a sane quantity; ConfigError naming it otherwise."""
    display = value if shown is None else shown
    if not math.isfinite(value):
        raise ConfigError([f"{what} is {display!r}; write a finite number"])
    if value < 0:
        raise ConfigError([f"{what} is {display!r}; it cannot be negative"])
    if value == 0 and not zero:
        raise ConfigError([f"{what} is {display!r}; it must be above zero"])
    if value > most:
        raise ConfigError([f"{what} is {display!r}; more than {most:g} is not believable"])
    return value


def per_day(text: str, *, what: str, default: str = "day") -> float:
    """Tokens (or calls) per day from `10M`, `10M/day`, `5B/month`, `200/s`.

    A bare number is per `default`. Months have 365/12 days.
    """
    body, _, period = text.partition("/")
    period = period.strip().lower() or default
    if period not in _PERIOD_DAYS:
        known = "second, hour, day, week, month, year"
        raise ConfigError([f"{what} is {text!r}; {period!r} is no period: use {known}"])
    return amount(body, what=what) / _PERIOD_DAYS[period]


def bytes_of(text: str, *, what: str) -> float:
    """Bytes from `24GB` (10^9), `24GiB` (2^30); a bare number is refused."""
    found = re.fullmatch(rf"\s*{_NUMBER}\s*([kKmMgGtT]?i?[bB])\s*", text)
    if not found:
        raise ConfigError([f"{what} is {text!r}; write it with its unit, such as 24GB or 24GiB"])
    value = float(found.group(1).replace("_", "").replace(",", ""))
    return checked(value * _BYTES[found.group(2).lower()], what=what, most=1e16, shown=text)


def tokens(text: str, *, what: str = "context") -> int:
    """Tokens from `8192`, `128K` (131,072 for contexts: K is 1,024 here) or `1M`.

    A context is named in binary thousands by custom; volumes go through `per_day`.
    """
    found = re.fullmatch(r"\s*(\d[\d_,]*(?:\.\d+)?)\s*([kKmM]?)\s*", text)
    if not found:
        if re.match(r"\s*-", text):
            raise ConfigError([f"{what} is {text!r}; it cannot be negative"])
        raise ConfigError([f"{what} is {text!r}; write tokens such as 8192, 32K or 1M"])
    scale = {"": 1, "k": 1024, "m": 1024 * 1024}[found.group(2).lower()]
    value = float(found.group(1).replace("_", "").replace(",", "")) * scale
    return int(checked(value, what=what, most=2**31, shown=text))


def share(text: str, *, what: str) -> float:
    """A share in [0, 1] from `0.3` or `30%`."""
    found = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*(%?)\s*", text)
    value = float(found.group(1)) / (100 if found.group(2) else 1) if found else -1.0
    if not 0 <= value <= 1:
        raise ConfigError([f"{what} is {text!r}; write a share such as 0.3 or 30%"])
    return value


def machine_count(text: str) -> tuple[int, str]:
    """(count, name) from `2x RTX 4090`, `8 x H100` or `RTX 4090`."""
    found = re.fullmatch(r"\s*(\d+)\s*[x×*]\s*(.+?)\s*", text)
    if not found:
        return 1, text.strip()
    count = int(found.group(1))
    if not 1 <= count <= 1024:
        raise ConfigError([f"{text!r} names {count} devices; between 1 and 1,024 is possible"])
    return count, found.group(2)


def gib(value: float) -> str:
    """Bytes for people, in GiB."""
    return f"{value / GIB:.2f} GiB"


def money(value: float, currency: str = "USD") -> str:
    """An amount for people: whole above 100, cents below, four digits under one."""
    if value >= 100 or value == 0:
        return f"{value:,.0f} {currency}"
    return f"{value:,.2f} {currency}" if value >= 1 else f"{value:,.4f} {currency}"
