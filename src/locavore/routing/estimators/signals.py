"""What a gateway can see of a local answer, as numbers."""

from math import log, log1p

import msgspec

SIGNALS = 5


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """Seen once the local model has answered."""

    agreement: float | None = None
    """Share (0..1) of other local samples, or other small local models, with the same answer."""
    no_answer: bool = False
    """Empty, a refusal, cut off, or against the schema that was asked for."""
    out_tok: int = 0
    """Tokens of the answer."""
    mean_logprob: float | None = None
    """Mean log-probability of the answer's tokens, where the engine gives it."""


def numbers(signals: Signals, chars: int) -> list[float]:
    """`SIGNALS` numbers; `chars` is the prompt's length."""
    said = log1p(signals.out_tok)
    agreement = 0.5 if signals.agreement is None else signals.agreement
    sure = -1.0 if signals.mean_logprob is None else max(signals.mean_logprob, -5.0)
    return [agreement, float(signals.no_answer), said, said - log(1 + chars), sure]
