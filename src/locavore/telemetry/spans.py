"""A call's record as OpenTelemetry spans, by the semantic conventions for generative AI.

One span for the call, as a server sees it, and under it one client span for each attempt, which
has the tokens and the cost: so a sum over client spans counts nothing twice. Names are those of
conventions 1.41.0, the last version before they moved to a repository of their own; cost and
places have no name there and stand under `locavore.`. No text, no key, no name of a person.
"""

import hashlib
import re

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from locavore import __version__
from locavore.core.money import Cost
from locavore.core.outcome import Attempt, CallRecord
from locavore.core.trace import Parent, parent_of
from locavore.telemetry.conventions import operation, provider

SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
SCOPE = InstrumentationScope("locavore", __version__, SCHEMA)
Value = str | bool | int | float
_UNSAFE = re.compile(r"[^\x20-\x7e]")


def spans(record: CallRecord, resource: Resource) -> list[ReadableSpan]:
    """The call's span and its attempts'. The same record gives the same ids."""
    parent = parent_of(record.trace)
    trace_id = parent.trace_id if parent else _trace_id(record.parent_id or record.id)
    above = _remote(parent) if parent else None
    if above is None and record.parent_id:  # a judge's, a shadow's: below the call that caused it
        above = _context(trace_id, _span_id(record.parent_id))
    call = _context(trace_id, _span_id(record.id))
    return [
        _call_span(record, call, above, resource),
        *(_attempt_span(record, attempt, call, resource) for attempt in record.attempts),
    ]


def sampled(made: list[ReadableSpan], sampler: Sampler) -> list[ReadableSpan]:
    """All spans of a call, or none, as the sampler decides on the first: the call's own."""
    call = made[0]
    theirs = call.parent is not None and call.parent.is_remote
    above = set_span_in_context(NonRecordingSpan(call.parent)) if theirs and call.parent else None
    answer = sampler.should_sample(above, call.context.trace_id, call.name, call.kind)
    return made if answer.decision is Decision.RECORD_AND_SAMPLE else []


def _call_span(
    record: CallRecord, context: SpanContext, above: SpanContext | None, resource: Resource
) -> ReadableSpan:
    return ReadableSpan(
        name=f"{operation(record.format)} {_name(record.decision.requested)}",
        context=context,
        parent=above,
        resource=resource,
        attributes=_call_attributes(record),
        kind=SpanKind.SERVER,
        instrumentation_scope=SCOPE,
        status=Status(StatusCode.ERROR if record.outcome == "failed" else StatusCode.UNSET),
        start_time=_ns(record.started_s),
        end_time=_ns(record.started_s + record.duration_s),
    )


def _call_attributes(record: CallRecord) -> dict[str, Value]:
    decision = record.decision
    found: dict[str, Value | None] = {
        "gen_ai.operation.name": operation(record.format),
        "gen_ai.request.model": _name(decision.requested),
        "gen_ai.request.stream": record.stream,
        "gen_ai.conversation.id": _digest(record.session, 8).hex() if record.session else None,
        "http.response.status_code": record.status,
        "error.type": str(record.status) if record.outcome == "failed" else None,
        "locavore.decision.id": record.id,
        "locavore.outcome": record.outcome,
        "locavore.chosen": decision.chosen,
        "locavore.task": decision.facts.task,
        "locavore.stage": decision.stage,
        "locavore.attempts": len(record.attempts),
        "locavore.baseline.cost_usd": _usd(record.baseline_cost),
    }
    return {name: value for name, value in found.items() if value is not None}


def _attempt_span(
    record: CallRecord, attempt: Attempt, call: SpanContext, resource: Resource
) -> ReadableSpan:
    return ReadableSpan(
        name=f"{operation(record.format)} {attempt.model}",
        context=_context(call.trace_id, _span_id(f"{record.id}/{attempt.id}")),
        parent=call,
        resource=resource,
        attributes=_attempt_attributes(record, attempt),
        kind=SpanKind.CLIENT,
        instrumentation_scope=SCOPE,
        status=Status(StatusCode.ERROR if attempt.fault else StatusCode.UNSET),
        start_time=_ns(attempt.started_s),
        end_time=_ns(attempt.started_s + attempt.duration_s),
    )


def _attempt_attributes(record: CallRecord, attempt: Attempt) -> dict[str, Value]:
    usage = attempt.usage
    found: dict[str, Value | None] = {
        "gen_ai.operation.name": operation(record.format),
        "gen_ai.provider.name": provider(attempt.provider),
        "gen_ai.request.model": attempt.model,
        "gen_ai.request.stream": record.stream,
        "gen_ai.response.time_to_first_chunk": attempt.ttft_s,
        "error.type": attempt.fault,
        "http.response.status_code": attempt.status,
        "locavore.attempt.kind": attempt.kind,
        "locavore.backend": attempt.backend,
        "locavore.place": attempt.place,
        "locavore.cost_usd": _usd(attempt.cost),
        "locavore.cost.source": attempt.cost.source if attempt.cost else None,
    }
    if usage is not None:
        found |= {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
            "locavore.usage.estimated": usage.estimated or None,
        }
    return {name: value for name, value in found.items() if value is not None}


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1))


def _remote(parent: Parent) -> SpanContext:
    flags = TraceFlags(parent.flags)
    return SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)


def _trace_id(text: str) -> int:
    return int.from_bytes(_digest(text, 16), "big") or 1


def _span_id(text: str) -> int:
    return int.from_bytes(_digest(text, 8), "big") or 1


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def _ns(unix_s: float) -> int:
    return int(unix_s * 1e9)


def _usd(cost: Cost | None) -> float | None:
    return None if cost is None or cost.usd is None else float(cost.usd)


def _name(requested: str) -> str:
    """A model as a client wrote it: bounded, and printable."""
    return _UNSAFE.sub("?", requested[:128])
