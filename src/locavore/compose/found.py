"""Backends and the targets that reach them, from each of the places they are found in."""

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

import msgspec

from locavore.config import Config, backend_of, place_of
from locavore.config.schema import BackendTable, ProviderTable
from locavore.core.backend import Backend, Place
from locavore.core.errors import ConfigError
from locavore.core.money import FREE
from locavore.engines import facts, machine, providers
from locavore.engines.discover import Discovery, discover
from locavore.engines.embedded import RunningModel
from locavore.engines.fit import choose_context
from locavore.engines.gguf import read_header
from locavore.engines.providers import Provider
from locavore.engines.weights import InstalledModel
from locavore.serving.snapshot import Target

NO_OVERRIDE = ProviderTable()


class Found(msgspec.Struct, kw_only=True):
    """What one look found."""

    servers: tuple[Backend, ...] = ()
    """Models of local servers on loopback, without those that are configured."""
    twins: dict[str, Backend] = {}
    """Configured id -> what its server told of it."""
    providers: tuple[Provider, ...] = ()
    """Cloud APIs with a key."""
    messages: tuple[str, ...] = ()

    def provider(self, name: str) -> Provider | None:
        return next((p for p in self.providers if p.name == name), None)

    def wildcard(self, model_id: str) -> Provider | None:
        """The provider that any `provider/model` reaches."""
        prefix, slash, model = model_id.partition("/")
        return self.provider(prefix) if slash and model else None


async def look(config: Config, env: Mapping[str, str], *, own_port: int | None) -> Found:
    """Clouds by their environment variables, servers by their metadata on loopback."""
    clouds, messages = cloud_providers(config, env, own_port=own_port)
    local = Discovery()
    if config.discover.local:
        local = await discover(env, own_port=own_port)
    servers = [_overridden(b, config) for b in local.backends if _enabled(b.provider, config)]
    twins = twins_of(config.backends, servers)
    own = {backend.id for backend in twins.values()}
    return Found(
        servers=tuple(b for b in servers if b.id not in own),
        twins=twins,
        providers=tuple(clouds),
        messages=(*messages, *local.messages, *unserved(config.backends, servers)),
    )


def twins_of(tables: Iterable[BackendTable], servers: Iterable[Backend]) -> dict[str, Backend]:
    """Id of a configured backend -> the same model at the same address, as it was found."""
    served = {(address(b.url), b.model): b for b in servers}
    named = {t.id: (address(t.url), _model_of(t)) for t in tables if t.url is not None}
    return {id_: served[place] for id_, place in named.items() if place in served}


def unserved(tables: Iterable[BackendTable], servers: Iterable[Backend]) -> Iterator[str]:
    """Configured models that the server at their address does not list."""
    listed: dict[str, list[str]] = {}
    for backend in servers:
        listed.setdefault(address(backend.url), []).append(backend.model)
    for table in tables:
        models = listed.get(address(table.url)) if table.url is not None else None
        if models and _model_of(table) not in models:
            yield (
                f"{table.id} asks {table.url} for {_model_of(table)!r}, which it does not list; "
                f"it serves {', '.join(sorted(models))}"
            )


def address(url: str) -> str:
    """A base URL in one spelling: this machine has several names, and a slash may end it."""
    parts = urlsplit(url.rstrip("/"))
    host = parts.hostname or ""
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return url
    host = "127.0.0.1" if providers.is_loopback(host) else host
    return f"{parts.scheme}://{host}:{port}{parts.path}"


def _model_of(table: BackendTable) -> str:
    return table.model or table.id.partition("/")[2] or table.id


def cloud_providers(
    config: Config, env: Mapping[str, str], *, own_port: int | None
) -> tuple[list[Provider], list[str]]:
    """(enabled providers with the configuration's overrides, messages)."""
    known = dict(env) if config.discover.env else {}
    for name, table in config.providers.items():
        row = providers.rows().get(name)
        if row is not None and table.api_key_env is not None:
            # The configured variable stands for the usual one.
            known[row.key_variables[0]] = required(env, table.api_key_env, f"providers.{name}")
        if row is not None and table.base_url is not None and row.base_url_variable is not None:
            known[row.base_url_variable] = table.base_url
    found, messages = providers.from_environment(known, own_port=own_port)
    enabled = [p for p in found if _enabled(p.name, config)]
    return [_with_table(p, config.providers.get(p.name, NO_OVERRIDE)) for p in enabled], messages


def required(env: Mapping[str, str], variable: str, where: str) -> str:
    value = env.get(variable, "").strip()
    if not value:
        raise ConfigError([f"{where}: api_key_env names {variable!r}, which is not set"])
    return value


def _enabled(name: str, config: Config) -> bool:
    return config.providers.get(name, NO_OVERRIDE).enabled


def _with_table(provider: Provider, table: ProviderTable) -> Provider:
    changes: dict[str, object] = {}
    if table.base_url is not None:
        changes["base_url"] = table.base_url.rstrip("/")
        changes["place"] = providers.place_of(table.base_url)
    if table.place is not None:
        changes["place"] = place_of(table.place)
    if table.jurisdiction is not None:
        changes["jurisdiction"] = table.jurisdiction
    return msgspec.structs.replace(provider, **changes)


def _overridden(backend: Backend, config: Config) -> Backend:
    table = config.providers.get(backend.provider, NO_OVERRIDE)
    place = place_of(table.place)
    changes: dict[str, object] = {}
    if place is not None and backend.place.local:  # a server's cloud models stay in the cloud
        changes["place"] = place
    if table.jurisdiction is not None:
        changes["jurisdiction"] = table.jurisdiction
    return msgspec.structs.replace(backend, **changes)


# One backend and the way to it ---------------------------------------------------------------


def configured(
    table: BackendTable, provider: Provider | None, twin: Backend | None = None
) -> Backend:
    """A `[[backend]]`, completed by what is known of the provider it names, or by what its server
    told (`twin`)."""
    if twin is not None:
        return _completed_by(backend_of(table), twin)
    if provider is None:
        return backend_of(table)
    backend = backend_of(
        table, url=provider.base_url, dialect=provider.dialect, place=provider.place
    )
    if table.url is not None:
        return backend
    return msgspec.structs.replace(
        backend,
        capabilities=backend.capabilities | (provider.capabilities - backend.lacks),
        lacks=backend.lacks | (provider.lacks - backend.capabilities),
        quirks=backend.quirks | provider.quirks,
        jurisdiction=backend.jurisdiction or provider.jurisdiction,
    )


def _completed_by(backend: Backend, twin: Backend) -> Backend:
    """What the configuration says stands; what it leaves open is as the server told."""
    return msgspec.structs.replace(
        backend,
        context_tokens=backend.context_tokens or twin.context_tokens,
        capabilities=backend.capabilities | (twin.capabilities - backend.lacks),
        lacks=backend.lacks | (twin.lacks - backend.capabilities),
        quirks=backend.quirks | twin.quirks,
        engine_build=backend.engine_build or twin.engine_build,
    )


def configured_target(
    table: BackendTable, backend: Backend, provider: Provider | None, env: Mapping[str, str]
) -> Target:
    """How to reach a configured backend. Raises ConfigError for a key variable that is unset."""
    key = variable = None
    if table.api_key_env is not None:
        variable = table.api_key_env
        key = required(env, variable, f"backend {table.id!r}")
    elif provider is not None and table.url is None:
        key, variable = provider.api_key, provider.key_variable
    return Target(
        name=f"backend:{backend.id}",
        url=backend.url,
        headers=credentials(backend.dialect, key),
        key_variable=variable,
        ca_file=table.ca_file,
        max_concurrency=table.max_concurrency,
        drain_on_disconnect=table.on_disconnect == "drain",
    )


def provided(provider: Provider, model: str) -> Backend:
    """Any model of a provider."""
    return providers.backend_for(provider, model)


def provider_target(provider: Provider, config: Config) -> Target:
    table = config.providers.get(provider.name, NO_OVERRIDE)
    return Target(
        name=f"provider:{provider.name}",
        url=provider.base_url,
        headers=credentials(provider.dialect, provider.api_key),
        key_variable=table.api_key_env or provider.key_variable,
        ca_file=table.ca_file,
        max_concurrency=table.max_concurrency,
    )


def server_target(backend: Backend, config: Config) -> Target:
    table = config.providers.get(backend.provider, NO_OVERRIDE)
    return Target(
        name=f"server:{backend.url}",
        url=backend.url,
        ca_file=table.ca_file,
        max_concurrency=table.max_concurrency,
    )


def embedded_target(running: RunningModel) -> Target:
    headers = tuple((name.decode(), value.decode()) for name, value in running.headers)
    return Target(
        name=f"embedded:{running.name}",
        url=running.backend.url,
        headers=headers,
        max_concurrency=running.parallel,
    )


def unloaded(model: InstalledModel) -> Backend:
    """An installed model as routing would see it if it were loaded."""
    header = read_header(model.path)
    tokens, _ = choose_context(header, machine.describe(), None)
    return Backend(
        id=f"{facts.PROVIDER}/{model.name}",
        provider=facts.PROVIDER,
        model=model.name,
        url="",
        dialect="openai",
        place=Place.EMBEDDED,
        context_tokens=tokens or None,
        capabilities=facts.capabilities_of(header, embeddings=model.is_test),
        price=FREE,
        weights_sha256=model.sha256,
        is_test=model.is_test,
    )


def nowhere(model: InstalledModel) -> Target:
    """The target of a model that is not loaded; nothing is ever sent to it."""
    return Target(name=f"embedded:{model.name}", url="unix:/nonexistent")


def credentials(dialect: str, key: str | None) -> tuple[tuple[str, str], ...]:
    """Header lines that carry a key in each dialect."""
    if not key:
        return ()
    if dialect == "anthropic":
        return (("x-api-key", key),)
    return (("authorization", f"Bearer {key}"),)


def listed_models(found: Iterable[Provider], config: Config) -> list[str]:
    """Cloud models that the configuration lets compete."""
    return [
        f"{p.name}/{model}"
        for p in found
        for model in config.providers.get(p.name, NO_OVERRIDE).models
    ]
