"""What there is to serve from: configured, found in the environment, found on loopback, embedded.

`look` finds, `compile` makes a `Snapshot` of what was found, `resolve` answers for a model that
only a provider's wildcard covers. Looking reads metadata on loopback and nothing else.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from locavore.catalog import load
from locavore.compose import found
from locavore.compose.found import Found
from locavore.config import Config, versioned
from locavore.core.access import Grant, fingerprint, rule_of
from locavore.core.backend import Backend
from locavore.core.errors import StoreError
from locavore.core.estimate import Estimate
from locavore.core.money import FREE, Price
from locavore.core.policy import Policy
from locavore.engines import machine, probe, weights
from locavore.engines.ask import AskError
from locavore.engines.embedded import EmbeddedEngine, EngineError
from locavore.engines.process import State
from locavore.engines.providers import Provider
from locavore.engines.weights import InstalledModel
from locavore.ledger import keys
from locavore.ledger.prices import PriceBook
from locavore.routing.estimators import promised
from locavore.routing.estimators.promised import Entry
from locavore.serving.snapshot import Snapshot, Target, Wildcard

Tell = Callable[[str], None]
Scores = dict[str, dict[str, Estimate]]


class Inventory:
    """Backends of one gateway; lives in the supervisor."""

    def __init__(
        self,
        config: Config,
        env: Mapping[str, str],
        *,
        tell: Tell,
        changed: Callable[[], None] | None = None,
        engines: bool = True,
    ) -> None:
        """`engines=False` looks without loading a model (doctor, dry runs)."""
        self.config = config
        self._env = env
        self._tell = tell
        self._changed = changed or (lambda: None)
        self._load_engines = engines
        self._found = Found()
        self._local_models: tuple[str, ...] = ()
        self._embedded: EmbeddedEngine | None = None
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._book: PriceBook | None = None
        self._unloaded: list[InstalledModel] = []
        """Installed models of a look that loads nothing."""
        self._stored: dict[str, Grant] | None = None
        """Keys as they were read last; None: never yet."""
        self._priced: set[tuple[str, str]] = set()
        """Provider and model of every backend whose price comes from the list."""
        self.local_prices: dict[str, Price] = {}
        """Of models on this machine that would be free, by backend id (`[machine]`)."""
        self._probed: set[str] = set()
        self._broken: dict[str, str] = {}
        """Embedded model -> why it is not served."""
        self.machine = machine.describe()

    # -- looking ------------------------------------------------------------------------------

    async def look(self, *, own_port: int | None) -> None:
        """Find what is there; begin to load installed models."""
        self._found = await found.look(self.config, self._env, own_port=own_port)
        self._book = self._book or await asyncio.to_thread(PriceBook.load)
        installed = self._wanted(
            await asyncio.to_thread(weights.installed_models, self.config.home)
        )
        if not installed and not self._others():
            installed = [await asyncio.to_thread(weights.built_in, self.config.home)]
        if not self._load_engines:
            self._unloaded = installed
            return
        await self._unload_all_but({model.name for model in installed})
        for model in installed:
            if model.is_test:  # alone, it must be there when the first call comes
                await self._start(model)
            else:
                self._load(model)

    async def _unload_all_but(self, wanted: set[str]) -> None:
        if self._embedded is None:
            return
        for running in self._embedded.running:
            if running.name not in wanted:
                self._loading.pop(running.name, None)
                await self._embedded.stop(running.name, drain_s=self.config.server.drain_s)

    async def reconfigure(self, config: Config, *, own_port: int | None) -> None:
        """Look again with another configuration."""
        self.config = config
        await self.look(own_port=own_port)

    def _wanted(self, installed: list[InstalledModel]) -> list[InstalledModel]:
        wanted = self.config.models
        return [m for m in installed if wanted is None or m.name in wanted]

    def _others(self) -> bool:
        return bool(self.config.backends or self._found.servers or self._found.providers)

    def _load(self, model: InstalledModel) -> None:
        if model.name in self._loading:
            return
        task = asyncio.ensure_future(self._load_and_tell(model))
        self._loading[model.name] = task

    async def _load_and_tell(self, model: InstalledModel) -> None:
        await self._start(model)
        self._changed()

    async def _start(self, model: InstalledModel) -> None:
        if self._embedded is None:
            self._embedded = EmbeddedEngine(
                self.config.home,
                on_change=self._engine_changed,
                idle_unload_s=int(self.config.engine.unload_s or 0) or None,
            )
        engine = self.config.engine
        slots = {"parallel": engine.slots} if engine.slots else {}
        try:
            running = await self._embedded.start(
                model, context_tokens=engine.context_tokens, **slots
            )
        except EngineError as error:
            self._broken[model.name] = error.message
            self._tell(error.message)
            return
        self._broken.pop(model.name, None)
        self._tell(f"{running.backend.id} is loaded ({running.context_tokens} tokens of context)")

    def _engine_changed(self, name: str, state: State, message: str) -> None:
        why = f": {message}" if message not in ("", state.value) else ""
        self._tell(f"embedded/{name} is {state.value}{why}")

    async def probe_used(self, backend_ids: Iterable[str]) -> None:
        """A found engine's first call is the moment to see what it can do: its model is loaded."""
        if not self.config.discover.probe:
            return
        for backend in self._found.servers:
            if backend.id not in backend_ids or backend.id in self._probed:
                continue
            self._probed.add(backend.id)
            home = self.config.home
            if backend.place.local and probe.load(home, backend) is None:
                try:
                    probe.keep(home, backend, await probe.probe(backend))
                except AskError as error:
                    self._tell(f"{backend.id} could not be probed: {error}")
                else:
                    self._tell(f"{backend.id} was probed; `locavore models` shows what it can do")
                    self._changed()

    # -- compiling ----------------------------------------------------------------------------

    def compile(self) -> Snapshot:
        """The snapshot of what was found. Blocking: reads the price library and the catalog."""
        config = self.config
        gathered = _Gathered()
        for table in config.backends:
            provider = self._found.provider(table.provider or table.id.partition("/")[0])
            backend = found.configured(table, provider, self._found.twins.get(table.id))
            gathered.add(backend, found.configured_target(table, backend, provider, self._env))
        for server in self._found.servers:
            gathered.add(server, found.server_target(server, config))
        for running in self._embedded.running if self._embedded else ():
            gathered.add(running.backend, found.embedded_target(running))
        for model in self._unloaded:
            gathered.add(found.unloaded(model), found.nowhere(model))
        grants = self._grants()
        policy = _with_grants(self._policy(), grants, gathered)
        self._add_provided(gathered, policy)
        competing = gathered.competing.values()
        self._local_models = tuple(b.model for b in competing if b.place.local)
        scores = self._scores(policy)
        snapshot = Snapshot(
            version="",
            policy=policy,
            backends=tuple(self._completed(b, scores) for b in competing),
            named=tuple(self._completed(b, scores) for b in gathered.named.values()),
            wildcards=tuple(gathered.wildcards),
            targets=gathered.targets,
            target_of=gathered.target_of,
            timeouts=config.timeouts,
            retry=config.retry,
            breaker=config.breaker,
            limits=config.limits,
            grants=grants,
            quotas=config.quotas,
            promises=tuple(self._promises(gathered)),
            keep_answers_s=config.explore.keep_answers_s,
            keep_labels=frozenset(config.explore.keep_labels),
            home=str(config.home),
            ledger_url=config.ledger.url,
            limits_url=config.ledger.limits_url,
            limits_nodes=config.ledger.nodes,
            store_failure=config.server.store_failure,
            repair_json=config.server.repair_json,
            max_body_bytes=config.server.max_body_bytes,
            hosts=config.server.hosts,
            messages=self._found.messages,
        )
        return msgspec.structs.replace(snapshot, version=_version(snapshot))

    def _add_provided(self, gathered: "_Gathered", policy: Policy) -> None:
        """Cloud models: those that may compete, those the policy names, and any other by name."""
        clouds, config = self._found.providers, self.config
        competing = found.listed_models(clouds, config)
        for name in dict.fromkeys([*competing, *_named_in(policy)]):
            provider = self._found.wildcard(name)
            if provider is not None:
                backend = found.provided(provider, name.partition("/")[2])
                target = found.provider_target(provider, config)
                gathered.add(backend, target, named_only=name not in competing)
        for provider in clouds:
            target = found.provider_target(provider, config)
            gathered.targets[target.name] = target
            gathered.target_of[f"{provider.name}/*"] = target.name
            template = found.provided(provider, "*")
            gathered.wildcards.append(Wildcard(prefix=provider.name, template=template))

    def _promises(self, gathered: "_Gathered") -> Iterator[Entry]:
        """Promises of models whose weights and engine are those that were calibrated (C116)."""
        for entry in promised.read(self.config.home / promised.FOLDER):
            backend = gathered.competing.get(entry.local)
            if backend is None:
                continue
            if entry.fingerprint in ("", promised.fingerprint_of(backend)):
                yield entry
            else:
                self._tell(
                    f"the promise for {entry.local} is void: its weights or engine changed; "
                    "run `locavore calibrate` again"
                )

    def _grants(self) -> dict[str, Grant]:
        """By fingerprint: keys of the configuration allow everything, stored keys what they say.

        While their store is lost, the keys are those that were read last.
        """
        configured = {fingerprint(k): Grant(name=name) for name, k in self.config.keys.items()}
        try:
            self._stored = keys.admitted(self.config.home, self.config.ledger.url)
        except StoreError:
            if self._stored is None:  # nobody knows who may call: better no gateway
                raise
        return self._stored | configured

    def _policy(self) -> Policy:
        """Without a baseline, the first provider that was found names one (its flagship)."""
        policy = self.config.policy
        provider = next((p for p in self._found.providers if p.default_model), None)
        if policy.baseline is not None or provider is None:
            return policy
        baseline = f"{provider.name}/{provider.default_model}"
        stage = policy.stage if self.config.stage_set else "observe"
        return versioned(msgspec.structs.replace(policy, baseline=baseline, stage=stage))

    def _scores(self, policy: Policy) -> Scores:
        """On benchmarks that the baseline and most of the local models have a score in."""
        return load.quality_scores(baseline=policy.baseline, candidates=self._local_models)

    def _completed(self, backend: Backend, scores: Scores) -> Backend:
        """With the price and the quality that the libraries know."""
        price = backend.price
        if price is not None and price.source == FREE.source:
            price = self.local_prices.get(backend.id, price)
        if price is None and self._book is not None:
            self._priced.add((backend.provider, backend.model))
            price = self._book.price(backend.provider, backend.model)
        if backend.place.local and (seen := probe.load(self.config.home, backend)) is not None:
            backend = probe.applied(backend, seen)
        quality = backend.quality or load.quality_for(backend.model, scores)
        return msgspec.structs.replace(backend, price=price, quality=quality)

    def reprice(self) -> bool:
        """Whether a price in use is another one today. Blocking: reads the price library."""
        old, self._book = self._book, PriceBook.load()
        priced = tuple(self._priced)
        return old is not None and old.prices(priced) != self._book.prices(priced)

    def resolve(self, name: str) -> Backend | None:
        """The backend for a name that a provider's wildcard covers; None: no provider has it."""
        provider = self._found.wildcard(name)
        if provider is None:
            return None
        backend = found.provided(provider, name.partition("/")[2])
        return self._completed(backend, self._scores(self._policy()))

    # -- telling ------------------------------------------------------------------------------

    def states(self) -> dict[str, str]:
        """Embedded model -> what became of it."""
        if self._embedded is None:
            return dict(self._broken)
        running = {r.name: self._embedded.state(r.name).value for r in self._embedded.running}
        return running | self._broken

    def found_lines(self) -> list[str]:
        """What start-up tells: machine, engines, keys by name."""
        lines = [f"machine   {self.machine.line()}"]
        for running in self._embedded.running if self._embedded else ():
            kind = "built-in test model, not a real one" if running.backend.is_test else "embedded"
            lines.append(f"engine    {running.backend.id} ({kind})")
        lines += [f"engine    embedded/{m.name} (not loaded)" for m in self._unloaded]
        loading = [n for n, t in self._loading.items() if not t.done()]
        lines += [f"engine    embedded/{name} (loading)" for name in loading]
        lines += [f"engine    embedded/{n}: {why}" for n, why in self._broken.items()]
        lines += [f"engine    {b.id} at {b.url}" for b in self._found.servers]
        lines += [f"backend   {t.id}" for t in self.config.backends]
        lines += [f"cloud     {p.name} ({_key_of(p)})" for p in self._found.providers]
        lines += [f"note      {message}" for message in self._found.messages]
        return lines

    async def close(self) -> None:
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        if self._embedded is not None:
            await self._embedded.close()


class _Gathered:
    """Backends, the targets that reach them, and which belongs to which."""

    def __init__(self) -> None:
        self.competing: dict[str, Backend] = {}
        self.named: dict[str, Backend] = {}
        self.wildcards: list[Wildcard] = []
        self.targets: dict[str, Target] = {}
        self.target_of: dict[str, str] = {}

    def add(self, backend: Backend, target: Target, *, named_only: bool = False) -> None:
        """The first of an id stays: what is configured stands before what is found."""
        if backend.id in self.target_of:
            return
        (self.named if named_only else self.competing)[backend.id] = backend
        self.targets[target.name] = target
        self.target_of[backend.id] = target.name


def _with_grants(policy: Policy, grants: Mapping[str, Grant], gathered: _Gathered) -> Policy:
    """What keys allow, as rules, so that deciding enforces and explains it."""
    backends = [*gathered.competing.values(), *gathered.named.values()]
    by_name = {grant.name: grant for grant in grants.values()}
    rules = [rule for g in by_name.values() if (rule := rule_of(g, backends)) is not None]
    if not rules:
        return policy
    labels = policy.labels.union(*(rule.set_labels for rule in rules))
    changed = msgspec.structs.replace(policy, rules=(*policy.rules, *rules), labels=labels)
    return versioned(changed)


def _named_in(policy: Policy) -> list[str]:
    """Models that the policy speaks of: they are priced before the first call."""
    names = [policy.baseline or "", *policy.aliases.values(), *policy.fallbacks]
    for fallbacks in policy.fallbacks.values():
        names += fallbacks
    return [name for name in names if name]


def _key_of(provider: Provider) -> str:
    if provider.key_variable is None:
        return f"no key, at {provider.base_url}"
    return f"key in {provider.key_variable}"


def _version(snapshot: Snapshot) -> str:
    """Changes with anything a worker would do otherwise, secrets included."""
    data = msgspec.msgpack.encode(snapshot, order="deterministic")
    return hashlib.blake2b(data, digest_size=8).hexdigest()
