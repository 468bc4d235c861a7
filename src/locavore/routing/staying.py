"""How likely the answer to a request is to stay local, told before it is tried.

Counted on the labelled calls: of those whose request told about as much, how many answers the
promise would have kept. The groups depend on the requests alone, so a stricter promise, which keeps
fewer answers, never makes an attempt look likelier.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import msgspec

from locavore.core.estimate import Estimate

MOST_GROUPS = 5
_LEAST_CALLS = 20
"""In a group."""
_Z = 1.96


class Stays(msgspec.Struct, frozen=True, kw_only=True):
    """Groups of labelled calls by the gain their requests told, from the least on."""

    edges: tuple[float, ...]
    """Gain from which on the next group begins."""
    stayed: tuple[int, ...]
    calls: tuple[int, ...]

    def __call__(self, gain: float) -> Estimate:
        group = bisect_right(self.edges, gain)
        return share_of(self.stayed[group], self.calls[group])


def count(gains: Sequence[float], stayed: Sequence[bool]) -> Stays:
    """`gains`: what each request told; `stayed`: whether its answer would have been kept."""
    order = sorted(range(len(gains)), key=gains.__getitem__)
    groups = max(1, min(MOST_GROUPS, len(order) // _LEAST_CALLS))
    cuts = [k * len(order) // groups for k in range(groups + 1)]
    parts = [order[a:b] for a, b in pairwise(cuts)]
    return Stays(
        edges=tuple(gains[part[0]] for part in parts[1:]),
        stayed=tuple(sum(stayed[i] for i in part) for part in parts),
        calls=tuple(map(len, parts)),
    )


def share_of(stayed: int, calls: int) -> Estimate:
    """With its 95 % interval (Wilson 1927)."""
    n = max(calls, 1)
    share = stayed / n
    middle = (share + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
    half = _Z / (1 + _Z * _Z / n) * sqrt(share * (1 - share) / n + _Z * _Z / (4 * n * n))
    return Estimate(
        mean=share,
        low=max(0.0, min(middle - half, share)),
        high=min(1.0, max(middle + half, share)),
        n=calls,
        source="labelled calls",
        unit="probability",
    )
