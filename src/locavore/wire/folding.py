"""A whole answer is a fold over its events."""

import msgspec

from locavore.core.errors import UpstreamError
from locavore.core.events import (
    Event,
    Failure,
    Finish,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReport,
)
from locavore.core.money import Usage
from locavore.wire.faults import from_failure


class FoldedCall(msgspec.Struct):
    id: str
    name: str
    arguments: str = ""


class FoldedThought(msgspec.Struct):
    text: str = ""
    signature: str | None = None
    redacted: str | None = None


class FoldedChoice(msgspec.Struct):
    index: int
    text: str = ""
    refusal: str = ""
    thoughts: list[FoldedThought] = []
    calls: list[FoldedCall] = []
    logprobs: list[msgspec.Raw] = []
    reason: FinishReason | None = None
    stop_sequence: str | None = None

    @property
    def reasoning(self) -> str:
        return "".join(thought.text for thought in self.thoughts)


class FoldedAnswer(msgspec.Struct):
    start: Start
    choices: list[FoldedChoice]
    usage: Usage | None = None


def fold(events: list[Event]) -> FoldedAnswer:
    """Raises UpstreamError when the events hold a `Failure`."""
    answer = FoldedAnswer(start=Start(id="", model="", created_s=0), choices=[])
    texts: dict[int, list[str]] = {}
    choices: dict[int, FoldedChoice] = {}
    for event in events:
        if isinstance(event, Start):
            answer.start = event
        elif isinstance(event, UsageReport):
            answer.usage = event.usage
        elif isinstance(event, Failure):
            raise failed(event)
        elif hasattr(event, "choice"):
            choice = choices.setdefault(event.choice, FoldedChoice(index=event.choice))
            _add(choice, event, texts.setdefault(event.choice, []))
    for index, pieces in texts.items():
        choices[index].text = "".join(pieces)
    answer.choices = [choices[i] for i in sorted(choices)] or [FoldedChoice(index=0)]
    return answer


def failed(failure: Failure) -> UpstreamError:
    return from_failure(failure, "")


def _add(choice: FoldedChoice, event: Event, texts: list[str]) -> None:
    if isinstance(event, TextDelta):
        texts.append(event.text)
        if event.logprobs is not None:
            choice.logprobs.append(event.logprobs)
    elif isinstance(event, ReasoningDelta):
        _add_thought(choice.thoughts, event)
    elif isinstance(event, RefusalDelta):
        choice.refusal += event.text
    elif isinstance(event, ToolCallStart):
        choice.calls.append(FoldedCall(id=event.id, name=event.name))
    elif isinstance(event, ToolCallDelta):
        choice.calls[event.index].arguments += event.arguments
    elif isinstance(event, Finish):
        choice.reason = event.reason
        choice.stop_sequence = event.stop_sequence


def _add_thought(thoughts: list[FoldedThought], event: ReasoningDelta) -> None:
    """A signature closes its thought; sealed thinking stands alone."""
    if event.redacted is not None:
        thoughts.append(FoldedThought(redacted=event.redacted))
        return
    last = thoughts[-1] if thoughts else None
    if last is None or last.signature is not None or last.redacted is not None:
        last = FoldedThought()
        thoughts.append(last)
    last.text += event.text
    if event.signature is not None:
        last.signature = event.signature
