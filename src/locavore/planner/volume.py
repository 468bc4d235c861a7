"""Token volumes from how a product is used: what people see, and what is sent with it.

First guesses count the message and the answer. Sent as well, call after call: the system prompt,
the conversation so far, retrieved passages, retries. Both figures are given, and their ratio.
"""

from collections.abc import Callable, Mapping

import msgspec

from locavore.catalog.load import Catalog, load
from locavore.core.errors import ConfigError
from locavore.planner import units
from locavore.planner.cost import Rates


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a use, with its default."""

    value: float
    text: str


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens a day of one use."""

    use: str
    calls_day: float
    input_tokens_call: float
    output_tokens_call: float
    input_tokens_day: float
    output_tokens_day: float
    tokens_month: float
    first_guess_tokens_day: float
    """Only what people write and read."""
    hidden_factor: float
    """Counted over first guess: the part of the underestimation that is explained."""
    underestimation_factor: float
    """How far first guesses were too low in the source named in `sources`."""
    high_tokens_day: float
    """First guess times that factor, or the counted volume where that is more."""
    service: str | None
    """The cloud service priced by the unit that goes with this use."""
    service_usd_month: float | None
    formula: str
    parameters: dict[str, float]
    assumed: tuple[str, ...]
    """Parameters that nobody gave."""
    sources: tuple[str, ...]


class _Calls(msgspec.Struct, frozen=True, kw_only=True):
    calls: float
    prompt: float
    answer: float
    seen: float
    """Tokens of one call that a person writes or reads."""
    formula: str
    service: tuple[str, float] | None = None
    """(rate of a unit-priced cloud service, units a day)"""


Values = Mapping[str, float]


def _chat(p: Values) -> _Calls:
    history = (p["turns"] - 1) / 2 * (p["message_tokens"] + p["answer_tokens"])
    return _Calls(
        calls=p["count"] * p["messages"],
        prompt=p["system_tokens"] + p["message_tokens"] + history,
        answer=p["answer_tokens"],
        seen=p["message_tokens"] + p["answer_tokens"],
        formula=(
            "users x messages x (system + message + (turns-1)/2 x (message + answer) + answer)"
        ),
    )


def _documents(p: Values) -> _Calls:
    body = p["pages"] * p["page_tokens"]
    return _Calls(
        calls=p["count"] * p["passes"],
        prompt=p["system_tokens"] + body,
        answer=p["answer_tokens"],
        seen=(body + p["answer_tokens"]) / p["passes"],
        formula="documents x passes x (system + pages x page + answer)",
    )


def _code(p: Values) -> _Calls:
    return _Calls(
        calls=p["count"] * p["completions"],
        prompt=p["context_tokens"],
        answer=p["answer_tokens"],
        seen=p["accepted"] * p["answer_tokens"],
        formula="developers x completions x (context + answer)",
    )


def _batch(p: Values) -> _Calls:
    return _Calls(
        calls=p["count"] * (1 + p["retries"]),
        prompt=p["prompt_tokens"] + p["item_tokens"],
        answer=p["answer_tokens"],
        seen=(p["item_tokens"] + p["answer_tokens"]) / (1 + p["retries"]),
        formula="items x (1 + retries) x (prompt + item + answer)",
    )


def _speech(p: Values) -> _Calls:
    words = p["minutes"] * p["words_minute"] * p["tokens_word"]
    return _Calls(
        calls=p["count"],
        prompt=p["system_tokens"] + words,
        answer=p["answer_tokens"],
        seen=words + p["answer_tokens"],
        formula="recordings x (system + minutes x words x tokens per word + answer)",
        service=("unit.audio_minute", p["count"] * p["minutes"]),
    )


def _search(p: Values) -> _Calls:
    return _Calls(
        calls=p["count"],
        prompt=p["system_tokens"] + p["question_tokens"] + p["passages"] * p["passage_tokens"],
        answer=p["answer_tokens"],
        seen=p["question_tokens"] + p["answer_tokens"],
        formula="queries x (system + question + passages x passage + answer)",
        service=("unit.rerank_search", p["count"]),
    )


def _given(**texts: tuple[float, str]) -> dict[str, Parameter]:
    return {name: Parameter(value=value, text=text) for name, (value, text) in texts.items()}


USES: dict[str, tuple[Callable[[Values], _Calls], str, dict[str, Parameter]]] = {
    "chat": (_chat, "users a day", _given(
        messages=(8, "messages per user and day"),
        message_tokens=(40, "tokens of a message"),
        answer_tokens=(250, "tokens of an answer"),
        system_tokens=(400, "tokens of the system prompt, sent with every message"),
        turns=(6, "messages of a conversation; earlier ones are sent again"),
    )),
    "documents": (_documents, "documents a day", _given(
        pages=(5, "pages per document"),
        page_tokens=(650, "tokens of a page of about 500 words"),
        passes=(1.5, "times a document is read, corrections included"),
        system_tokens=(300, "tokens of the instructions"),
        answer_tokens=(400, "tokens of the result"),
    )),
    "code": (_code, "developers", _given(
        completions=(150, "completions per developer and day"),
        context_tokens=(2000, "tokens of code sent with each completion"),
        answer_tokens=(40, "tokens of a completion"),
        accepted=(0.3, "share of completions that are kept"),
    )),
    "batch": (_batch, "items a day", _given(
        item_tokens=(100, "tokens of an item"),
        prompt_tokens=(300, "tokens of the instructions and examples, sent with every item"),
        answer_tokens=(30, "tokens of an answer"),
        retries=(0.05, "share of items sent again"),
    )),
    "speech": (_speech, "recordings a day", _given(
        minutes=(20, "minutes of a recording"),
        words_minute=(150, "spoken words in a minute"),
        tokens_word=(1.33, "tokens per word"),
        system_tokens=(300, "tokens of the instructions"),
        answer_tokens=(500, "tokens of the minutes or summary"),
    )),
    "search": (_search, "queries a day", _given(
        question_tokens=(30, "tokens of a question"),
        passages=(8, "passages found and sent along"),
        passage_tokens=(400, "tokens of a passage"),
        system_tokens=(300, "tokens of the instructions"),
        answer_tokens=(250, "tokens of an answer"),
    )),
}  # fmt: skip
"""use -> (formula, what is counted, its parameters with defaults)."""


def volume(
    use: str,
    count: float,
    parameters: Mapping[str, float] | None = None,
    *,
    catalog: Catalog | None = None,
) -> Volume:
    """Tokens a day of `count` users, documents, developers, items, recordings or queries.

    ConfigError: an unknown use or parameter, or a value that cannot be.
    """
    if use not in USES:
        raise ConfigError([f"no use is called {use!r}; known: {', '.join(USES)}"])
    compute, counted, known = USES[use]
    given = dict(parameters or {})
    for name, value in given.items():
        if name not in known:
            raise ConfigError([f"{use} has no parameter {name!r}; known: {', '.join(known)}"])
        units.checked(value, what=name, most=1e9, zero=True)
    units.checked(count, what=counted, most=1e12)
    values = {name: given.get(name, row.value) for name, row in known.items()}
    for name in ("turns", "passes"):
        if name in values and values[name] < 1:
            raise ConfigError([f"{name} is {values[name]:g}; it cannot be below 1"])
    found = compute({"count": count, **values})
    total = found.calls * (found.prompt + found.answer)
    guess = found.calls * found.seen
    if total <= 0 or guess <= 0:
        raise ConfigError([f"{use} with these parameters has no tokens at all"])
    rates = Rates(catalog or load())
    factor = rates("underestimation_factor")
    service, cost = _service(rates, found)
    return Volume(
        use=use,
        calls_day=found.calls,
        input_tokens_call=found.prompt,
        output_tokens_call=found.answer,
        input_tokens_day=found.calls * found.prompt,
        output_tokens_day=found.calls * found.answer,
        tokens_month=total * units.DAYS_PER_MONTH,
        first_guess_tokens_day=guess,
        hidden_factor=total / guess,
        underestimation_factor=factor.mean,
        high_tokens_day=max(total, guess * factor.mean),
        service=service,
        service_usd_month=cost,
        formula=found.formula,
        parameters={counted: count, **values},
        assumed=tuple(f"{name} = {values[name]:g}: {row.text}" for name, row in known.items()
                      if name not in given),
        sources=(f"underestimation factor {factor.mean:g}: {factor.source}",),
    )  # fmt: skip


def _service(rates: Rates, found: _Calls) -> tuple[str | None, float | None]:
    """(the unit-priced service in words, US dollars a month)."""
    if found.service is None:
        return None, None
    key, units_day = found.service
    price = rates(key)
    text = f"{rates.catalog.rate(key).text}; {price.source}"
    return text, units_day * units.DAYS_PER_MONTH * price.mean
