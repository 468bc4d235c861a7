"""The estimators behind one door: `Estimator.estimate(prompt, local, cloud) -> Forecast`.

For a pair of models that calls have been labelled for, its own stages answer; for any other pair
of models the shipped artifact and the two models' benchmark scores do. Whatever goes wrong
(artifact missing or corrupt, a prompt that breaks a feature, too slow), the declared default
comes back, marked as such, and nothing is raised.
"""

from collections.abc import Callable, Mapping
from math import exp, log, log1p
from time import perf_counter

import msgspec

from locavore.core.errors import ConfigError
from locavore.core.estimate import Estimate
from locavore.routing.estimators.pair import PostModel, PreModel, Stage, familiarity
from locavore.routing.estimators.signals import Signals, numbers
from locavore.routing.estimators.trunk import Reading, Trunk
from locavore.routing.promise import Look

DEADLINE_S = 0.005
"""An estimate that took longer is not used: the next calls get the default (C112)."""
_PAUSE = 100
"""Calls that get the default after one that was too slow."""
_RESIDUAL_CORRELATION = 0.3
"""Between two models' successes on one request beyond what the request explains: a judgement, not
a fit. It moves `both_fail` and `both_solve`, not the choice."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of a request on a local and a cloud model."""

    good: Estimate
    """P(the local answer is at least as good)."""
    both_fail: float | None = None
    """P(neither solves it): the cloud would cost and not help."""
    both_solve: float | None = None
    """P(both solve it): the cloud would cost and not be needed."""
    score: float = 0.0
    """Expected gain of staying local, in score; what the promise's threshold is set on."""
    familiarity: float = 0.0
    """0: unlike anything labelled for this pair; 1: like it."""
    default: bool = False
    reason: str = ""


class Estimator:
    """Trunk plus the stages learned per (local model, cloud model)."""

    def __init__(
        self,
        trunk: Trunk,
        pairs: Mapping[tuple[str, str], Mapping[str, Stage]] | None = None,
        ability: Mapping[str, float] | None = None,
    ) -> None:
        self.trunk = trunk
        self.pairs = pairs or {}
        self.ability = ability or {}
        """Model -> benchmark score in (0, 1); of the same benchmark for all of them."""

    def estimate(
        self, prompt: str, local: str, cloud: str, signals: Signals | None = None
    ) -> Forecast:
        reading = self.trunk.read(prompt)
        stages = self.pairs.get((local, cloud), {})
        stage = stages.get("pre" if signals is None else "post")
        if stage is None:
            return self._unseen(reading, local, cloud)
        score = score_of(stage, reading, prompt, signals)
        good = stage.good(score)
        n = len(stage.evidence)
        known = familiarity(_words_known(stage, reading))
        half = 1.96 * (max(good * (1 - good), 0.01) / max(n / 20, 1)) ** 0.5 + 0.1 * (1 - known)
        weak, strong = self._solves(reading, local, cloud)
        fail, solve = _joint(weak, strong)
        return Forecast(
            good=_interval(good, half, n, f"{n} labelled calls of this pair"),
            both_fail=fail,
            both_solve=solve,
            score=score,
            familiarity=known,
        )

    def _unseen(self, reading: Reading, local: str, cloud: str) -> Forecast:
        weak, strong = self._solves(reading, local, cloud)
        if weak is None or strong is None:
            return declared_default("neither labels nor benchmark scores for this pair")
        fail, solve = _joint(weak, strong)
        assert fail is not None and solve is not None  # noqa: S101 - both are known
        lost = max(strong - solve, 0.0)
        return Forecast(
            good=_interval(1 - lost, 0.25, 0, "benchmark scores and the shipped artifact"),
            both_fail=fail,
            both_solve=solve,
            score=weak - strong + 0.1 * reading.generic,
        )

    def _solves(
        self, reading: Reading, local: str, cloud: str
    ) -> tuple[float | None, float | None]:
        """P(solved) by each: its benchmark score, moved by how hard the text looks (Rasch)."""
        weak, strong = self.ability.get(local), self.ability.get(cloud)
        easier = reading.easier
        return (
            None if weak is None else _moved(weak, easier),
            None if strong is None else _moved(strong, easier),
        )


def score_of(stage: Stage, reading: Reading, prompt: str, signals: Signals | None) -> float:
    model = stage.model
    if isinstance(model, PreModel):
        return model(reading)
    if signals is None:
        raise ValueError("the post stage needs the local answer's signals")
    return model(reading, numbers(signals, len(prompt)))


def look_of(
    stage: Stage, reading: Reading, prompt: str, task: str | None, signals: Signals | None
) -> Look:
    """What the promise decides on: the stage's score and a few numbers labels may re-weigh."""
    if isinstance(stage.model, PostModel) and signals is not None:
        agreement = 0.5 if signals.agreement is None else signals.agreement
        covariates: tuple[float, ...] = (
            agreement - 0.5,
            float(signals.no_answer),
            (log1p(signals.out_tok) - 5) / 2,
        )
    else:
        covariates = ((log1p(len(prompt)) - 5.5) / 2, reading.generic, reading.easier)
    return Look(
        prompt=prompt,
        score=score_of(stage, reading, prompt, signals),
        task=task,
        covariates=covariates,
        familiarity=familiarity(_words_known(stage, reading)),
        artifact=reading.artifact,
    )


def _words_known(stage: Stage, reading: Reading) -> float:
    return stage.model.words.known(reading.grams)


def _moved(ability: float, easier: float) -> float:
    p = min(max(ability, 0.01), 0.99)
    return 1 / (1 + exp(-(log(p / (1 - p)) + easier)))


def _joint(weak: float | None, strong: float | None) -> tuple[float | None, float | None]:
    """(P(both fail), P(both solve)), with the successes correlated beyond the request."""
    if weak is None or strong is None:
        return None, None
    shared = _RESIDUAL_CORRELATION * (weak * (1 - weak) * strong * (1 - strong)) ** 0.5
    solve = min(weak * strong + shared, weak, strong)
    return 1 - weak - strong + solve, solve


def _interval(mean: float, half: float, n: int, source: str) -> Estimate:
    return Estimate(
        mean=mean, low=max(mean - half, 0.0), high=min(mean + half, 1.0), n=n, source=source
    )


def declared_default(reason: str) -> Forecast:
    """Nothing is known: the whole interval."""
    return Forecast(
        good=Estimate(mean=0.5, low=0.0, high=1.0, source="default"), default=True, reason=reason
    )


class Guarded:
    """An estimator that never raises and is not waited for twice.

    `load` is called at the first estimate. A call cannot be interrupted, but its cost is bounded
    by what is read of a text; one that still takes longer than `deadline_s` switches the estimator
    off for the next calls.
    """

    def __init__(
        self,
        load: Callable[[], Estimator],
        *,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._load = load
        self._deadline_s = deadline_s
        self._clock = clock
        self._estimator: Estimator | None = None
        self._broken = ""
        self._resting = 0

    def estimate(
        self, prompt: str, local: str, cloud: str, signals: Signals | None = None
    ) -> Forecast:
        if self._estimator is None and not self._broken:
            try:
                self._estimator = self._load()
            except (ConfigError, OSError, ValueError) as error:
                self._broken = f"estimator not available: {error}"
        if self._estimator is None:
            return declared_default(self._broken)
        if self._resting:
            self._resting -= 1
            return declared_default("estimator was too slow")
        begun = self._clock()
        try:
            found = self._estimator.estimate(prompt, local, cloud, signals)
        except Exception as error:  # noqa: BLE001 - a routing model must never fail a call
            return declared_default(f"estimator failed: {type(error).__name__}: {error}")
        if self._clock() - begun > self._deadline_s:
            self._resting = _PAUSE
            return declared_default("estimator was too slow")
        return found
