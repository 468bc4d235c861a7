"""The cascade against scripted calls."""

from collections.abc import Generator

import pytest

from locavore.core.events import FinishReason
from locavore.routing.estimators.signals import Signals
from locavore.strategies.cascade import (
    Ask,
    Judged,
    Plan,
    Served,
    cascade,
)
from locavore.strategies.looking import (
    Answer,
    Contract,
    ToolUse,
    answer_class,
    faults,
    fits,
)

LOCAL, CLOUD, PEER = "vllm/small", "openai/large", "vllm/other"
SCHEMA = {
    "type": "object",
    "required": ["city"],
    "properties": {"city": {"type": "string"}, "tags": {"type": "array", "items": {"enum": ["a"]}}},
    "additionalProperties": False,
}


def drive(
    steps: Generator[Ask, Answer, Served], script: dict[str, list[Answer]]
) -> tuple[Served, list[Ask]]:
    asks = [next(steps)]
    while True:
        try:
            asks.append(steps.send(script[asks[-1].backend].pop(0)))
        except StopIteration as end:
            return end.value, asks


def said(backend: str, text: str, **more: object) -> Answer:
    return Answer(backend=backend, text=text, **{"output_tokens": 5, "seconds": 1.0, **more})  # type: ignore[arg-type]


def sure(_: Signals) -> Judged:
    return Judged(stays=True, margin=0.3)


def doubtful(_: Signals) -> Judged:
    return Judged(stays=False, margin=-0.2)


def by_agreement(signals: Signals) -> Judged:
    share = 0.5 if signals.agreement is None else signals.agreement
    return Judged(stays=share > 0.6, margin=share - 0.6, in_doubt=signals.agreement is None)


def test_a_good_local_answer_is_served_and_the_cloud_is_not_asked() -> None:
    served, asks = drive(cascade(Plan(local=LOCAL, cloud=CLOUD), sure), {LOCAL: [said(LOCAL, "7")]})
    assert (served.answer.text, served.escalated, served.reason) == ("7", False, "kept")
    assert [a.backend for a in asks] == [LOCAL]


def test_a_doubtful_answer_escalates_and_both_calls_are_on_record() -> None:
    script = {LOCAL: [said(LOCAL, "7")], CLOUD: [said(CLOUD, "8")]}
    served, asks = drive(cascade(Plan(local=LOCAL, cloud=CLOUD), doubtful), script)
    assert (served.answer.text, served.escalated, served.reason) == ("8", True, "doubtful")
    assert [a.backend for a in served.attempts] == [LOCAL, CLOUD]
    assert [a.purpose for a in asks] == ["answer", "escalation"]


@pytest.mark.parametrize(
    ("answer", "contract", "fault"),
    [
        (said(LOCAL, "  "), Contract(), "empty"),
        (said(LOCAL, "", failed="reset"), Contract(), "reset"),
        (said(LOCAL, "I'm sorry, I can't help with that."), Contract(), "refused"),
        (said(LOCAL, "It is", finish=FinishReason.LENGTH), Contract(), "cut_off"),
        (said(LOCAL, "no", finish=FinishReason.CONTENT_FILTER), Contract(), "refused"),
        (said(LOCAL, "{city: Bonn}"), Contract(json=True), "not_json"),
        (said(LOCAL, '{"town": "Bonn"}'), Contract(schema=SCHEMA), "against_schema"),
        (said(LOCAL, '{"city": 3}'), Contract(schema=SCHEMA), "against_schema"),
        (said(LOCAL, "```python\ndef f(:\n```"), Contract(), "code_does_not_parse"),
        (said(LOCAL, "So 12 * 12 = 142."), Contract(), "wrong_sum"),
        (said(LOCAL, "Berlin"), Contract(tools={"map": {}}, must_call=True), "no_tool_call"),
        (
            Answer(backend=LOCAL, tool_calls=(ToolUse(name="rm", arguments="{}"),)),
            Contract(tools={"map": {}}),
            "unknown_tool",
        ),
        (
            Answer(backend=LOCAL, tool_calls=(ToolUse(name="map", arguments='{"city": 1}'),)),
            Contract(tools={"map": SCHEMA}),
            "bad_arguments",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_fault_escalates_whatever_the_estimator_thinks(
    answer: Answer, contract: Contract, fault: str
) -> None:
    plan = Plan(local=LOCAL, cloud=CLOUD, contract=contract, samples=(PEER,))
    served, _ = drive(cascade(plan, sure), {LOCAL: [answer], CLOUD: [said(CLOUD, "right")]})
    assert served.escalated
    assert served.reason == fault
    assert served.signals.no_answer


@pytest.mark.parametrize(
    ("text", "contract"),
    [
        ('{"city": "Bonn", "tags": ["a"]}', Contract(schema=SCHEMA)),
        ("12 * 12 = 144 and 10 / 4 = 2.5, so 0.1 + 0.2 = 0.3", Contract()),
        ("10 / 3 = 3.33", Contract()),
        ("```python\nprint(1)\n```", Contract()),
        ("I'm sorry to hear that: try tea.", Contract()),
    ],
)
def test_form_checks_let_sound_answers_pass(text: str, contract: Contract) -> None:
    found = faults(said(LOCAL, text), contract)
    assert found == []


def test_samples_are_asked_only_in_the_grey_zone_and_decide() -> None:
    plan = Plan(local=LOCAL, cloud=CLOUD, samples=(PEER, PEER))
    script = {LOCAL: [said(LOCAL, "42")], PEER: [said(PEER, "= 42"), said(PEER, "42.0")]}
    served, asks = drive(cascade(plan, by_agreement), script)
    assert [a.purpose for a in asks] == ["answer", "sample", "sample"]
    assert served.signals.agreement == 1.0
    assert not served.escalated
    _, asks = drive(cascade(plan, sure), {LOCAL: [said(LOCAL, "42")]})
    assert len(asks) == 1


def test_the_user_waits_for_samples_only_as_long_as_the_policy_allows() -> None:
    plan = Plan(local=LOCAL, cloud=CLOUD, samples=(PEER, PEER), hold_s=2.5)
    script = {
        LOCAL: [said(LOCAL, "1")],
        PEER: [said(PEER, "1", seconds=2.0)],
        CLOUD: [said(CLOUD, "1")],
    }
    served, asks = drive(cascade(plan, by_agreement), script)
    told = [(a.purpose, a.deadline_s) for a in asks]
    assert told == [("answer", 2.5), ("sample", 1.5), ("escalation", None)]
    assert served.signals.agreement == 0.5, "a sample there was no time for has not agreed"


def test_a_late_local_answer_goes_to_the_cloud() -> None:
    script = {LOCAL: [said(LOCAL, "", failed="late")], CLOUD: [said(CLOUD, "8")]}
    served, _ = drive(cascade(Plan(local=LOCAL, cloud=CLOUD, hold_s=1.0), sure), script)
    assert (served.answer.backend, served.reason) == (CLOUD, "late")


def test_without_a_cloud_nothing_is_escalated() -> None:
    served, _ = drive(cascade(Plan(local=LOCAL, cloud=None), doubtful), {LOCAL: [said(LOCAL, "7")]})
    assert (served.answer.text, served.reason) == ("7", "no_cloud")


def test_a_failed_cloud_leaves_a_sound_local_answer() -> None:
    script = {LOCAL: [said(LOCAL, "7")], CLOUD: [said(CLOUD, "", failed="overloaded")]}
    served, _ = drive(cascade(Plan(local=LOCAL, cloud=CLOUD), doubtful), script)
    assert (served.answer.text, served.reason) == ("7", "cloud_failed")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The answer is 1,200.", "1200", True),
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}', True),
        ("So \\boxed{x+1}", "I get \\boxed{x+1}.", True),
        ("The answer is (B).", "Answer: b", True),
        ("Paris", "paris.", True),
        ("Paris", "Rome", False),
        ("It is 4", "It is 5", False),
    ],
)
def test_answers_are_the_same_when_what_they_say_is(one: str, other: str, same: bool) -> None:
    assert (answer_class(one) == answer_class(other)) is same


def test_what_a_schema_check_does_not_know_passes() -> None:
    assert fits({"x": "y"}, {"$ref": "#/definitions/x"})
    assert not fits(True, {"type": "integer"})
    assert fits(None, {"type": ["string", "null"]})
