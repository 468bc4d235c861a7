"""Results as the table in docs/explain/performance.md."""

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gateway.cases import CASES

PAGE = Path(__file__).parents[2] / "docs" / "explain" / "performance.md"
BEGIN, END = "<!-- gateway results: begin -->", "<!-- gateway results: end -->"


def tables(result: dict[str, Any]) -> list[str]:
    """Lines of Markdown: what was measured on, CPU, and everything else."""
    return [*_facts(result), "", *_cpu_table(result), "", *_other_table(result)]


def write_page(lines: list[str], *, save: bool) -> str:
    """The lines as one text; with `save` also between the page's markers."""
    text = "\n".join(lines)
    if save:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return text


def _facts(result: dict[str, Any]) -> list[str]:
    machine = result["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return [
        f"{result['date'][:10]}, commit `{result['commit'][:10]}`, {machine['cpu']}, "
        f"{machine['cores']} cores, Linux {machine['kernel']}, CPython {machine['python']}, "
        f"{versions}.",
    ]


def _cpu_table(result: dict[str, Any]) -> list[str]:
    names = list(dict.fromkeys(sample["stack"] for sample in result["samples"]))
    names = [name for name in names if name != "direct"]
    lines = [
        "CPU µs per request, or per event of a stream: minimum / median over the rounds, and the "
        "median of the ratios to nginx inside each round (to nginx with a TLS upstream for the "
        "`-tls` rows).",
        "",
        f"| stack | {' | '.join(case.name for case in CASES)} |",
        "|---|" + "---|" * len(CASES),
    ]
    for name in names:
        cells = [_cpu_cell(result, name, case.name) for case in CASES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _cpu_cell(result: dict[str, Any], stack: str, case: str) -> str:
    figures = [cpu for _, cpu in cpu_by_round(result, stack, case)]
    if not figures:
        return "-"
    cell = f"{_short(min(figures))} / {_short(median(figures))}"
    ratio = ratio_to_nginx(result, stack, case)
    return f"{cell} ({ratio:.2f} ×)" if ratio is not None else cell


def ratio_to_nginx(result: dict[str, Any], stack: str, case: str) -> float | None:
    """Median over the rounds; `auto` is compared with nginx on the same body."""
    floor = dict(
        cpu_by_round(result, "nginx-tls" if stack.endswith("-tls") else "nginx", _floor(case))
    )
    ratios = [
        cpu / floor[index] for index, cpu in cpu_by_round(result, stack, case) if index in floor
    ]
    return median(ratios) if ratios else None


def _floor(case: str) -> str:
    return case.removesuffix(", auto")


def cpu_by_round(result: dict[str, Any], stack: str, case: str) -> list[tuple[int, float]]:
    """(round, CPU µs per request or event)."""
    return [
        (sample["round"], sample["cpu_us"])
        for sample in result["samples"]
        if (sample["stack"], sample["case"]) == (stack, case) and sample["cpu_us"]
    ]


def _other_table(result: dict[str, Any]) -> list[str]:
    lines = [
        "| stack | added median latency at 100 requests/s, µs | most requests/s | "
        "memory of each process, MB | ready after, s | failed requests |",
        "|---|---|---|---|---|---|",
    ]
    for name in result["rss_mb"]:
        added_us = added_latency_us(result, name)
        sizes = " + ".join(_short(size) for size in result["rss_mb"][name])
        lines.append(
            f"| {name} | {'-' if added_us is None else round(added_us)} | {_most(result, name)} | "
            f"{sizes} | {result['ready_s'][name]} | {_failed(result, name)} |"
        )
    return lines


def added_latency_us(result: dict[str, Any], stack: str) -> float | None:
    """Median answer time minus the median straight to the upstream in the same round."""
    p50 = {
        name: {
            sample["round"]: sample["p50_us"]
            for sample in result["samples"]
            if (sample["stack"], sample["case"]) == (name, "100 requests/s")
        }
        for name in (stack, "direct")
    }
    added = [p50[stack][index] - p50["direct"][index] for index in p50[stack]]
    return median(added) if added else None


def _most(result: dict[str, Any], stack: str) -> str:
    rates = [s["rps"] for s in result["samples"] if s["stack"] == stack and s["case"] == "1.5 KB"]
    return f"{max(rates):,.0f}" if rates else "-"


def _failed(result: dict[str, Any], stack: str) -> int:
    return sum(int(s["errors"]) for s in result["samples"] if s["stack"] == stack)


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"
