"""Where a budget's period begins and ends: in the payer's time zone, over clock changes."""

import time
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from locavore.core.access import Period

FOREVER_S = 1 << 40
_FIXED_S: dict[str, int] = {"minute": 60, "hour": 3600}


@lru_cache
def zone_of(name: str) -> tzinfo:
    """The zone. Raises ValueError for one that this machine does not know."""
    if name == "UTC":  # needs no zone database, which small containers lack
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"time zone {name!r} is not known here ({error})") from error


def bounds(period: Period, zone: str, now_s: float | None = None) -> tuple[int, int]:
    """(start, end) in Unix seconds of the period that `now_s` lies in; the end is excluded.

    Minutes and hours are counted in Unix time. Days, weeks (from Monday) and months begin at
    local midnight, so a day may have 23 or 25 hours.
    """
    now_s = time.time() if now_s is None else now_s
    if period == "total":
        return 0, FOREVER_S
    if fixed := _FIXED_S.get(period):
        start = int(now_s) // fixed * fixed
        return start, start + fixed
    local = datetime.fromtimestamp(now_s, zone_of(zone))
    first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if period == "week":
        first -= timedelta(days=local.weekday())
    elif period == "month":
        first = first.replace(day=1)
    return int(first.timestamp()), int(_next(first, period).timestamp())


def _next(first: datetime, period: Period) -> datetime:
    """The next local midnight that begins a period, by the wall clock: DST cannot shift it."""
    if period == "month":
        return (first + timedelta(days=32)).replace(day=1)
    return first + timedelta(days=7 if period == "week" else 1)
