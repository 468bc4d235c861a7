"""Recompute what others publish: every figure from its inputs, against physics and itself.

Verdicts: `holds`, `approximate`, `wrong`, `doubtful` (outside knowledge speaks against it), and
`note` for a figure the text leaves out. They come from the checks, never from a list.
"""

from collections.abc import Iterable

import msgspec

from locavore.core.errors import RequestError
from locavore.planner.audit_checks import Finding, run
from locavore.planner.claims import Claim

_RANK = {"note": 0, "holds": 1, "approximate": 2, "doubtful": 3, "wrong": 4}
VERDICTS = tuple(_RANK)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One audited claim."""

    seed: str
    table: str
    claim: str
    formula: str
    recomputed: str
    verdict: str
    comment: str = ""


def audit(claims: Iterable[Claim]) -> list[Verdict]:
    """A verdict per claim. Raises RequestError naming the claim that cannot be computed."""
    return [verdict(claim) for claim in claims]


def verdict(claim: Claim) -> Verdict:
    try:
        findings = [run(part, claim.inputs) for part in claim.parts]
    except RequestError as error:
        raise RequestError(f"claim {claim.text!r}: {error.message}") from error
    return Verdict(
        seed=claim.seed,
        table=claim.table,
        claim=claim.text,
        formula="; ".join(f.formula for f in findings),
        recomputed="; ".join(f.recomputed for f in findings),
        verdict=_joined(findings),
        comment="; ".join(f.comment for f in findings if f.comment),
    )


def _joined(findings: list[Finding]) -> str:
    """The worst of the parts; a wrong premise makes a claim approximate at best."""
    own = [f.verdict for f in findings if not f.premise]
    worst = max(own, key=_RANK.__getitem__)
    shaken = any(f.premise and f.verdict in ("wrong", "doubtful") for f in findings)
    return "approximate" if shaken and worst == "holds" else worst


def tally(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Verdict -> count, in the order of severity."""
    counts = dict.fromkeys(_RANK, 0)
    for v in verdicts:
        counts[v.verdict] += 1
    return {name: count for name, count in counts.items() if count}
