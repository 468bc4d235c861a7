"""A record as spans: ids that repeat, parents, and nothing that a client could put into a label."""

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind

from locavore.telemetry.spans import sampled, spans
from tests.ledger.records import attempt, call, decision

NOBODY = Resource.get_empty()
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_the_same_record_gives_the_same_ids_and_another_one_others() -> None:
    one, again = (spans(call("d1", attempt(0), attempt(1)), NOBODY) for _ in range(2))
    assert [s.context for s in one] == [s.context for s in again]
    assert len({s.context.span_id for s in one}) == 3
    other = spans(call("d2", attempt(0)), NOBODY)
    assert other[0].context.trace_id != one[0].context.trace_id
    assert [s.kind for s in one] == [SpanKind.SERVER, SpanKind.CLIENT, SpanKind.CLIENT]


def test_a_judges_call_stands_below_the_call_that_caused_it() -> None:
    cause, judge = spans(call("d1"), NOBODY)[0], spans(call("d2", parent_id="d1"), NOBODY)[0]
    assert judge.parent is not None
    assert (judge.context.trace_id, judge.parent.span_id) == (
        cause.context.trace_id,
        cause.context.span_id,
    )
    assert sampled([judge], ParentBased(ALWAYS_OFF)) == []


def test_the_client_decides_about_a_trace_that_it_began() -> None:
    for flags, kept in (("01", 2), ("00", 0)):
        made = spans(call("d1", trace=f"00-{TRACE}-{SPAN}-{flags}"), NOBODY)
        assert len(sampled(made, ParentBased(ALWAYS_OFF))) == kept


def test_a_name_of_a_client_is_cut_and_printable() -> None:
    asked = decision("d1", requested="x\n\x1b[31m" + "y" * 500)
    (first, *_) = spans(call("d1", decision=asked), NOBODY)
    assert first.name.startswith("chat x??[31my")
    assert len(first.name) <= 133


def test_what_is_unknown_is_absent_and_failures_have_their_type() -> None:
    lost = attempt(0, usage=None, cost=None, fault="reset", status=None, ttft_s=None)
    (_, span) = spans(call("d1", lost), NOBODY)
    found = dict(span.attributes or {})
    assert found["error.type"] == "reset"
    assert not [name for name in found if name.startswith("gen_ai.usage") or "cost" in name]
