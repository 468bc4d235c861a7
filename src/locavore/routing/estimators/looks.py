"""What a stage sees of a call: its score, and the numbers that labels may re-weigh."""

from math import log1p

from locavore.routing.estimators.pair import PostModel, PreModel, Stage, familiarity
from locavore.routing.estimators.signals import Signals, numbers
from locavore.routing.estimators.trunk import Reading
from locavore.routing.promise import Look


def score_of(stage: Stage, reading: Reading, prompt: str, signals: Signals | None) -> float:
    """Expected gain of staying local, in score. Raises ValueError for a stage that looks at
    answers where there are no signals."""
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
        familiarity=familiarity(stage.model.words.known(reading.grams)),
        artifact=reading.artifact,
    )
