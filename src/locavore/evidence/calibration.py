"""From answers of two models to a promise, without I/O.

Items are the user's own prompts. With a comparator or a verdict an item becomes a label; without
either it can only say whether the two models agree, which is not quality.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import msgspec

from locavore.core.errors import ConfigError
from locavore.evidence.comparators import Expect, score
from locavore.routing.asks import asks_of
from locavore.routing.estimators.promised import Entry, Promises
from locavore.routing.estimators.signals import Signals
from locavore.routing.estimators.trunk import Trunk
from locavore.routing.facts import task_of
from locavore.routing.promise import (
    FEWEST_LABELS,
    Label,
    Promise,
    Target,
    general_evidence,
    make_promise,
)
from locavore.routing.staying import Stays, count
from locavore.strategies.looking import Answer, Contract, answer_class, signals_of
from locavore.wire.formats import FORMATS


class Verdicts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores in [0, 1] that somebody gave."""

    local: float
    cloud: float


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of a prompts file: `prompt` or `messages`, and how an answer is judged."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    task: str | None = None
    """Task class; None: as the gateway classifies it."""
    expect: Expect | None = None
    verdicts: Verdicts | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")

    def body(self, model: str, **more: object) -> bytes:
        messages = self.messages or [{"role": "user", "content": self.prompt}]
        return msgspec.json.encode({"model": model, "messages": messages, **more})

    @property
    def key(self) -> str:
        """Of its words: a changed prompt is another item."""
        return hashlib.sha256(self.body("")).hexdigest()[:24]


def read_items(text: str, name: str = "prompts") -> list[Item]:
    """One JSON object per line; raises ConfigError naming every bad line."""
    items, problems = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            items.append(msgspec.json.decode(line, type=Item))
        except (msgspec.DecodeError, ValueError) as error:
            problems.append(f"{name}, line {number}: {error}")
    if not items and not problems:
        problems.append(f'{name}: no prompts; one JSON object per line, e.g. {{"prompt": "…"}}')
    if problems:
        raise ConfigError(problems)
    return items


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, as the progress file keeps it."""

    key: str
    model: str
    sample: int = 0
    """0: the answer; from 1 on: further local samples."""
    text: str = ""
    output_tokens: int = 0
    mean_logprob: float | None = None
    cost_usd: str | None = None
    """What the gateway said it cost; None: unknown."""
    failed: str = ""

    def answer(self) -> Answer:
        return Answer(
            backend=self.model,
            text=self.text,
            output_tokens=self.output_tokens,
            mean_logprob=self.mean_logprob,
            failed=self.failed,
        )


class Projected(msgspec.Struct, frozen=True, kw_only=True):
    """What more labels might bring, if they are drawn like those there are: no promise."""

    labels: int
    low: float
    """Share of the calls that might stay local then, from here ..."""
    high: float
    """... to here."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What calibration found."""

    entry: Entry | None
    """None: nothing was judged, so nothing can be promised."""
    judged: int
    unjudged: int
    failed: int
    agreement: float | None
    """Share of answered items on which both models said the same: not quality."""
    local_quality: float | None = None
    cloud_quality: float | None = None
    more_labels: tuple[Projected, ...] = ()


def outcome(
    items: Sequence[Item],
    asked: Mapping[tuple[str, str, int], Asked],
    *,
    local: str,
    cloud: str,
    target: Target,
    trunk: Trunk,
    samples: int = 0,
    run_code: bool = False,
    proven: bool = False,
    noise: float = 0.0,
    now_s: float | None = None,
) -> Outcome:
    """`asked` is by (item key, model, sample). `proven`: the promise rests on the labels alone."""
    looks = Promises(trunk, ())
    pre: list[Label] = []
    post: list[Label] = []
    same: list[bool] = []
    unjudged = failed = 0
    for item in items:
        answers = _answers(item, asked, local, cloud, samples)
        judged = _judged(item, answers, run_code=run_code)
        if answers is not None:
            same.append(answer_class(answers[0].text) == answer_class(answers[1].text))
        if judged is None:
            failed += answers is None
            unjudged += answers is not None
            continue
        words, task = _ask(item)
        pre.append(_label(looks, words, task, None, judged))
        if answers is not None:
            signals, _ = signals_of(answers[0], Contract(), answers[2:])
            post.append(_label(looks, words, task, signals, judged))
    entry = None
    if pre:
        before = _promise(pre, target, trunk, "pre", proven=proven, noise=noise)
        after = None
        if len(post) == len(pre):
            after = _promise(post, target, trunk, "post", proven=proven, noise=noise)
        entry = Entry(
            local=local,
            cloud=cloud,
            pre=before,
            post=after,
            looks=after is not None
            and looking_pays(pre, post, target, trunk, proven=proven, noise=noise),
            stays=_stays(before, pre, after, post) if after is not None else None,
            local_quality=sum(c.weak for c in pre) / len(pre),
            cloud_quality=sum(c.strong for c in pre) / len(pre),
            made_s=time.time() if now_s is None else now_s,
            samples=samples,
        )
    return Outcome(
        entry=entry,
        judged=len(pre),
        unjudged=unjudged,
        failed=failed,
        agreement=sum(same) / len(same) if same else None,
        local_quality=entry.local_quality if entry else None,
        cloud_quality=entry.cloud_quality if entry else None,
        more_labels=_projected(entry, pre, post, trunk, proven=proven, noise=noise),
    )


MORE = (2, 4)
"""Times as many labels, for which it is told what they might bring."""
REDRAWN = 6
MOST_REDRAWN = 2000
"""From there on, more labels change little, and redrawing them takes long."""


def _projected(
    entry: Entry | None,
    pre: Sequence[Label],
    post: Sequence[Label],
    trunk: Trunk,
    *,
    proven: bool,
    noise: float,
) -> tuple[Projected, ...]:
    """From the same labels, drawn again with replacement: copies of a prompt are judged by the
    same fold, so they make the estimate surer and not the score better."""
    if entry is None or len(pre) < FEWEST_LABELS:
        return ()
    stage, labels = ("post", post) if entry.looks else ("pre", pre)
    random, found = Random(len(labels)), []  # noqa: S311 - a simulation, not a secret
    for times in [times for times in MORE if times * len(labels) <= MOST_REDRAWN]:
        shares = []
        for _ in range(REDRAWN):
            drawn = random.choices(labels, k=times * len(labels))
            made = _promise(drawn, entry.pre.target, trunk, stage, proven=proven, noise=noise)
            shares.append(made.share)
        found.append(Projected(labels=times * len(labels), low=min(shares), high=max(shares)))
    return tuple(found)


def _answers(
    item: Item, asked: Mapping[tuple[str, str, int], Asked], local: str, cloud: str, samples: int
) -> list[Answer] | None:
    """Local, cloud, then the samples; None: one of the first two is missing or failed."""
    main = [asked.get((item.key, local, 0)), asked.get((item.key, cloud, 0))]
    found = [a.answer() for a in main if a is not None and not a.failed]
    if len(found) < 2:
        return None
    more = (asked.get((item.key, local, k)) for k in range(1, samples + 1))
    return found + [a.answer() for a in more if a is not None]


def _judged(
    item: Item, answers: list[Answer] | None, *, run_code: bool
) -> tuple[float, float] | None:
    if item.verdicts is not None:
        return item.verdicts.local, item.verdicts.cloud
    if item.expect is None or answers is None:
        return None
    weak, strong = (score(a.text, item.expect, run_code=run_code) for a in answers[:2])
    return weak, strong


def _ask(item: Item) -> tuple[str, str]:
    """The user's ask and its task class, as the gateway reads them."""
    body = item.body("auto")
    chat = FORMATS["openai_chat"]
    asks = asks_of(chat.turns(body))
    return asks.last, item.task or task_of(chat.request(body), asks)


def _label(
    looks: Promises, words: str, task: str, signals: Signals | None, judged: tuple[float, float]
) -> Label:
    return Label(look=looks.look(words, task, signals), weak=judged[0], strong=judged[1])


def _stays(before: Promise, pre: Sequence[Label], after: Promise, post: Sequence[Label]) -> Stays:
    """By what each request told, how many answers would have been kept."""
    return count([before.score(c.look) for c in pre], [after.keeps(c.look) for c in post])


TARGETS = (0.9, 0.95, 0.98, 0.99)
"""Over these it is decided whether to look at answers: not over the one that was asked for, so a
stricter target never changes the rule and with it which calls stay local."""


def looking_pays(
    pre: Sequence[Label],
    post: Sequence[Label],
    target: Target,
    trunk: Trunk,
    *,
    proven: bool,
    noise: float,
) -> bool:
    """Whether more may stay local by the answers than by the requests."""

    def kept(labels: Sequence[Label], stage: str) -> float:
        targets = [Target(quality=q, confidence=target.confidence) for q in TARGETS]
        found = [_promise(labels, t, trunk, stage, proven=proven, noise=noise) for t in targets]
        return sum(promise.share for promise in found)

    return kept(post, "post") > kept(pre, "pre")


def _promise(
    labels: Sequence[Label], target: Target, trunk: Trunk, stage: str, *, proven: bool, noise: float
) -> Promise:
    curve = trunk.gain_pre if stage == "pre" else trunk.gain_post
    return make_promise(labels, target, None if proven else general_evidence(curve), noise=noise)
