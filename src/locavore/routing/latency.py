"""How long the first token takes, from the prompt's length and the speed it is read at."""

from locavore.core.backend import Backend
from locavore.core.decision import Facts
from locavore.core.estimate import Estimate


def forecast_ttft_s(backend: Backend, facts: Facts) -> Estimate | None:
    """Seconds of prefill; None: unknown, or not what bounds this backend.

    tokens / (tokens per second); waiting for a slot and cached prefixes are not in it.
    """
    speed = backend.prefill_tokens_s
    if speed is None:
        return None
    tokens = facts.input_tokens
    return Estimate(
        mean=tokens.mean / speed,
        low=tokens.low / speed,
        high=tokens.high / speed,
        source="prefill speed",
        unit="s",
    )
