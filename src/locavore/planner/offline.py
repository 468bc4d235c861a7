"""A plan as one HTML file: inline SVG and CSS, no script, nothing fetched from elsewhere."""

import math
from collections.abc import Sequence
from html import escape

from locavore.planner import report
from locavore.planner.breakeven import Curve
from locavore.planner.planning import Plan
from locavore.planner.search import Option
from locavore.planner.units import money

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 820, 360, 70, 40, 16, 300
COLORS = ("#1b6ca8", "#c2571a", "#2e7d32", "#7b3fa0", "#a3841d", "#555555", "#b0305c")
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;font-size:13px}
th,td{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;vertical-align:top}
th{background:#f4f4f4}svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif}
.advice{background:#eef5ee;padding:.8rem 1rem;border-left:4px solid #2e7d32}
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}th{background:#2a2a2a}
td,th{border-color:#444}.advice{background:#1e2b1e}svg text{fill:#ddd}}
"""


def html(plan: Plan) -> str:
    """The whole report."""
    advice = plan.recommendation
    title = f"Plan: {escape(plan.workload.name)}"
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
        f"<p class='advice'>{escape(advice.summary)}</p>",
        _list("For self-hosting", advice.reasons_for),
        _list("Against self-hosting", advice.reasons_against),
    ]
    if plan.curve is not None:
        parts += ["<h2>Monthly cost over volume</h2>", curve_svg(plan.curve)]
    option = report.planned(plan)
    if option is not None and option.bill is not None:
        parts += ["<h2>Where the money goes</h2>", stack_svg(option)]
    parts += ["<h2>Cost and quality</h2>", front_svg(plan.options, plan.pareto)]
    parts += [_table(grid) for grid in report.grids(plan)]
    parts.append(_list("Formulas and sources", report.explain(plan)))
    parts.append(_list("What this rests on", report.notes(plan)))
    return "\n".join(parts) + "\n</html>\n"


def _list(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{escape(title)}</h2><ul>{items}</ul>"


def _table(grid: report.Grid) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in grid.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in grid.rows
    )
    return f"<h2>{escape(grid.title)}</h2><table><tr>{head}</tr>{rows}</table>"


class Scale:
    """A logarithmic or linear axis onto pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool) -> None:
        self.log = log and low > 0
        self.low, self.high = self._of(low), self._of(max(high, low * (1 + 1e-9) + 1e-12))
        self.start, self.end = start, end

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def __call__(self, value: float) -> float:
        if self.log:
            value = max(value, 10**self.low)
        share = (self._of(value) - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            return [10.0**n for n in range(math.ceil(self.low), math.floor(self.high) + 1)]
        return [self.low + (self.high - self.low) * n / 4 for n in range(5)]


def curve_svg(curve: Curve) -> str:
    """The installation with its band, each API, and the planned volume."""
    points = curve.points
    costs = [p.high for p in points] + [price for p in points for price in p.apis]
    floor = max(0.01, min((c for p in points for c in (p.low, *p.apis) if c > 0), default=0.01))
    x = Scale(points[0].tokens_month, points[-1].tokens_month, LEFT, WIDTH - RIGHT, log=True)
    y = Scale(floor, max(costs), HEIGHT - BOTTOM, TOP, log=True)
    upper = [f"{x(p.tokens_month):.1f},{y(p.high):.1f}" for p in points]
    lower = [f"{x(p.tokens_month):.1f},{y(p.low):.1f}" for p in reversed(points)]
    parts = [
        f"<polygon points='{' '.join(upper + lower)}' fill='{COLORS[0]}' fill-opacity='.18'/>",
        _line([(x(p.tokens_month), y(p.mean)) for p in points], COLORS[0]),
    ]
    labels = [curve.option]
    for number, name in enumerate(curve.apis):
        line = [(x(p.tokens_month), y(p.apis[number])) for p in points]
        parts.append(_line(line, COLORS[1 + number % 6]))
        labels.append(name)
    at = x(curve.planned_tokens_month)
    parts.append(
        f"<line x1='{at:.1f}' x2='{at:.1f}' y1='{TOP}' y2='{HEIGHT - BOTTOM}'"
        " stroke='#888' stroke-dasharray='4'/>"
    )
    parts += _axes(x, y, "tokens a month", "USD a month") + _legend(labels)
    return _svg(parts, "Monthly cost over token volume")


def stack_svg(option: Option) -> str:
    """Parts of the monthly bill on one bar."""
    bill, _ = option.installation
    total = bill.mean or 1.0
    parts, start, labels = [], float(LEFT), []
    for number, part in enumerate(bill.components):
        width = part.mean / total * (WIDTH - RIGHT - LEFT)
        color = COLORS[number % len(COLORS)]
        parts.append(
            f"<rect x='{start:.1f}' y='{TOP}' width='{width:.1f}' height='44' fill='{color}'/>"
        )
        labels.append(f"{part.name} {money(part.mean)}")
        start += width
    legend = _legend(labels)
    return _svg(parts + legend, "Parts of the monthly cost", height=TOP + 18 * len(labels) + 20)


def front_svg(options: Sequence[Option], front: Sequence[Option]) -> str:
    """Each option with a published score; the Pareto front filled."""
    shown = [row for row in options if row.quality is not None and row.usd_month > 0]
    if not shown:
        return "<p>No option has a published score on this task's benchmark.</p>"
    best = {row.name for row in front}
    costs = [row.usd_month for row in shown]
    scores = [row.quality or 0.0 for row in shown]
    x = Scale(min(costs), max(costs) * 1.1, LEFT, WIDTH - RIGHT, log=True)
    y = Scale(min(scores) * 0.98, max(scores), HEIGHT - BOTTOM, TOP, log=False)
    parts = []
    for row in shown:
        color = COLORS[0] if row.local else COLORS[1]
        fill = color if row.name in best else "none"
        parts.append(
            f"<circle cx='{x(row.usd_month):.1f}' cy='{y(row.quality or 0):.1f}' r='5'"
            f" stroke='{color}' fill='{fill}'><title>{escape(row.name)}:"
            f" {money(row.usd_month)}, {row.quality:.1%}</title></circle>"
        )
    parts += _axes(x, y, "USD a month", "score") + _legend(["self-hosted", "API"])
    return _svg(parts, "Cost and published quality; filled: nothing is better in every respect")


def _line(points: Sequence[tuple[float, float]], color: str) -> str:
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f"<polyline points='{path}' fill='none' stroke='{color}' stroke-width='2'/>"


def _axes(x: Scale, y: Scale, below: str, beside: str) -> list[str]:
    floor = HEIGHT - BOTTOM
    parts = [
        f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{floor}' y2='{floor}' stroke='#888'/>",
        f"<line x1='{LEFT}' x2='{LEFT}' y1='{TOP}' y2='{floor}' stroke='#888'/>",
        f"<text x='{LEFT}' y='{HEIGHT - 4}'>{escape(below)}</text>",
        f"<text x='2' y='{TOP - 4}'>{escape(beside)}</text>",
    ]
    parts += [
        f"<text x='{x(value):.1f}' y='{floor + 16}' text-anchor='middle'>{short(value)}</text>"
        for value in x.ticks()
    ]
    parts += [
        f"<text x='{LEFT - 6}' y='{y(value) + 4:.1f}' text-anchor='end'>{short(value)}</text>"
        for value in y.ticks()
    ]
    return parts


def _legend(labels: Sequence[str]) -> list[str]:
    left = WIDTH - RIGHT + 10
    parts = []
    for number, label in enumerate(labels):
        top = TOP + 18 * number
        text = label if len(label) <= 40 else label[:39] + "…"
        parts.append(
            f"<rect x='{left}' y='{top}' width='10' height='10'"
            f" fill='{COLORS[number % len(COLORS)]}'/>"
            f"<text x='{left + 15}' y='{top + 10}'>{escape(text)}"
            f"<title>{escape(label)}</title></text>"
        )
    return parts


def _svg(parts: Sequence[str], title: str, *, height: int = HEIGHT) -> str:
    return (
        f"<svg viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' role='img'"
        f" aria-label='{escape(title)}'>{''.join(parts)}</svg>"
    )


def short(value: float) -> str:
    """A number for an axis: 1.5k, 20M, 3B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.2g}" if value < 1 else f"{value:.3g}"
