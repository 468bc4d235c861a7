"""What the configuration file may say: one list of keys feeds validation, defaults and reference.

Each struct is a table of the file, each field a key with its type, default, bounds and one line of
help. `config.reading` walks parsed TOML against them; `config.reference` shows them to people and
editors.
"""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from locavore.core.policy import Posture, Stage

PlaceName = Literal["embedded", "on_prem", "private_cloud", "public_api"]
Dialect = Literal["openai", "anthropic"]
Text = Annotated[str, Meta(min_length=1)]
Positive = Annotated[int, Meta(ge=1)]
Window = Annotated[int, Meta(ge=256)]
AboveZero = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0)]
SECRET = {"secret": True}


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class PriceTable(Table, frozen=True):
    """US dollars per million tokens, as strings or numbers."""

    input_mtok: Annotated[Decimal | None, Meta(description="prompt tokens")] = None
    output_mtok: Annotated[Decimal | None, Meta(description="answer tokens")] = None
    cache_read_mtok: Annotated[
        Decimal | None, Meta(description="prompt tokens read from a cache; default: as prompt")
    ] = None
    cache_write_mtok: Annotated[
        Decimal | None, Meta(description="prompt tokens written to a cache; default: as prompt")
    ] = None
    input_audio_mtok: Annotated[Decimal | None, Meta(description="audio heard")] = None
    output_audio_mtok: Annotated[Decimal | None, Meta(description="audio spoken")] = None
    request_usd: Annotated[Decimal | None, Meta(description="flat fee per call")] = None
    as_of: Annotated[str | None, Meta(description="date the figures were checked")] = None


class BackendTable(Table, frozen=True):
    """One model behind one URL."""

    id: Annotated[str, Meta(description="`provider/model`, as clients name it", min_length=1)]
    url: Annotated[
        str | None,
        Meta(description="base URL with any `/v1`; default: the provider's"),
    ] = None
    dialect: Annotated[
        Dialect | None, Meta(description="default: the provider's, otherwise `openai`")
    ] = None
    provider: Annotated[
        str | None, Meta(description="row of the provider table; default: what precedes `/`")
    ] = None
    model: Annotated[
        str | None, Meta(description="name sent upstream; default: what follows `/`")
    ] = None
    place: Annotated[
        PlaceName | None,
        Meta(
            description="how far a prompt travels; default: `on_prem` for a private or loopback "
            "address, `public_api` for any other"
        ),
    ] = None
    jurisdiction: Annotated[
        str | None, Meta(description="ISO 3166 code or `EU`; unknown fails a jurisdiction limit")
    ] = None
    context_tokens: Annotated[
        Positive | None, Meta(description="window it really holds, prompt and answer together")
    ] = None
    max_output_tokens: Annotated[Positive | None, Meta(description="longest answer")] = None
    capabilities: Annotated[
        tuple[str, ...],
        Meta(description="what it can do; `chat` is understood unless `embeddings` is named"),
    ] = ()
    lacks: Annotated[
        tuple[str, ...],
        Meta(description="what it is known not to do; what is in neither list is unknown"),
    ] = ()
    api_key_env: Annotated[
        str | None, Meta(description="environment variable that holds the key")
    ] = None
    price: Annotated[
        PriceTable | None,
        Meta(description="default: the price catalog; nothing for a model we host"),
    ] = None
    prefill_tokens_s: Annotated[
        AboveZero | None, Meta(description="prompt tokens read per second, for `max_ttft_s`")
    ] = None
    max_concurrency: Annotated[
        Positive | None, Meta(description="calls at a time; more wait in a bounded queue")
    ] = None
    on_disconnect: Annotated[
        Literal["cancel", "drain"],
        Meta(description="when the client leaves: stop the engine, or read its answer to the end"),
    ] = "cancel"
    embedding_family: Annotated[
        str | None,
        Meta(description="vectors are comparable within a family; default: this backend alone"),
    ] = None
    ca_file: Annotated[str | None, Meta(description="private CA bundle (PEM)")] = None


class ProviderTable(Table, frozen=True):
    """Overrides for a provider or engine that Locavore knows."""

    enabled: Annotated[bool, Meta(description="`false`: never used, even if found")] = True
    api_key_env: Annotated[str | None, Meta(description="default: its standard variable")] = None
    base_url: Annotated[str | None, Meta(description="default: its public address or port")] = None
    jurisdiction: Annotated[str | None, Meta(description="where it processes data")] = None
    place: Annotated[PlaceName | None, Meta(description="how far a prompt travels")] = None
    models: Annotated[
        tuple[str, ...],
        Meta(description="models `auto` and `cloud` may choose; any other is reached by name"),
    ] = ()
    max_concurrency: Annotated[Positive | None, Meta(description="calls at a time")] = None
    ca_file: Annotated[str | None, Meta(description="private CA bundle (PEM)")] = None


class WhenTable(Table, frozen=True):
    """All conditions must hold; none matches every call."""

    label: Annotated[str | None, Meta(description="a label of the call or its session")] = None
    task: Annotated[str | None, Meta(description="a task class")] = None
    model: Annotated[str | None, Meta(description="the `model` the client named")] = None
    key: Annotated[str | None, Meta(description="name of the client key")] = None


class RequireTable(Table, frozen=True):
    """Limits; of several that apply, the narrowest holds in each respect."""

    farthest: Annotated[PlaceName | None, Meta(description="farthest place allowed")] = None
    jurisdictions: Annotated[tuple[str, ...] | None, Meta(description="ISO 3166 codes or `EU`")] = (
        None
    )
    backends: Annotated[tuple[str, ...] | None, Meta(description="only these backend ids")] = None
    capabilities: Annotated[tuple[str, ...], Meta(description="what a backend must do")] = ()
    max_cost_usd: Annotated[
        Decimal | None,
        Meta(description="highest forecast cost of one call; refuses unknown prices"),
    ] = None
    max_ttft_s: Annotated[
        AboveZero | None, Meta(description="longest forecast wait for the first token")
    ] = None
    min_quality: Annotated[
        Share | None, Meta(description="share of the baseline's score; refuses unknown")
    ] = None
    known_price: Annotated[bool, Meta(description="refuse backends without a price")] = False


class RuleTable(Table, frozen=True):
    """Narrows what matching calls may use, or labels them."""

    name: Annotated[str, Meta(description="shown in every decision it shaped", min_length=1)]
    when: Annotated[WhenTable, Meta(description="conditions")] = WhenTable()
    require: Annotated[RequireTable, Meta(description="limits")] = RequireTable()
    set_labels: Annotated[tuple[str, ...], Meta(description="labels for matching calls")] = ()


class BudgetTable(Table, frozen=True, kw_only=True):
    """How much may be used up within a period; every call is checked against all that apply."""

    scope: Annotated[
        Literal["all", "tenant", "team", "key", "user"], Meta(description="whose use is counted")
    ] = "all"
    name: Annotated[
        str, Meta(description="which one; `*`: each one has this much of its own", min_length=1)
    ] = "*"
    unit: Annotated[
        Literal["usd", "requests", "tokens", "concurrent"], Meta(description="what is counted")
    ] = "usd"
    limit: Annotated[Decimal, Meta(description="how much, in that unit")]
    period: Annotated[
        Literal["minute", "hour", "day", "week", "month", "total"],
        Meta(description="when it starts anew; `concurrent` takes `total`"),
    ] = "month"
    zone: Annotated[str, Meta(description="IANA time zone in which days begin")] = "UTC"
    hard: Annotated[
        bool, Meta(description="`false`: a call over it is served and flagged `over_budget`")
    ] = True


class ServerTable(Table, frozen=True):
    """Where and how the gateway listens."""

    host: Annotated[
        str, Meta(description="address; any but loopback needs a key", min_length=1)
    ] = "127.0.0.1"
    port: Annotated[int, Meta(description="0: any free port", ge=0, le=65535)] = 4000
    key: Annotated[
        str | None,
        Meta(description='client key named `default`; write `"${NAME}"`', extra=SECRET),
    ] = None
    hosts: Annotated[
        tuple[str, ...],
        Meta(description="further names clients reach it by; only asked for where no key is"),
    ] = ()
    workers: Annotated[Positive | None, Meta(description="processes; default: one per core")] = None
    max_body_bytes: Annotated[int, Meta(description="largest request body", ge=1024)] = 32 << 20
    max_inflight: Annotated[int, Meta(description="calls at a time per worker", ge=1)] = 2048
    max_queue: Annotated[
        int, Meta(description="calls waiting for one busy backend, per worker", ge=0)
    ] = 256
    queue_timeout_s: Annotated[float, Meta(description="longest wait in that queue", gt=0)] = 30.0
    drain_s: Annotated[
        float, Meta(description="time running calls get to finish after SIGTERM", ge=0)
    ] = 30.0
    ping_s: Annotated[
        float, Meta(description="keep-alive to a streaming client while no content comes", gt=0)
    ] = 15.0
    trickle_bytes: Annotated[
        int, Meta(description="least a running stream must bring per `trickle_s`", ge=0)
    ] = 1
    trickle_s: Annotated[float, Meta(description="window of that check", gt=0)] = 60.0
    store_failure: Annotated[
        Literal["closed", "open"],
        Meta(description="`closed`: a call that cannot be recorded fails; `open`: it is served"),
    ] = "closed"
    repair_json: Annotated[
        bool, Meta(description="unwrap fenced JSON of a local model asked for it; not in streams")
    ] = False


class TimeoutsTable(Table, frozen=True):
    """Seconds, by phase of an upstream call."""

    connect_s: Annotated[float, Meta(description="to open a connection", gt=0)] = 5.0
    first_byte_s: Annotated[float, Meta(description="until the answer begins", gt=0)] = 600.0
    idle_s: Annotated[float, Meta(description="between two pieces of an answer", gt=0)] = 120.0
    total_s: Annotated[float, Meta(description="for the whole answer", gt=0)] = 3600.0


class RetryTable(Table, frozen=True):
    """When the same backend is asked again."""

    attempts: Annotated[int, Meta(description="tries per backend, the first included", ge=1)] = 2
    backoff_s: Annotated[float, Meta(description="first pause; doubles", gt=0)] = 0.25
    max_wait_s: Annotated[
        float, Meta(description="a longer `Retry-After` moves on to a fallback", ge=0)
    ] = 5.0
    budget_ratio: Annotated[
        float, Meta(description="retries and fallbacks per first attempt, over time", ge=0, le=1)
    ] = 0.2


class BreakerTable(Table, frozen=True):
    """When a failing target is left alone."""

    failures: Annotated[int, Meta(description="consecutive failures that open it", ge=1)] = 5
    open_s: Annotated[float, Meta(description="first pause; doubles", gt=0)] = 10.0
    max_open_s: Annotated[float, Meta(description="longest pause", gt=0)] = 120.0


class DiscoverTable(Table, frozen=True):
    """What is looked for at start."""

    env: Annotated[bool, Meta(description="API keys in standard environment variables")] = True
    local: Annotated[bool, Meta(description="engines on loopback at their usual ports")] = True
    probe: Annotated[
        bool, Meta(description="after its first call, a found engine shows once what it can do")
    ] = True


class EngineTable(Table, frozen=True):
    """The embedded engine."""

    context_tokens: Annotated[
        Window | None, Meta(description="window per loaded model; default: what memory allows")
    ] = None
    slots: Annotated[Positive | None, Meta(description="calls at a time per model")] = None
    threads: Annotated[Positive | None, Meta(description="default: cores less one")] = None
    unload_s: Annotated[
        AboveZero | None, Meta(description="unload a model idle for so long; default: never")
    ] = None


class MachineTable(Table, frozen=True, kw_only=True):
    """What this machine costs: models that run on it are priced from it and from what they used."""

    price_usd: Annotated[Decimal, Meta(description="what it cost")]
    years: Annotated[Decimal, Meta(description="how long it will be used")]
    residual_usd: Annotated[Decimal, Meta(description="what it is worth then")] = Decimal(0)
    kwh_usd: Annotated[
        tuple[Decimal, ...], Meta(description="price of a kWh: one, or 24 by the hour of the day")
    ]
    zone: Annotated[str, Meta(description="IANA time zone of those hours")] = "UTC"
    idle_w: Annotated[
        Share | None,
        Meta(description="power at rest, where no counter of NVML or RAPL is readable"),
    ] = None
    busy_w: Annotated[Share | None, Meta(description="the same while a call runs")] = None
    window_days: Annotated[
        float, Meta(description="prices follow the use of so many days, once an hour", gt=0)
    ] = 7.0


class LedgerTable(Table, frozen=True):
    """Where books and limits are kept; needed when several gateways share them."""

    url: Annotated[
        Text | None,
        Meta(
            description='`postgresql://...` for the ledger and the keys, write `"${NAME}"`; '
            "default: LOCAVORE_LEDGER_URL, otherwise a file under home",
            extra=SECRET,
        ),
    ] = None
    limits_url: Annotated[
        Text | None,
        Meta(
            description="`redis://...` (Valkey or Redis) for budgets and rate limits; default: a "
            "file under home",
            extra=SECRET,
        ),
    ] = None
    nodes: Annotated[
        int,
        Meta(
            description="gateways that share `limits_url`; while it is lost, each has 1/nodes", ge=1
        ),
    ] = 1
    alert_webhook: Annotated[
        Text | None,
        Meta(description="told when a budget is 50, 80 and 100 % used", extra=SECRET),
    ] = None
    alert_secret: Annotated[
        Text | None,
        Meta(
            description="signs what the webhook is told (Standard Webhooks; `whsec_` and Base64, "
            'or any text), write `"${NAME}"`',
            extra=SECRET,
        ),
    ] = None


class ExploreTable(Table, frozen=True):
    """How a promise is watched: a share of the calls is answered by the other model, too."""

    share: Annotated[
        float,
        Meta(description="of the `auto` calls under a promise; 0: nothing is watched", ge=0, le=1),
    ] = 0.02
    keep_answers_s: Annotated[
        float,
        Meta(
            description="how long that other answer is kept for your application to judge, as a "
            "file under home; 0: never written",
            ge=0,
        ),
    ] = 0.0
    keep_labels: Annotated[
        tuple[str, ...],
        Meta(description="labels whose calls' answers may be kept; default: of none"),
    ] = ()


class RoutingTable(Table, frozen=True):
    """What a choice really costs, and how far a local answer is looked at before it is served."""

    cascade: Annotated[
        bool,
        Meta(description="look at local answers first, where `locavore calibrate` allows it"),
    ] = True
    hold_s: Annotated[
        float, Meta(description="longest wait for the local answer and the look at it", ge=0)
    ] = 30.0
    stream_hold_s: Annotated[
        float,
        Meta(description="the same for streaming clients; 0: streams are not held back", ge=0),
    ] = 0.0
    least_stay: Annotated[
        float,
        Meta(description="least probability that an answer stays local, to try it", ge=0, le=1),
    ] = 0.1
    switch: Annotated[
        Literal["saving", "quality"],
        Meta(
            description="a conversation leaves a model that suffices when that saves more than the "
            "prompt cache it loses (`saving`), or not (`quality`)"
        ),
    ] = "saving"
    cache_s: Annotated[
        float,
        Meta(description="for so long a provider is taken to keep a prompt in its cache", ge=0),
    ] = 300.0
    failure_rate: Annotated[
        float,
        Meta(
            description="share of tries that fail, of a backend that did not lately", ge=0, le=0.9
        ),
    ] = 0.0


class File(Table, frozen=True):
    """The whole file."""

    posture: Annotated[
        Posture,
        Meta(
            description="share of the baseline's score a model must reach: `local_only` any and "
            "nothing public, `local_first` 0.80, `balanced` 0.90, `quality_first` 0.97"
        ),
    ] = "local_first"
    stage: Annotated[
        Stage | None,
        Meta(
            description="`observe`: `auto` goes to the baseline and what would have been chosen is "
            "recorded; `route`: `auto` goes where the decision says; default: `observe` with a "
            "baseline, `route` without"
        ),
    ] = None
    baseline: Annotated[
        str | None,
        Meta(description="`provider/model` that quality and savings are measured against"),
    ] = None
    labels: Annotated[
        tuple[str, ...] | None,
        Meta(description="every label that exists; default: those that rules name"),
    ] = None
    models: Annotated[
        tuple[str, ...] | None,
        Meta(description="pulled models to serve embedded; default: all that were pulled"),
    ] = None
    default_output_tokens: Annotated[
        int, Meta(description="output budget of a call that names none", ge=1)
    ] = 1024
    patience_s: Annotated[
        float,
        Meta(
            description="`auto` prefers a backend whose first token is forecast within this", gt=0
        ),
    ] = 60.0
    max_fallbacks: Annotated[int, Meta(description="other backends tried per call", ge=0)] = 3
    server: Annotated[ServerTable, Meta(description="where it listens")] = ServerTable()
    keys: Annotated[
        dict[Text, Text],
        Meta(description='client keys by name; write `"${NAME}"`', extra=SECRET),
    ] = {}
    limits: Annotated[RequireTable, Meta(description="limits on every call")] = RequireTable()
    backend: Annotated[tuple[BackendTable, ...], Meta(description="configured backends")] = ()
    rule: Annotated[tuple[RuleTable, ...], Meta(description="rules; all that match apply")] = ()
    budget: Annotated[
        tuple[BudgetTable, ...], Meta(description="budgets in dollars and rate limits")
    ] = ()
    ledger: Annotated[LedgerTable, Meta(description="books and limits")] = LedgerTable()
    machine: Annotated[
        MachineTable | None, Meta(description="prices of models on this machine; default: free")
    ] = None
    routing: Annotated[RoutingTable, Meta(description="what a choice costs")] = RoutingTable()
    explore: Annotated[ExploreTable, Meta(description="how a promise is watched")] = ExploreTable()
    alias: Annotated[
        dict[Text, Text],
        Meta(description="name -> backend id, `auto`, `local`, `cloud` or another alias"),
    ] = {}
    fallback: Annotated[
        dict[Text, tuple[str, ...]],
        Meta(description="backend id -> ids tried after it when a client names it"),
    ] = {}
    providers: Annotated[dict[Text, ProviderTable], Meta(description="by provider name")] = {}
    discover: Annotated[DiscoverTable, Meta(description="what is looked for")] = DiscoverTable()
    engine: Annotated[EngineTable, Meta(description="embedded engine")] = EngineTable()
    timeouts: Annotated[TimeoutsTable, Meta(description="per phase")] = TimeoutsTable()
    retry: Annotated[RetryTable, Meta(description="same backend again")] = RetryTable()
    breaker: Annotated[BreakerTable, Meta(description="circuit breakers")] = BreakerTable()
