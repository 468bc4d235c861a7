"""80 % intervals from held-out errors, by class of situation."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from benchmarks.planner.fit_errors import Result, known_paths
from benchmarks.planner.fit_rows import TIMES, Measured
from benchmarks.planner.solver import Array
from locavore.planner.coefficients import class_keys

SMALLEST_BAND = 25
FEWEST_GROUPS = 1.6


class Bands:
    """Collects held-out log errors by class and turns them into 80 % factors.

    A class counts when its rows come from several machines and models, and falls back to a more
    general one if not.
    """

    def __init__(self) -> None:
        self.errors: dict[str, list[tuple[float, Hashable, Hashable]]] = {}
        self.held: list[tuple[str, str, float, list[str]]] = []

    def add(self, result: Result) -> None:
        """Take the errors of one fit, held out by hardware and by model.

        An error is log(measured / predicted) of the speed or time itself. Samples are times, so
        a speed's ratio is predicted time over measured time.
        """
        rows, views = result.task.rows, result.views
        elsewhere = set(known_paths(rows))
        for view in ("hardware", "model"):
            for i, m in enumerate(rows):
                known = "seen" if view == "model" else ("path" if i in elsewhere else "new")
                sign = -1.0 if m.metric in TIMES else 1.0
                error = sign * float(np.log(views[view][i] / m.sample.value))
                entry = (error, m.hardware, m.model)
                keys = class_keys(m.metric, m.point, m.tier, known)
                self.held.append((view, m.metric, error, keys))
                for key in keys:
                    self.errors.setdefault(key, []).append(entry)
        self._add_anchored(rows, views)

    def coverage(self) -> dict[str, dict[str, float]]:
        """view -> metric (or `all`) -> % of held-out measurements inside their interval."""
        bands = self.factors()
        inside: dict[str, dict[str, list[bool]]] = {}
        for view, metric, error, keys in self.held:
            band = next((bands[k] for k in reversed(keys) if k in bands), bands["all"])
            found = bool(band["low"] <= np.exp(error) <= band["high"])
            for name in (metric, "all"):
                inside.setdefault(view, {}).setdefault(name, []).append(found)
        return {
            view: {name: round(100 * float(np.mean(found)), 1) for name, found in metrics.items()}
            for view, metrics in inside.items()
        }

    def _add_anchored(self, rows: Sequence[Measured], views: dict[str, Array]) -> None:
        """Errors when another model's run on the same machine and engine scales a prediction.

        Controlled runs only: a calibration here is one.
        """
        held = views["hardware"]
        situations: dict[Hashable, list[int]] = {}
        for i in known_paths(rows):
            m = rows[i]
            if m.tier == "A" and m.metric in ("decode", "prefill") and m.point.setting.devices == 1:
                key = (m.metric, m.point.machine.name, m.point.setting.engine)
                situations.setdefault(key, []).append(i)
        for members in situations.values():
            for i in members:
                other = next((j for j in members if rows[j].model != rows[i].model), None)
                if other is None:
                    continue
                scale = rows[other].sample.value / held[other]
                error = float(np.log(held[i] * scale / rows[i].sample.value))
                entry = (error, rows[i].hardware, rows[i].model)
                self.errors.setdefault(f"anchored/{rows[i].metric}", []).append(entry)

    def factors(self) -> dict[str, dict[str, float]]:
        """Factors on a prediction: the middle 80 % of a class's measured over predicted."""
        out = {}
        for key, entries in sorted(self.errors.items()):
            if key != "all" and not _diverse(entries):
                continue
            error = np.array([e for e, _, _ in entries])
            low, high = np.quantile(error, (0.1, 0.9))
            out[key] = {
                "low": float(f"{min(np.exp(low), 0.95):.3g}"),
                "high": float(f"{max(np.exp(high), 1.05):.3g}"),
                "n": len(entries),
            }
        return out


def _diverse(entries: Sequence[tuple[float, Hashable, Hashable]]) -> bool:
    """Enough rows, and no one machine or model dominates (inverse Simpson index)."""
    if len(entries) < SMALLEST_BAND:
        return False
    shares = [Counter(entry[i] for entry in entries) for i in (1, 2)]
    return all(
        len(entries) ** 2 / sum(n * n for n in count.values()) >= FEWEST_GROUPS for count in shares
    )
