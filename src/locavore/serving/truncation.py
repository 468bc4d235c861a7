"""An engine that drops the front of a long prompt and answers all the same is caught (C40)."""

from locavore.core.backend import Backend
from locavore.core.decision import Decision
from locavore.core.errors import Fault, UpstreamError
from locavore.core.money import Usage
from locavore.engines.truncation import truncated


def truncated_by(decision: Decision, backend: Backend, usage: Usage | None) -> UpstreamError | None:
    """The error to give instead of an answer to a prompt that was cut; None: nothing was cut.

    The engine's own count is compared with the low end of our estimate, so a wrong estimate
    accuses nobody. Clouds refuse what is too long and count in units of their own; only engines
    we host are checked.
    """
    if usage is None or not backend.place.local:
        return None
    expected = decision.facts.input_tokens.low
    if not truncated(expected, usage.input_tokens):
        return None
    return UpstreamError(
        f"{backend.id} read only {usage.input_tokens} of at least {expected:.0f} prompt tokens "
        "and answered all the same; the answer was thrown away. Raise the engine's context "
        "window or set context_tokens for this backend.",
        fault=Fault.PROMPT_TRUNCATED,
        backend_id=backend.id,
        status=400,
        code="context_length_exceeded",
    )
