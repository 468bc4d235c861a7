"""The kinds of check, each a function of a part and the claim's inputs.

Tolerances: a figure holds within rounding or 5 %, approximates within 20 % or when ranges
overlap, and is wrong beyond; percentages count points: 2 and 5.
"""

import itertools
from collections.abc import Callable, Mapping

import msgspec

from locavore.core.errors import RequestError
from locavore.planner.audit_expression import evaluate, spelled
from locavore.planner.audit_quantity import Quantity, parse, show, subtract, unit
from locavore.planner.claims import Part

HOLDS = 0.05
APPROXIMATES = 0.20
POINTS_HOLD = 0.02
POINTS_APPROXIMATE = 0.05
TIGHT = 0.12
"""Share of memory that must stay free for cache and buffers before a fit is comfortable."""
RUNTIME = parse("0.24 GB")
"""What the leanest GPU engine of `memory.ENGINES` holds beside weights, cache and graph."""
NEAR_ROOF = 0.90
OVER_ROOF = 1.02

# Ratios that betray a slip of unit or period, with what they mean.
_SLIPS: tuple[tuple[float, str], ...] = (
    (1000.0, "a factor of 1,000 (kilo against mega)"),
    (365.0, "a year against a day"),
    (100.0, "a factor of 100"),
    (52.14, "a year against a week"),
    (30.4, "a month against a day"),
    (24.0, "a day against an hour"),
    (12.0, "a year against a month"),
    (10.0, "a factor of 10"),
    (8.0, "bits against bytes"),
    (7.0, "a week against a day"),
    (2.0, "a factor of 2"),
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One part's outcome."""

    verdict: str
    formula: str
    recomputed: str
    comment: str = ""
    premise: bool = False


class Context(msgspec.Struct, frozen=True):
    """A part with its inputs, written and read."""

    part: Part
    written: Mapping[str, str]

    def figure(self, text: str) -> Quantity:
        """A formula over the inputs, or a figure as written."""
        try:
            return evaluate(text, self.read)
        except RequestError:
            if not text.lstrip(" ~-")[:1].isdigit():
                raise
            return parse(text)

    @property
    def read(self) -> dict[str, Quantity]:
        figures = {}
        for name, text in self.written.items():
            try:
                figures[name] = parse(text)
            except RequestError:
                continue  # a word (a model's name), used in texts only
        return figures

    @property
    def stated(self) -> Quantity:
        return parse(self.part.stated)

    @property
    def unit(self) -> str:
        return self.part.unit or _unit_of(self.part.stated)

    def spelled(self, formula: str) -> str:
        return spelled(formula, self.written)


def run(part: Part, inputs: Mapping[str, str]) -> Finding:
    """One check. Raises RequestError for a part that cannot be computed."""
    finding = _CHECKS[part.check](Context(part, inputs))
    return msgspec.structs.replace(finding, premise=part.premise)


def _value(c: Context) -> Finding:
    found, stated = c.figure(c.part.formula), c.stated
    if found.dimensions != stated.dimensions:
        raise RequestError(
            f"{c.part.formula!r} gives {show(found)!r}, but {c.part.stated!r} is stated; "
            "the units differ"
        )
    verdict = compare(stated, found, percent=c.unit == "%", slack=c.part.tolerance)
    comment = _slip(stated, found) if verdict == "wrong" else ""
    return Finding(
        verdict=verdict,
        formula=c.spelled(c.part.formula),
        recomputed=show(found, c.unit),
        comment=comment,
    )


def compare(stated: Quantity, found: Quantity, *, percent: bool, slack: float = 0.0) -> str:
    """`holds`, `approximate` or `wrong` for a stated figure against the recomputed one."""
    if not stated.is_range and found.is_range:
        return _point_in_range(stated, found, percent=percent, slack=slack)
    ends = [
        _grade(stated.low, found.low, stated.digits, percent=percent, slack=slack),
        _grade(stated.high, found.high, stated.digits, percent=percent, slack=slack),
    ]
    if stated.is_range and not found.is_range:
        inside = stated.low - stated.digits <= found.mid <= stated.high + stated.digits
        return "holds" if inside else _worst(ends, best=True)
    worst = _worst(ends)
    overlap = stated.low <= found.high and found.low <= stated.high
    if worst == "wrong" and stated.is_range and not percent:
        nearest = found.high if found.high < stated.low else found.low
        edge = stated.low if found.high < stated.low else stated.high
        near = abs(edge - nearest) <= APPROXIMATES * abs(nearest)
        return "approximate" if overlap or near else "wrong"
    return worst


def _point_in_range(stated: Quantity, found: Quantity, *, percent: bool, slack: float) -> str:
    middle = _grade(stated.mid, found.mid, stated.digits, percent=percent, slack=slack)
    if middle == "holds":
        return "holds"
    if found.low - stated.digits <= stated.mid <= found.high + stated.digits:
        return "approximate"
    nearest = found.low if stated.mid < found.low else found.high
    edge = _grade(stated.mid, nearest, stated.digits, percent=percent, slack=slack)
    return "approximate" if edge == "holds" else edge


def _grade(stated: float, found: float, digits: float, *, percent: bool, slack: float) -> str:
    gap = abs(stated - found)
    if gap <= digits * 1.000001:
        return "holds"
    relative = gap / max(abs(found), 1e-300)
    if percent:
        if gap <= POINTS_HOLD or relative <= 0.01:
            return "holds"
        return "approximate" if gap <= POINTS_APPROXIMATE + 1e-9 else "wrong"
    if relative <= max(HOLDS, slack):
        return "holds"
    return "approximate" if relative <= max(APPROXIMATES, 2 * slack) else "wrong"


def _worst(verdicts: list[str], *, best: bool = False) -> str:
    order = ["holds", "approximate", "wrong"]
    return (min if best else max)(verdicts, key=order.index)


def _slip(stated: Quantity, found: Quantity) -> str:
    """What kind of slip the ratio betrays, if any."""
    if not (stated.mid and found.mid):
        return ""
    ratio = abs(stated.mid / found.mid)
    size = max(ratio, 1 / ratio)
    direction = "too high" if ratio > 1 else "too low"
    for factor, meaning in _SLIPS:
        if abs(size / factor - 1) <= 0.03:
            return f"{size:.3g} times {direction}: {meaning}"
    return f"{size:.2g} times {direction}" if size >= 1.15 else ""


def _roof(c: Context) -> Finding:
    roof, stated = c.figure(c.part.formula), c.stated
    subtract(stated, roof)  # same units, or an error
    if stated.low > roof.high or (stated.high > OVER_ROOF * roof.high and not stated.is_range):
        verdict, comment = "wrong", f"{stated.mid / roof.high:.2f} of the roof: impossible"
    elif stated.high > NEAR_ROOF * roof.high:
        share = stated.high / roof.high
        verdict, comment = "approximate", f"up to {share:.0%} of the roof: not reached in practice"
    else:
        verdict, comment = "holds", f"{stated.high / roof.high:.0%} of the roof"
    return Finding(
        verdict=verdict,
        formula=f"at most {c.spelled(c.part.formula)}",
        recomputed=show(roof, c.unit),
        comment=comment,
    )


def _fits(c: Context) -> Finding:
    need, have = c.figure(c.part.need), c.figure(c.part.have)
    left = subtract(have, need)
    free = left.mid / have.mid
    if free < 0:
        verdict, comment = "wrong", "does not fit"
    elif left.mid < RUNTIME.mid:
        verdict, comment = "wrong", f"{show(left, 'MB')} free: less than an engine itself needs"
    elif free < TIGHT:
        verdict, comment = "approximate", f"{free:.0%} free for cache and buffers: almost nothing"
    else:
        verdict, comment = "holds", f"{free:.0%} free"
    return Finding(
        verdict=verdict,
        formula=f"{c.spelled(c.part.need)} in {c.spelled(c.part.have)}",
        recomputed=f"{show(need, c.part.unit or 'GB')} of {show(have, c.part.unit or 'GB')}",
        comment=comment,
    )


def _enough(c: Context) -> Finding:
    need, have = c.figure(c.part.need), c.figure(c.part.have)
    ratio = have.mid / need.mid
    subtract(have, need)
    verdict = "holds" if ratio >= 1 else "approximate" if ratio >= 0.8 else "wrong"
    where = c.part.unit or "tok/s"
    return Finding(
        verdict=verdict,
        formula=f"{c.spelled(c.part.have)} for {c.spelled(c.part.need)}",
        recomputed=f"{show(have, where)} for {show(need, where)}",
        comment="" if ratio >= 1 else f"{1 / ratio:.2g} times short",
    )


def _same(c: Context) -> Finding:
    figures = [c.figure(f) for f in c.part.figures]
    first = figures[0]
    equal = all(
        max(abs(f.low - first.low), abs(f.high - first.high)) <= max(f.digits, first.digits) * 1.001
        for f in figures[1:]
    )
    return Finding(
        verdict="holds" if equal else "wrong",
        formula="one fact: " + ", ".join(c.part.figures),
        recomputed="equal" if equal else "the figures differ",
    )


def _rising(c: Context) -> Finding:
    figures = [c.figure(f).mid for f in c.part.figures]
    rises = all(a <= b for a, b in itertools.pairwise(figures))
    return Finding(
        verdict="holds" if rises else c.part.severity,
        formula="order: " + " <= ".join(c.part.figures),
        recomputed="in order" if rises else "order reversed",
    )


def _within(c: Context) -> Finding:
    stated = c.stated
    outside = [
        _as_read(c, text)
        for text in c.part.figures
        if (f := c.figure(text)).low < stated.low - max(f.digits, stated.digits)
        or f.high > stated.high + max(f.digits, stated.digits)
    ]
    return Finding(
        verdict="wrong" if outside else "holds",
        formula=f"{c.part.stated} contains " + ", ".join(c.part.figures),
        recomputed="all inside" if not outside else "outside: " + ", ".join(outside),
    )


def _as_read(c: Context, text: str) -> str:
    """A figure as the claim writes it; of a formula, its value."""
    try:
        parse(text)
    except RequestError:
        return show(c.figure(text), c.unit)
    return text


def _cheapest(c: Context) -> Finding:
    costs = {name: c.figure(text) for name, text in c.part.options.items()}
    best = min(costs, key=lambda name: costs[name].mid)
    claimed = costs[c.part.winner]
    behind = claimed.mid / costs[best].mid - 1
    verdict = "holds" if behind <= HOLDS else "approximate" if behind <= APPROXIMATES else "wrong"
    return Finding(
        verdict=verdict,
        formula="lowest of " + ", ".join(f"{k} {c.spelled(v)}" for k, v in c.part.options.items()),
        recomputed=", ".join(f"{k} {show(v, c.part.unit or None)}" for k, v in costs.items()),
        comment="" if best == c.part.winner else f"{c.part.winner} loses to {best}",
    )


def _tie(c: Context) -> Finding:
    first, second = (c.figure(f) for f in c.part.figures)
    gap = abs(subtract(first, second).mid) / max(first.mid, second.mid)
    verdict = "holds" if gap <= HOLDS else "approximate" if gap <= APPROXIMATES else "wrong"
    return Finding(
        verdict=verdict,
        formula="compare " + " with ".join(c.part.figures),
        recomputed=f"they differ by {gap:.0%}",
    )


def _reference(c: Context) -> Finding:
    source = f"{c.part.reference} ({c.part.source})"
    mismatch: str = c.part.severity
    try:
        stated, known = parse(c.part.stated), parse(c.part.reference)
    except RequestError:
        equal = c.part.stated.strip().lower() == c.part.reference.strip().lower()
        return Finding(
            verdict="holds" if equal else mismatch,
            formula=c.part.source,
            recomputed=c.part.reference,
        )
    grade = compare(stated, known, percent=_unit_of(c.part.stated) == "%", slack=c.part.tolerance)
    verdict = mismatch if grade == "wrong" else grade
    return Finding(verdict=verdict, formula=f"compared with {source}", recomputed=c.part.reference)


def _like(c: Context) -> Finding:
    alike = len({text.strip().lower() for text in c.part.figures}) == 1
    return Finding(
        verdict="holds" if alike else "wrong",
        formula="compares " + " with ".join(c.part.figures),
        recomputed="of one kind" if alike else "not like with like",
    )


def _derived(c: Context) -> Finding:
    found = c.figure(c.part.formula)
    return Finding(
        verdict="note",
        formula=c.spelled(c.part.formula),
        recomputed=show(found, c.part.unit or None),
        comment="the text does not state it",
    )


def _unit_of(text: str) -> str:
    """`5-10 GB/s` -> `GB/s`."""
    words = text.strip().lstrip("~").split(maxsplit=1)
    if len(words) == 2:
        unit(words[1])
        return words[1]
    return ""


_CHECKS: dict[str, Callable[[Context], Finding]] = {
    "value": _value,
    "roof": _roof,
    "fits": _fits,
    "enough": _enough,
    "same": _same,
    "rising": _rising,
    "within": _within,
    "cheapest": _cheapest,
    "tie": _tie,
    "reference": _reference,
    "like": _like,
    "derived": _derived,
}
