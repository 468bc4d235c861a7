"""What a backend may not serve: each limit is a reason with the figures behind it.

Limits come in two kinds. `excluded` depends on what a call is like (needs, format, labels) and is
the same for every call of that kind, so it can be kept; `overruns` depends on how large this one
is.
"""

from locavore.core.backend import Backend, Capability, Place
from locavore.core.decision import Facts
from locavore.core.policy import Require
from locavore.core.request import Request
from locavore.wire.formats import untranslatable

_KINDS = frozenset({Capability.CHAT, Capability.EMBEDDINGS, Capability.COUNT_TOKENS})
"""Needs that are no more than the kind of call. COMPLETIONS and RESPONSES are more: a request has
them only when it holds something that no other format can say."""

UNKNOWN_WINDOW_TOKENS = 4096
"""What a self-hosted engine of unknown window is trusted with: Ollama's default, beyond which it
cuts the prompt silently. A public API of unknown window refuses what is too long, honestly."""

EU = frozenset(
    {"AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE"}
    | {"IT", "LV", "LT", "LU", "MT", "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE"}
)


def embeds(request_format: str) -> bool:
    return request_format == "openai_embeddings"


def excluded(
    backend: Backend,
    limits: Require,
    *,
    needs: frozenset[str],
    request_format: str,
    named: bool,
) -> tuple[list[str], list[str]]:
    """(reasons against it, notes for it) that hold for every call of this kind.

    A capability nobody has checked excludes a backend that was chosen for the client, and is only
    noted where the client named it.
    """
    against = _against_data(backend, limits)
    if limits.backends is not None and backend.id not in limits.backends:
        against.append("not_listed")
    if limits.known_price and backend.price is None:
        against.append("price_unknown: required by a limit")
    if limits.max_cost_usd is not None and backend.price is None:
        against.append(f"price_unknown: a cost limit of ${limits.max_cost_usd} holds")
    missing, unchecked = _capabilities(backend, needs | limits.capabilities, request_format)
    against += [f"capability_missing: {name}" for name in missing]
    against += [f"untranslatable: {name}" for name in _wordless(backend, needs, request_format)]
    if named:
        return against, [f"capability_unchecked: {name}" for name in unchecked]
    return against + [f"capability_unknown: {name}" for name in unchecked], []


def _against_data(backend: Backend, limits: Require) -> list[str]:
    """Limits on where the data may go."""
    against = []
    place = limits.farthest
    if place is not None and backend.place > place:
        against.append(f"place: {backend.place.label} is farther than {place.label}")
    if not _lies_in(backend, limits.jurisdictions):
        against.append(f"jurisdiction: {backend.jurisdiction or 'unknown'}")
    return against


def _lies_in(backend: Backend, allowed: frozenset[str] | None) -> bool:
    if allowed is None:
        return True
    here = backend.jurisdiction
    if here is None:  # what stands on our own ground is where we are; anything else is unknown
        return backend.place <= Place.ON_PREM
    return here in allowed or (here in EU and "EU" in allowed)


def _capabilities(
    backend: Backend, needs: frozenset[str], request_format: str
) -> tuple[list[str], list[str]]:
    """(known to be missing, unknown), sorted."""
    missing, unknown = [], []
    embedder = Capability.EMBEDDINGS in backend.capabilities
    if embeds(request_format):
        if not embedder:
            missing.append(Capability.EMBEDDINGS.value)
    elif embedder and Capability.CHAT not in backend.capabilities:
        missing.append(Capability.CHAT.value)
    for need in sorted(needs - _KINDS):
        if need in backend.lacks:
            missing.append(need)
        elif need not in backend.capabilities:
            unknown.append(need)
    return missing, unknown


def _wordless(backend: Backend, needs: frozenset[str], request_format: str) -> tuple[str, ...]:
    """What the call holds and Anthropic messages have no field for."""
    if backend.dialect != "anthropic" or request_format.startswith("anthropic"):
        return ()
    call = Request(format=request_format, model=backend.id, body=b"", needs=needs)
    return untranslatable(call, "anthropic_messages")


def output_budget(request: Request, facts: Facts, backend: Backend) -> int:
    """Output tokens to keep free. A budget of our own choosing never fills a small window."""
    if request.max_output_tokens is not None:
        return request.max_output_tokens
    budget = facts.output_tokens
    if backend.max_output_tokens is not None:
        budget = min(budget, backend.max_output_tokens)
    if backend.context_tokens is not None:
        budget = min(budget, backend.context_tokens // 4)
    return budget


def over_window(request: Request, facts: Facts, backend: Backend, *, named: bool) -> str | None:
    """Why prompt and output do not fit; None: they do.

    The prompt is counted on the safe side for a backend chosen for the client. One the client named
    is refused only what cannot fit by any tokenizer: the engine knows its own better.
    """
    window, tokens = backend.context_tokens, facts.input_tokens
    if window is None:
        if named or not backend.place.local:
            return None
        window = UNKNOWN_WINDOW_TOKENS
    asked = request.max_output_tokens
    if tokens.high + (facts.output_tokens if asked is None else asked) <= window:
        return None  # most calls: with the most that it could be, it fits
    prompt = int(tokens.low if named else tokens.high)
    budget = output_budget(request, facts, backend)
    if prompt + budget <= window:
        return None
    unknown = " (window unknown)" if backend.context_tokens is None else ""
    return f"context: {prompt} prompt + {budget} output tokens > {window}{unknown}"


def over_output(request: Request, backend: Backend) -> str | None:
    asked, most = request.max_output_tokens, backend.max_output_tokens
    if asked is None or most is None or asked <= most:
        return None
    return f"output: {asked} tokens asked, {most} at most"
