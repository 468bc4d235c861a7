"""How good a backend is on a task, as a share of the baseline's score: catalog priors.

A prior is a published benchmark score (`Backend.quality`, raw, in [0, 1]). What is learned from
traffic later answers the same question through the same signature.
"""

from collections.abc import Iterable
from typing import Protocol

from locavore.core.backend import Backend
from locavore.core.estimate import Estimate

BASELINE = Estimate.exact(1.0, source="baseline")


class Quality(Protocol):
    """Quality relative to the baseline on a task class; None: unknown."""

    def __call__(self, backend: Backend, task: str) -> Estimate | None: ...


class Priors:
    """Relative quality from raw benchmark scores.

    The reference is the baseline; without one it is the best score among the candidates, so that a
    floor still means "nearly as good as the best there is".
    """

    def __init__(self, candidates: Iterable[Backend], baseline: Backend | None) -> None:
        self._baseline = baseline
        self._candidates = tuple(candidates)

    def __call__(self, backend: Backend, task: str) -> Estimate | None:
        if self._baseline is not None and backend.id == self._baseline.id:
            return BASELINE
        score, reference = backend.quality.get(task), self._reference(task)
        if score is None or reference is None or reference.mean <= 0:
            return None
        return relative(score, reference)

    def _reference(self, task: str) -> Estimate | None:
        if self._baseline is not None:
            return self._baseline.quality.get(task)
        known = [b.quality[task] for b in self._candidates if task in b.quality]
        return max(known, key=lambda e: e.mean, default=None)


def relative(score: Estimate, reference: Estimate) -> Estimate:
    """Ratio of two scores; its interval takes both at their worst."""
    if score is reference:
        return Estimate.exact(1.0, source=f"{score.source} (best candidate)")
    tiny = 1e-9
    return Estimate(
        mean=score.mean / max(reference.mean, tiny),
        low=score.low / max(reference.high, tiny),
        high=score.high / max(reference.low, tiny),
        n=score.n,
        source=f"{score.source} / {reference.source}",
    )
