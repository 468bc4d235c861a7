"""The product's router behind interface C of the routing metrics: `make_staged(pair, rows)`.

Everything that decides is in `locavore.routing`; here are only the names that the rows use.
"""

from collections.abc import Sequence
from functools import cache

from benchmarks.routing.outcomes import Row, local_view
from locavore.routing.estimators.looks import look_of, score_of
from locavore.routing.estimators.pair import (
    Labelled,
    Stage,
    fit_stages,
    unlabelled,
    unlabelled_post,
)
from locavore.routing.estimators.signals import Signals
from locavore.routing.estimators.trunk import Trunk, load
from locavore.routing.promise import (
    STRANGE,
    STRANGE_ANSWERED,
    Label,
    Look,
    Promise,
    Target,
    gather,
    general_evidence,
    make_promise,
)

_STRANGE = {"pre": STRANGE, "post": STRANGE_ANSWERED}


class Staged:
    """One pair of models: P(local is good enough) before and after its answer, and the promise."""

    def __init__(self, trunk: Trunk, stages: dict[str, Stage]) -> None:
        self.trunk = trunk
        self.stages = {
            "pre": unlabelled(),
            "post": unlabelled_post(trunk.answers),
            **stages,
        }
        self._looks: dict[tuple[str, str, str], Look] = {}
        shipped = {"pre": trunk.gain_pre, "post": trunk.gain_post}
        self._evidence = {
            name: gather(stage.evidence, _STRANGE[name]) or general_evidence(shipped[name])
            for name, stage in self.stages.items()
        }

    def pre(self, prompt: str) -> float:
        stage = self.stages["pre"]
        return stage.good(score_of(stage, self.trunk.read(prompt), prompt, None))

    def post(self, prompt: str, local: Row) -> float:
        stage = self.stages["post"]
        return stage.good(score_of(stage, self.trunk.read(prompt), prompt, _signals(local)))

    def adapt(self, labels: Sequence[Row], frac: float, confidence: float, stage: str) -> "Adapted":
        labelled = [
            Label(look=self.look(r, stage), weak=r["weak"], strong=r["strong"]) for r in labels
        ]
        target = Target(quality=frac, confidence=confidence)
        return Adapted(self, stage, make_promise(labelled, target, self._evidence[stage]))

    def look(self, row: Row, stage: str) -> Look:
        """Kept per prompt: the same rows are asked for in every draw."""
        key = (stage, row["prompt"], repr(row["local"]))
        if key not in self._looks:
            signals = _signals(row["local"]) if stage == "post" else None
            reading = self.trunk.read(row["prompt"])
            self._looks[key] = look_of(
                self.stages[stage], reading, row["prompt"], row.get("task"), signals
            )
        return self._looks[key]


class Adapted:
    def __init__(self, staged: Staged, stage: str, promise: Promise) -> None:
        self.staged = staged
        self.stage = stage
        self.promise = promise

    def keep(self, rows: Sequence[Row]) -> list[bool]:
        return [self.promise.keeps(self.staged.look(row, self.stage)) for row in rows]


@cache
def _shipped() -> Trunk:
    return load()


def make_staged(pair: Row, dev_records: Sequence[Row], trunk: Trunk | None = None) -> Staged:
    """The router for one pair; without outcomes of the pair, the shipped artifact alone."""
    trunk = trunk or _shipped()
    calls, post = [], []
    for row in dev_records:
        reading = trunk.read(row["prompt"])
        strong = row["scores"][pair["strong"]]
        view = local_view({**row, "file": pair["file"]}, pair["weak"])
        call = Labelled(
            prompt=row["prompt"],
            reading=reading,
            weak=row["scores"][pair["weak"]],
            strong=strong,
            task=row["task"],
        )
        calls.append(call)
        if view is not None:
            post.append(
                Labelled(
                    prompt=call.prompt,
                    reading=reading,
                    weak=view[0],
                    strong=strong,
                    signals=view[1],
                    task=call.task,
                )
            )
    return Staged(trunk, fit_stages(calls, post, general=trunk.answers))


def _signals(local: Row) -> Signals:
    return Signals(
        agreement=local["agreement"], no_answer=local["no_answer"], out_tok=int(local["out_tok"])
    )
