"""A cascade whose models answer when the test says so, under a promise that says what it says."""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from locavore.core.backend import Capability, Place
from locavore.core.decision import CascadePlan, Decision
from locavore.core.estimate import Estimate
from locavore.core.money import Price, Rate
from locavore.core.outcome import CallRecord
from locavore.core.policy import Policy, Routing
from locavore.core.request import Request
from locavore.ledger.budgets import Authorizer
from locavore.routing.asks import Asks
from locavore.routing.conversation import Talk
from locavore.routing.estimators.promised import Verdict
from locavore.routing.estimators.signals import Signals
from locavore.serving.cascaded import CascadedCall
from locavore.serving.pipeline import PLAIN, Envelope
from locavore.serving.snapshot import Limits
from locavore.testing import Reply
from tests.serving.doubles import Client, ScriptedEngine, Sent, backend, pipeline_over, snapshot_of

LOCAL, CLOUD, THIRD = "home/small", "cloud/large", "cloud/third"
ALL = frozenset(
    c.value
    for c in (
        Capability.CHAT,
        Capability.TOOLS,
        Capability.TOOL_CHOICE,
        Capability.JSON_OBJECT,
        Capability.JSON_SCHEMA,
        Capability.LOGPROBS,
    )
)
ASK = "What is six times seven?"
BODIES: dict[str, dict[str, Any]] = {
    "openai_chat": {"messages": [{"role": "user", "content": ASK}]},
    "openai_completions": {"prompt": ASK},
    "openai_responses": {"input": ASK},
    "anthropic_messages": {"messages": [{"role": "user", "content": ASK}], "max_tokens": 100},
}


def price(input_mtok: str, output_mtok: str) -> Price:
    rate = Rate(input_mtok=Decimal(input_mtok), output_mtok=Decimal(output_mtok))
    return Price(rate=rate, source="config")


class Promised:
    """A promise that keeps what the test keeps, from the signals alone."""

    def __init__(self, keeps: Callable[[Signals], bool], margin: float) -> None:
        self._keeps = keeps
        self._margin = margin
        self.seen: list[tuple[Asks, Signals]] = []

    def look(
        self, request: Request, talk: Talk, decision: Decision, signals: Signals
    ) -> Verdict | None:
        """As `Router.look`."""
        assert decision.cascade is not None
        assert request.body
        self.seen.append((talk.read()[0], signals))
        quality = Estimate(mean=0.99, low=0.98, high=1.0, n=200, source="test")
        keeps = self._keeps(signals)
        score = 0.1 + (self._margin if keeps else -self._margin)
        return Verdict(keeps=keeps, quality=quality, score=score, threshold=0.1)


class Stage:
    """One pipeline, its two or three models, one client at a time."""

    def __init__(
        self,
        home: Path,
        *,
        keeps: bool | Callable[[Signals], bool] = True,
        margin: float = 0.5,
        hold_s: float = 30.0,
        samples: int = 0,
        third: bool = False,
        local: dict[str, Any] | None = None,
        limits: Authorizer | None = None,
        bounds: Limits | None = None,
        **more: Any,
    ) -> None:
        """`local`: fields of the local backend; `more`: of the snapshot."""
        self.engines = {id_: ScriptedEngine() for id_ in (LOCAL, CLOUD, THIRD)}
        small: dict[str, Any] = {"price": price("0.1", "0.2"), "capabilities": ALL}
        backends = [
            backend(LOCAL, **(small | (local or {}))),
            backend(CLOUD, Place.PUBLIC_API, price=price("2", "8"), capabilities=ALL),
            backend(THIRD, Place.PUBLIC_API, price=price("1", "4"), capabilities=ALL),
        ]
        routing = Routing(cascade=True)
        snapshot = snapshot_of(
            *backends,
            policy=Policy(stage="route", baseline=CLOUD, routing=routing),
            limits=bounds or Limits(),
            **more,
        )
        self.pipeline, self.journal = pipeline_over(
            lambda target: self.engines[target.name], home, snapshot, limits
        )
        self.promised = Promised(keeps if callable(keeps) else lambda _: bool(keeps), margin)
        self._cascade = CascadePlan(local=LOCAL, cloud=CLOUD, hold_s=hold_s, samples=samples)
        self._fallbacks = (THIRD,) if third else ()
        self._direct()

    def _direct(self) -> None:
        """Every call is a cascade: what deciding makes of a promise is tested with deciding."""
        router = self.pipeline.state.router
        decide = router.decide

        def decided(*args: Any, **named: Any) -> Decision:
            return msgspec.structs.replace(
                decide(*args, **named),
                chosen=f"cascade:{LOCAL}",
                cascade=self._cascade,
                fallbacks=self._fallbacks,
            )

        router.decide = decided  # type: ignore[method-assign]
        router.look = self.promised.look  # type: ignore[method-assign]

    def serve(
        self,
        format_: str = "openai_chat",
        *,
        stream: bool = False,
        envelope: Envelope = PLAIN,
        **fields: Any,
    ) -> Client:
        """Begin a call; its client."""
        client = Client()
        body = BODIES[format_] | {"model": "auto"} | ({"stream": True} if stream else {}) | fields
        self.pipeline.serve(format_, json.dumps(body).encode(), client, envelope)
        return client

    def asked(self, id_: str) -> list[Sent]:
        return self.engines[id_].calls

    def answer(self, id_: str, reply: Reply) -> None:
        """Answer the last call at a backend."""
        self.asked(id_)[-1].play(reply)

    async def reached(self, id_: str, count: int = 1) -> None:
        """Wait until a backend was asked so often: what a timer does, no event tells."""
        async with asyncio.timeout(20):
            while len(self.asked(id_)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    def time_is_up(self) -> None:
        """The hold of the only call is over: what its timer does, when the test says so."""
        (call,) = self.pipeline._active
        assert isinstance(call, CascadedCall)
        assert call._question is not None
        call._question._late()

    @property
    def record(self) -> CallRecord:
        (record,) = self.journal.records
        return record

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(a.backend, a.kind) for a in self.record.attempts]
