"""Achieved quality beside what was promised, in words and tables."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby

import msgspec
from rich.console import Console

from locavore.cli.tables import table
from locavore.core.estimate import Estimate
from locavore.evidence.achieved import Achieved

_FIGURES = ("promised", "expected", "achieved", "judged", "right form", "agree")


def facts_of(found: Achieved) -> dict[str, object]:
    """As JSON: every figure, and in words what is claimed."""
    facts: dict[str, object] = msgspec.to_builtins(found)
    return facts | {"missing": found.missing, "claim": claim(found), "status": status(found)}


def show(lines: Sequence[Achieved], console: Console) -> None:
    """A table of all promises and their task classes, and a sentence or two about each."""
    shown = table(
        ("local model, task", *_FIGURES),
        title="Quality, as a share of the cloud model's",
        right=_FIGURES,
        whole=_FIGURES,
    )
    for line in lines:
        name = line.local if line.task is None else f"  {line.task}"
        shown.add_row(name, *_cells(line))
    console.print(shown)
    for _, of_promise in groupby(lines, key=lambda line: line.promise):
        for sentence in _sentences(next(of_promise)):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _cells(line: Achieved) -> tuple[str, ...]:
    whole = line.task is None
    return (
        f"{line.target:.1%}" if whole else "",
        f"{line.expected.mean:.1%}" if whole else "",
        _narrow(line.quality),
        f"{line.judged:,}\nof {line.explored:,}",
        _narrow(line.form),
        "-" if line.agreement is None else f"{line.agreement.mean:.0%}",
    )


def _interval(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.mean:.1%} ({found.low:.1%} - {found.high:.1%})"


def _narrow(found: Estimate | None) -> str:
    """On two lines, so that a table has room for it in 80 columns."""
    if found is None:
        return "-"
    return f"{found.mean:.1%}\n({found.low * 100:.1f}-{found.high:.1%})"


def claim(line: Achieved) -> str:
    """What the promise says, and how surely."""
    return (
        f"{line.local} instead of {line.cloud}: at least {line.target:.1%} of its quality, with "
        f"{line.confidence:.0%} confidence over the draw of {line.labels:,} labels "
        f"(basis: {line.basis}); {line.expected.mean:.1%} in expectation"
    )


def status(line: Achieved) -> str:
    """How it stands."""
    if line.withdrawn is not None:
        broken = line.withdrawn
        day = datetime.fromtimestamp(broken.at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return (
            f"WITHDRAWN {day}: {broken.judged} was {_interval(broken.achieved)} over "
            f"the last {broken.achieved.n:,} judged calls. Its calls go to the cloud until "
            "`locavore calibrate` makes a new promise."
        )
    if line.quality is None:
        return _no_evidence(line)
    found = line.quality
    said = (
        f"Achieved {_interval(found)}, from verdicts on {line.judged:,} of {line.explored:,} "
        "explored calls; the 95 % interval holds however often one looks."
    )
    if found.low >= line.target:
        return f"{said} The promise is confirmed."
    if line.missing:
        return f"{said} About {line.missing:,} more judged calls like these could confirm it."
    return f"{said} That is not above the promise; it is withdrawn when it cannot be chance."


def _no_evidence(line: Achieved) -> str:
    if not line.explored:
        return (
            f"No evidence yet: no call was explored. It needs about {line.needed:,} judged calls; "
            "`explore.share` says how many calls are explored."
        )
    return (
        f"No evidence yet: needs about {line.missing:,} judged calls; {line.explored:,} calls were "
        f"explored, {line.kept:,} of them served at home, and none of these is judged. "
        "`locavore verdicts pending` lists what could be judged."
    )


def _sentences(line: Achieved) -> Iterable[str]:
    yield f"Promised: {claim(line)}."
    yield status(line)
    if line.agreement is not None:
        yield (
            f"Both models said the same in {_interval(line.agreement)} of {line.agreement.n:,} "
            "pairs; that is agreement, not quality."
        )
