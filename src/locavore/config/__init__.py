"""The configuration, read once: flags, then environment, then file, then defaults.

`load` validates the file as a whole and raises one `ConfigError` that names every problem by file,
key and value. A reload calls it again; a bad file leaves the old `Config` in place.
"""

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from locavore.config.checks import cross_check
from locavore.config.policy import place_of as place_of
from locavore.config.policy import policy_of
from locavore.config.policy import versioned as versioned
from locavore.config.reading import Reader, shown
from locavore.config.schema import (
    BackendTable,
    DiscoverTable,
    EngineTable,
    ExploreTable,
    File,
    LedgerTable,
    MachineTable,
    PriceTable,
    ProviderTable,
    ServerTable,
)
from locavore.core.access import Quota
from locavore.core.backend import Backend, Capability, Place, place_of_host
from locavore.core.errors import ConfigError, StoreError
from locavore.core.money import FREE, Price, Rate
from locavore.core.policy import Policy
from locavore.core.ports import Timeouts
from locavore.serving.snapshot import BreakerPolicy, Limits, RetryPolicy

DEFAULT_KEY_NAME = "default"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was configured; nothing that was discovered."""

    path: Path | None
    """The file; None: there is none."""
    home: Path
    server: ServerTable
    keys: dict[str, str]
    """Client key by name. Secrets: not shown."""
    quotas: tuple[Quota, ...]
    """Budgets and rate limits of `[[budget]]`."""
    ledger: LedgerTable
    """Where books and limits are kept. Secrets: not shown."""
    machine: MachineTable | None
    """What this machine costs; None: models on it are free."""
    policy: Policy
    stage_set: bool
    """`stage` was written down; otherwise it follows from the baseline."""
    backends: tuple[BackendTable, ...]
    """As written; `backend_of` completes one."""
    providers: dict[str, ProviderTable]
    models: tuple[str, ...] | None
    discover: DiscoverTable
    engine: EngineTable
    explore: ExploreTable
    timeouts: Timeouts
    retry: RetryPolicy
    breaker: BreakerPolicy
    limits: Limits
    origin: dict[str, str]
    """Setting -> `flag`, `environment`, `file` or `default`, for those that have all four."""

    def __repr__(self) -> str:
        return f"Config({str(self.path)!r}, home={str(self.home)!r}, keys={sorted(self.keys)!r})"


def load(
    path: Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration in force.

    `flags`: `host`, `port`, `home`, `config`, `key`, `workers`, `env` (False: ignore provider
    variables); absent or None means not given. Raises ConfigError with all problems.
    """
    env = os.environ if env is None else env
    given = {k: v for k, v in (flags or {}).items() if v is not None}
    home = Path(given.get("home") or env.get("LOCAVORE_HOME") or "~/.locavore").expanduser()
    path = _path(path, env, given, home)
    reader = Reader(str(path) if path else "configuration", env)
    if home.exists() and not home.is_dir():
        reader.problem("home", f"{str(home)!r} is a file; LOCAVORE_HOME (--home) names a folder")
    values = _parse(path, reader)
    file = reader.file(values or {})
    cross_check(file, reader)
    settings = _Settings(file, env, given, reader)
    server, keys = settings.server(), settings.keys()
    ledger = settings.ledger()
    if not (reader.problems and ledger.url):  # only a good address is asked for keys
        _check_listener(server, keys, home, ledger.url, reader)
    if reader.problems:
        raise ConfigError(reader.problems)
    return Config(
        path=path,
        home=home,
        server=server,
        keys=keys,
        quotas=tuple(Quota(**msgspec.structs.asdict(table)) for table in file.budget),
        ledger=ledger,
        machine=file.machine,
        policy=policy_of(file),
        stage_set=file.stage is not None,
        backends=file.backend,
        providers=file.providers,
        models=file.models,
        discover=_discover(file.discover, given),
        engine=file.engine,
        explore=file.explore,
        timeouts=Timeouts(**msgspec.structs.asdict(file.timeouts)),
        retry=RetryPolicy(**msgspec.structs.asdict(file.retry)),
        breaker=BreakerPolicy(**msgspec.structs.asdict(file.breaker)),
        limits=Limits(
            max_inflight=server.max_inflight,
            max_queue=server.max_queue,
            queue_timeout_s=server.queue_timeout_s,
            ping_s=server.ping_s,
            trickle_bytes=server.trickle_bytes,
            trickle_s=server.trickle_s,
        ),
        origin=settings.origin,
    )


def _path(
    path: Path | None, env: Mapping[str, str], flags: Mapping[str, Any], home: Path
) -> Path | None:
    named = path or flags.get("config") or env.get("LOCAVORE_CONFIG")
    if named:
        return Path(named).expanduser()
    return home / "config.toml" if (home / "config.toml").exists() else None


def _parse(path: Path | None, reader: Reader) -> dict[str, Any] | None:
    """TOML as dicts; None when it cannot be read. Numbers stay decimal: they may be money."""
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        reader.problem("file", f"cannot be read: {error.strerror}; check the path and its rights")
    except UnicodeDecodeError as error:
        reader.problem("file", f"not UTF-8 at byte {error.start}; save it as UTF-8")
    except tomllib.TOMLDecodeError as error:
        reader.problem("file", f"not TOML: {error}")
    return None


def _discover(table: DiscoverTable, flags: Mapping[str, Any]) -> DiscoverTable:
    return msgspec.structs.replace(table, env=flags.get("env", table.env))


# Settings from four places -----------------------------------------------------------------------


class _Settings:
    """Flags over environment over file over default, with where each came from."""

    def __init__(
        self, file: File, env: Mapping[str, str], flags: Mapping[str, Any], reader: Reader
    ) -> None:
        self.file, self.env, self.flags, self.reader = file, env, flags, reader
        self.origin: dict[str, str] = {}

    def server(self) -> ServerTable:
        found = {
            "host": self._value("host", "LOCAVORE_HOST", ServerTable().host),
            "port": self._port(self._value("port", "LOCAVORE_PORT", ServerTable().port)),
            "workers": self._value("workers", None, None),
        }
        return msgspec.structs.replace(self.file.server, **found, key=None)

    def keys(self) -> dict[str, str]:
        key = self._value("key", "LOCAVORE_KEY", None)
        return dict(self.file.keys) | ({DEFAULT_KEY_NAME: key} if key else {})

    def ledger(self) -> LedgerTable:
        """The variable is the one that `locavore report` and the other commands read."""
        url = self.file.ledger.url or self.env.get("LOCAVORE_LEDGER_URL") or None
        return msgspec.structs.replace(self.file.ledger, url=url)

    def _value(self, name: str, variable: str | None, default: Any) -> Any:
        in_file = getattr(self.file.server, name)
        for origin, value in (
            ("flag", self.flags.get(name)),
            ("environment", (self.env.get(variable) or None) if variable else None),
            ("file", in_file if in_file != default else None),
        ):
            if value is not None:
                self.origin[name] = origin
                return value
        self.origin[name] = "default"
        return default

    def _port(self, value: Any) -> int:
        try:
            port = int(value)
        except ValueError:
            port = -1
        if not 0 <= port <= 65535:
            where = "LOCAVORE_PORT" if self.origin["port"] == "environment" else "--port"
            self.reader.problems.append(f"{where}: expected a number up to 65535, got {value!r}")
        return port


def _check_listener(
    server: ServerTable,
    keys: Mapping[str, str],
    home: Path,
    ledger_url: str | None,
    reader: Reader,
) -> None:
    unread = any(told.startswith(f"{reader.source}: keys") for told in reader.problems)
    if keys or unread or is_loopback(server.host):
        return
    try:
        if _has_stored_keys(home, ledger_url):
            return
    except StoreError as error:
        reader.problem("ledger", f"the client keys cannot be read: {error.message}")
        return
    reader.problem(
        "server.host",
        f"refusing to listen on {server.host!r} without a key: anybody who reaches it could spend "
        "your money; set LOCAVORE_KEY, run `locavore keys create`, or listen on 127.0.0.1",
    )


def _has_stored_keys(home: Path, ledger_url: str | None) -> bool:
    """Keys made by `locavore keys create`."""
    from locavore.ledger.keys import compiled  # sqlite3; only who listens beyond loopback asks

    return (home.exists() or ledger_url is not None) and bool(compiled(home, ledger_url))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# Backends --------------------------------------------------------------------------------------


def place_of_url(url: str) -> Place:
    """Where an unlabelled URL leads: a name that may be anybody's counts as farthest away."""
    if url.startswith("unix:"):
        return Place.ON_PREM
    return place_of_host(urlsplit(url).hostname or "")


def price_of(table: PriceTable) -> Price:
    rates = msgspec.structs.asdict(table)
    as_of = rates.pop("as_of")
    return Price(rate=Rate(**rates), source="config", as_of=as_of)


def backend_of(
    table: BackendTable,
    *,
    url: str | None = None,
    dialect: str | None = None,
    place: Place | None = None,
    price: Price | None = None,
) -> Backend:
    """A configured backend; keyword arguments are what the provider or the catalog says.

    What is written in the file wins. Raises ConfigError when no URL is known.
    """
    provider, _, model = table.id.partition("/")
    address = table.url or url
    if address is None:
        raise ConfigError([f"backend {table.id!r}: no url, and {provider!r} is no known provider"])
    told = place_of(table.place)
    where = told if told is not None else _place(table, place, address)
    able = frozenset(table.capabilities)
    if Capability.EMBEDDINGS not in able:
        able |= {Capability.CHAT}
    own = price_of(table.price) if table.price else price
    return Backend(
        id=table.id,
        provider=table.provider or provider,
        model=table.model or model,
        url=address,
        dialect=table.dialect or dialect or "openai",
        place=where,
        jurisdiction=table.jurisdiction,
        context_tokens=table.context_tokens,
        max_output_tokens=table.max_output_tokens,
        capabilities=able,
        lacks=frozenset(table.lacks),
        price=own or (FREE if where.local else None),
        prefill_tokens_s=table.prefill_tokens_s,
        embedding_family=table.embedding_family,
    )


def _place(table: BackendTable, provider: Place | None, address: str) -> Place:
    """A provider's place holds only for the provider's own URL."""
    return provider if provider is not None and table.url is None else place_of_url(address)


def describe(config: Config) -> list[str]:
    """Lines for `serve --check` and `doctor`: what is in force and where it came from."""
    policy = config.policy
    lines = [f"file: {config.path or 'none'}", f"home: {config.home}"]
    for name, origin in sorted(config.origin.items()):
        given = getattr(config.server, name)
        value = "set" if name == "key" else "one per core" if given is None else shown(given)
        if name != "key" or origin != "default":
            lines.append(f"{name}: {value} (from {origin})")
    lines.append(f"posture: {policy.posture}, stage: {policy.stage}, baseline: {policy.baseline}")
    lines.append(f"policy version: {policy.version}")
    return lines
