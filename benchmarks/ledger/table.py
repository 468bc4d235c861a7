"""Results as the table in docs/explain/money.md."""

from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "explain" / "money.md"
BEGIN, END = "<!-- ledger results: begin -->", "<!-- ledger results: end -->"


def write_page(result: dict[str, Any], *, save: bool) -> str:
    """The tables as Markdown; with `save` also between the page's markers."""
    text = "\n".join([_facts(result), "", *_sizes(result), "", *_rates(result)])
    if save:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return text


def _facts(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    return (
        f"{result['date'][:10]}, commit `{result['commit'][:10]}`, {machine['cpu']}, "
        f"{machine['cores']} cores at load {machine['load']:.0f}, CPython {machine['python']}, "
        f"SQLite {versions['sqlite']}, msgspec {versions['msgspec']}; a turn of an empty loop took "
        f"{machine['spin_ns']:.0f} ns."
    )


def _sizes(result: dict[str, Any]) -> list[str]:
    lines = [
        "| calls in the store | append, µs | ingest, µs (median) | report by model, day, key, ms |"
        " store, MiB |",
        "|---|---|---|---|---|",
    ]
    for size in result["sizes"]:
        reports = ", ".join(f"{size[f'report_by_{by}_ms']:g}" for by in ("model", "day", "key"))
        lines.append(
            f"| {size['entries']:,} | {size['append_us']} | {size['ingest_us']} "
            f"({size['ingest_median_us']}) | {reports} | {size['store_mib']:,} |"
        )
    return lines


def _rates(result: dict[str, Any]) -> list[str]:
    steady, idle = result["sustained"], result["sizes"][0]["idle_round_us"]
    lines = [
        "| what | figure |",
        "|---|---|",
        f"| two workers append, one process ingests, calls/s | {steady['calls_per_s']:,} |",
        f"| of these, CPU of the ingesting process, µs per call | {steady['ingest_cpu_us']} |",
        f"| share of one core that it could get | {steady['core_share']:.0%} |",
        f"| its memory grew over {steady['calls']:,} calls by, MiB | {steady['memory_grew_mib']} |",
        f"| a look at an idle journal, once a second, µs | {idle} |",
    ]
    if "postgres" in result:
        found = result["postgres"]
        lines.append(
            "| ingest into PostgreSQL, µs of this process (wall time, the server's part in it) |"
            f" {found['ingest_us']} ({found['ingest_wall_us']}) |"
        )
    for store in ("sqlite", "valkey"):
        for case, figures in result.get(f"{store}_budgets", {}).items():
            lines.append(
                f"| reserve + settle ({store}), {case.replace('_', ' ')}, µs |"
                f" {figures['cpu_us']} |"
            )
    return lines
