"""A plan as tables: the same rows for terminal, Markdown and HTML; where figures are from."""

import math
from collections.abc import Sequence

import msgspec

from locavore.planner.breakeven import BreakEven, Curve
from locavore.planner.planning import Plan
from locavore.planner.search import Option
from locavore.planner.units import money

SHOWN = 8
_LETTERS = "abcdefgh"


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """One table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def grids(plan: Plan) -> list[Grid]:
    """Every table of a plan, empty ones left out."""
    found = [
        options_grid("Pareto front: cost, quality, speed", plan.pareto),
        options_grid("Cheapest installation on each machine", machines(plan)),
        _bill(plan),
        _break_evens(plan.break_evens),
        _sensitivity(plan),
        _hybrid(plan),
        _task_models(plan),
        _licenses(plan),
        Grid(
            title="What cannot be, and which limit binds",
            columns=("combination", "limit"),
            rows=tuple((row.name, row.reason) for row in plan.refused),
        ),
    ]
    return [grid for grid in found if grid.rows]


def options_grid(title: str, options: Sequence[Option]) -> Grid:
    return Grid(
        title=title,
        columns=("option", "USD/month", "USD/Mtok", "score", "tok/s per user", "in use"),
        rows=tuple(_option(option) for option in options[:SHOWN]),
    )


def machines(plan: Plan) -> list[Option]:
    """The cheapest installation on each machine, bought, rented or owned."""
    best: dict[tuple[str | None, str], Option] = {}
    for option in plan.options:
        if option.local:
            best.setdefault((option.machine, option.kind), option)
    return list(best.values())


def _option(option: Option) -> tuple[str, ...]:
    capacity = option.capacity
    cost = money(option.usd_month, "")
    if option.usd_month_high > option.usd_month:
        low, high = money(option.usd_month_low, ""), money(option.usd_month_high, "")
        cost = f"{cost.strip()} ({low.strip()}-{high.strip()})"
    speed = "not published"
    if capacity is not None:
        found = capacity.stream_tokens_s
        speed = f"{found.mean:.0f} ({found.low:.0f}-{found.high:.0f})"
    return (
        option.name,
        cost.strip(),
        f"{option.usd_mtok:.3f}",
        f"{option.quality:.1%}" if option.quality is not None else "not published",
        speed,
        f"{capacity.utilization:.0%}" if capacity else "",
    )


def _bill(plan: Plan) -> Grid:
    option = planned(plan)
    parts = option.bill.components if option is not None and option.bill is not None else ()
    name = option.name if option is not None else ""
    return Grid(
        title=f"Monthly cost of {name}",
        columns=("part", "USD/month", "low", "high", "formula", "source"),
        rows=tuple(
            (
                part.name,
                f"{part.mean:,.2f}",
                f"{part.low:,.2f}",
                f"{part.high:,.2f}",
                part.formula,
                part.source,
            )
            for part in parts
        ),
    )


def planned(plan: Plan) -> Option | None:
    """The installation that was compared with the APIs."""
    if plan.curve is None:
        return None
    return next((row for row in plan.options if row.name == plan.curve.option), None)


def _break_evens(rows: Sequence[BreakEven]) -> Grid:
    ordered = sorted(rows, key=lambda row: row.usd_month_against)
    return Grid(
        title="Break-even of self-hosting",
        columns=("against", "USD/month", "from tokens/month", "in use", "months",
                 "wins now", "wins over the horizon"),
        rows=tuple(
            (
                row.against,
                money(row.usd_month_against, "").strip(),
                _volume(row),
                f"{row.utilization:.0%}" if row.utilization is not None else "",
                f"{row.months:.1f}" if row.months is not None else "never",
                f"{row.probability_now:.0%}",
                f"{row.probability_horizon:.0%}",
            )
            for row in ordered
        ),
    )  # fmt: skip


def _volume(row: BreakEven) -> str:
    if row.volume_tokens_month is not None:
        return f"{row.volume_tokens_month / 1e6:,.0f}M"
    return "" if row.kind == "rent" else "not with these machines"


def _sensitivity(plan: Plan) -> Grid:
    return Grid(
        title="Sensitivity: monthly saving of self-hosting over the horizon, USD",
        columns=("factor", "from", "saving", "to", "saving", "turns the answer"),
        rows=tuple(
            (
                row.factor,
                f"{row.low:.3g} {row.unit}",
                f"{row.saving_low_usd_month:,.0f}",
                f"{row.high:.3g} {row.unit}",
                f"{row.saving_high_usd_month:,.0f}",
                "yes" if row.turns else "no",
            )
            for row in plan.sensitivity
        ),
    )


def _hybrid(plan: Plan) -> Grid:
    if plan.hybrid is None:
        return Grid(title="", columns=(), rows=())
    split = plan.hybrid
    title = f"Hybrid: {split.option} and {split.api}"
    if split.usd_month is not None and split.usd_month_cloud_only is not None:
        title += (
            f", {money(split.usd_month)} a month"
            f" (all in the cloud {money(split.usd_month_cloud_only)})"
        )
    return Grid(
        title=title,
        columns=("task", "share", "where", "local", "cloud", "reason"),
        rows=tuple(
            (
                row.task,
                f"{row.share:.0%}" if row.share is not None else "",
                row.where,
                _score(row.local_score),
                _score(row.cloud_score),
                row.reason,
            )
            for row in split.slices
        ),
    )


def _score(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else "not published"


def _task_models(plan: Plan) -> Grid:
    return Grid(
        title="Small models made for this task",
        columns=("model", "benchmark", "score", "cloud", "its score", "its price", "MB", "source"),
        rows=tuple(
            (
                row.name,
                row.benchmark,
                f"{row.score:g}" if row.score is not None else "not published",
                row.cloud,
                f"{row.cloud_score:g}" if row.cloud_score is not None else "not published",
                row.cloud_price or "not published",
                f"{row.size_mb:g}" if row.size_mb is not None else "",
                row.source,
            )
            for row in plan.task_models
        ),
    )


def _licenses(plan: Plan) -> Grid:
    return Grid(
        title="Licenses of the models compared",
        columns=("license", "asks", "to be decided", "source"),
        rows=tuple(
            (
                verdict.name,
                "; ".join(duty.text for duty in verdict.duties),
                "; ".join(duty.open_question or "" for duty in verdict.undecided),
                verdict.source,
            )
            for verdict in plan.licenses
        ),
    )


def explain(plan: Plan) -> list[str]:
    """Formula, inputs and source of every figure of the compared installation and the APIs."""
    lines = []
    option = planned(plan)
    if option is not None and option.bill is not None and option.capacity is not None:
        for part in option.bill.components:
            span = f"{part.mean:,.2f} ({part.low:,.2f}-{part.high:,.2f}) USD/month"
            lines.append(f"{part.name} {span} = {part.formula}; {part.source}")
        found = option.capacity
        lines += [
            f"capacity {found.output_tokens_s.mean:,.0f} output tok/s per replica"
            f" ({found.output_tokens_s.low:,.0f}-{found.output_tokens_s.high:,.0f});"
            f" {found.output_tokens_s.source}",
            f"replicas {found.replicas}: {found.binds}; in use {found.utilization:.1%} ="
            f" mean output of the used hours / ({found.replicas} x capacity)",
            f"first token after {found.ttft_s.mean:.2f} s ({found.ttft_s.low:.2f}-"
            f"{found.ttft_s.high:.2f}) = prompt / prefill; {found.ttft_s.source}",
        ]
        for name in option.bill.missing:
            lines.append(f"not counted, nobody has published it: {name}")
    for even in plan.break_evens:
        lines.append(f"break-even against {even.against} = {even.formula}"
                     + (f"; {even.reason}" if even.reason else ""))  # fmt: skip
    for row in plan.options:
        if row.api is not None:
            api = row.api
            lines.append(
                f"{api.name}: {api.input_mtok:g} in, {api.output_mtok:g} out"
                + (f", {api.cache_read_mtok:g} cached" if api.cache_read_mtok is not None else "")
                + f" USD/Mtok; {api.source}"
                + (f", {api.as_of}" if api.as_of else "")
            )
    lines.append(
        "probability: 2,000 draws (fixed seed) from the interval of each cost part, of the speed"
        " and of the fall of API prices; half of the draws on each side of the central figure"
    )
    return lines


def plot(curve: Curve, *, width: int = 64, height: int = 14) -> list[str]:
    """Monthly cost over volume as text: `o` the installation, `.` its band, letters the APIs."""
    points = curve.points
    costs = [c for p in points for c in (p.low, p.high, *p.apis) if c > 0] or [1.0]
    low, high = math.log10(min(costs)), math.log10(max(costs))
    rows = [[" "] * width for _ in range(height)]

    def level(cost: float) -> int:
        share = (math.log10(max(cost, 10**low)) - low) / (high - low or 1)
        return height - 1 - round(share * (height - 1))

    for column in range(width):
        point = points[round(column / (width - 1) * (len(points) - 1))]
        for row in range(level(point.high), level(point.low) + 1):
            rows[row][column] = "."
        for number, price in enumerate(point.apis):
            rows[level(price)][column] = _LETTERS[number % len(_LETTERS)]
        rows[level(point.mean)][column] = "o"
    lines = [
        f"{10 ** (high - (high - low) * n / (height - 1)):>12,.0f} |" + "".join(row)
        for n, row in enumerate(rows)
    ]
    start, end = points[0].tokens_month / 1e6, points[-1].tokens_month / 1e6
    lines.append(f"{'USD/month':>12} +" + "-" * width)
    lines.append(f"{'':>14}{start:,.1f}M tokens a month to {end:,.0f}M, planned in the middle")
    lines.append(f"{'':>14}o {curve.option}, . its range")
    lines += [f"{'':>14}{_LETTERS[n]} {name}" for n, name in enumerate(curve.apis)]
    return lines


def notes(plan: Plan) -> list[str]:
    """What the figures rest on."""
    found = [f"prices: {plan.price_list}"]
    found += [f"no price known: {name}" for name in plan.missing]
    found += [f"assumed: {line}" for line in plan.assumptions]
    return found


def markdown(plan: Plan) -> str:
    """For pasting."""
    advice = plan.recommendation
    lines = [f"# Plan: {plan.workload.name}", "", f"**{advice.summary}**", ""]
    lines += [f"- for self-hosting: {text}" for text in advice.reasons_for]
    lines += [f"- against self-hosting: {text}" for text in advice.reasons_against]
    for grid in grids(plan):
        lines += ["", f"## {grid.title}", ""]
        lines.append("| " + " | ".join(grid.columns) + " |")
        lines.append("|" + " --- |" * len(grid.columns))
        lines += ["| " + " | ".join(_cell(text) for text in row) + " |" for row in grid.rows]
    lines += ["", *(f"- {line}" for line in notes(plan)), ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
