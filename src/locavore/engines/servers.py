"""How each local server names itself and what it serves, read from its metadata endpoints.

One reader per server: asked of a base URL it returns the models there, or None when the server
is another one. Nothing here generates or loads a model.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from locavore.core.backend import Capability
from locavore.engines.ask import AskError, ask

OLLAMA_DEFAULT_CONTEXT_TOKENS = 4096
"""Ollama's window with less than 24 GiB of GPU memory (docs.ollama.com/context-length)."""

Get = Callable[..., Awaitable[Any]]
"""`get(path, body=None)` -> the JSON there, or None for anything but a 200 with JSON."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a server, as far as metadata tells."""

    model: str
    context_tokens: int | None = None
    capabilities: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    build: str | None = None
    remote: bool = False
    """Runs on somebody else's machines although the server is local (Ollama's cloud models)."""
    note: str | None = None


def getter(base_url: str, *, headers: dict[str, str], timeout_s: float) -> Get:
    """A `Get` for one server."""

    async def get(path: str, body: Any = None) -> Any:
        try:
            answer = await ask(base_url + path, body, headers=headers, timeout_s=timeout_s)
        except AskError:
            return None
        return answer.json() if answer.status == 200 else None

    return get


async def ollama(get: Get, configured_tokens: int | None) -> list[Served] | None:
    """`/api/version`, `/api/tags`, `/api/ps` and, per model, `/api/show` (which loads nothing)."""
    version = _mapping(await get("/api/version")).get("version")
    tags = _rows(await get("/api/tags"), "models")
    if not isinstance(version, str) or tags is None:
        return None
    loaded = {row.get("name"): row for row in _rows(await get("/api/ps"), "models") or []}
    models = []
    for row in tags:
        name = str(row.get("name"))
        shown = _mapping(await get("/api/show", {"model": name}))
        running = _positive(loaded.get(name, {}).get("context_length"))
        models.append(_ollama_model(row, shown, running, configured_tokens, version))
    return models


def _ollama_model(
    row: dict[str, Any],
    shown: dict[str, Any],
    running_tokens: int | None,
    configured_tokens: int | None,
    version: str,
) -> Served:
    remote = bool(row.get("remote_host") or shown.get("remote_host"))
    tokens, note = _ollama_context(shown, running_tokens, configured_tokens)
    names = {
        "completion": (Capability.CHAT, Capability.COMPLETIONS, Capability.JSON_SCHEMA),
        "tools": (Capability.TOOLS,),
        "vision": (Capability.VISION,),
        "thinking": (Capability.REASONING,),
        "embedding": (Capability.EMBEDDINGS,),
    }
    told = shown.get("capabilities")
    can = {c for name in told or () for c in names.get(name, ())}
    missing = {c for name, each in names.items() if told and name not in told for c in each}
    return Served(
        model=str(row.get("name")),
        context_tokens=tokens,
        capabilities=frozenset(can),
        lacks=frozenset(missing),
        build=f"ollama {version}",
        remote=remote,
        note=note,
    )


def _ollama_context(
    shown: dict[str, Any], running_tokens: int | None, configured_tokens: int | None
) -> tuple[int | None, str | None]:
    """The window a call gets, which is rarely what the model could do, and how that is known.

    A prompt beyond it loses its front silently, and `/v1` has no field to raise it.
    """
    info = _mapping(shown.get("model_info"))
    trained = _positive(info.get(f"{info.get('general.architecture')}.context_length"))
    if running_tokens:
        return running_tokens, None
    asked = _parameter(str(shown.get("parameters") or ""), "num_ctx") or configured_tokens
    if asked:
        return min(asked, trained or asked), None
    tokens = min(OLLAMA_DEFAULT_CONTEXT_TOKENS, trained or OLLAMA_DEFAULT_CONTEXT_TOKENS)
    return tokens, (
        f"not loaded, so a window of {tokens:,} tokens is assumed (Ollama's smallest default); "
        "start Ollama with OLLAMA_CONTEXT_LENGTH, and Locavore too, to say otherwise"
    )


def _parameter(text: str, name: str) -> int | None:
    """A number from Ollama's `parameters`, lines of `name   value`."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 2 and fields[0] == name and fields[1].isdigit():
            return int(fields[1])
    return None


async def vllm(get: Get, _: int | None) -> list[Served] | None:
    """`/v1/models` with `max_model_len`; `/version`."""
    rows = _owned(await get("/v1/models"), "vllm")
    if rows is None:
        return None
    version = _mapping(await get("/version")).get("version")
    build = f"vllm {version}" if version else "vllm"
    return [_listed(row, build) for row in rows]


async def sglang(get: Get, _: int | None) -> list[Served] | None:
    """`/v1/models` with `max_model_len`; `/get_model_info`."""
    rows = _owned(await get("/v1/models"), "sglang")
    if rows is None:
        return None
    info = _mapping(await get("/get_model_info"))
    sees = {Capability.VISION.value} if info.get("has_image_understanding") else set()
    listed = [_listed(row, "sglang") for row in rows]
    return [msgspec.structs.replace(row, capabilities=frozenset(sees)) for row in listed]


async def tgi(get: Get, _: int | None) -> list[Served] | None:
    """`/info`: one model, prompt and answer together in `max_total_tokens`."""
    info = _mapping(await get("/info"))
    tokens = _positive(info.get("max_total_tokens"))
    if not isinstance(info.get("model_id"), str) or tokens is None:
        return None
    build = f"tgi {info.get('version', '')}".strip()
    return [Served(model=info["model_id"], context_tokens=tokens, build=build)]


async def llama_cpp(get: Get, _: int | None) -> list[Served] | None:
    """`/v1/models` and `/props`: the window of one slot, which is what a request gets."""
    rows = _owned(await get("/v1/models"), "llamacpp")
    if rows is None:
        return None
    props = _mapping(await get("/props"))
    tokens = _positive(_mapping(props.get("default_generation_settings")).get("n_ctx"))
    can, lacks = _llama_cpp_abilities(props)
    build = f"llama.cpp {props.get('build_info', '')}".strip()
    return [
        Served(
            model=str(row.get("id")),
            context_tokens=tokens,
            capabilities=can,
            lacks=lacks,
            build=build,
        )
        for row in rows
    ]


def _llama_cpp_abilities(props: dict[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    told = {
        Capability.TOOLS: _mapping(props.get("chat_template_caps")).get("supports_tools"),
        Capability.VISION: _mapping(props.get("modalities")).get("vision"),
        Capability.AUDIO: _mapping(props.get("modalities")).get("audio"),
    }
    told[Capability.TOOL_CHOICE] = told[Capability.TOOLS]
    can = frozenset(name.value for name, value in told.items() if value is True)
    return can, frozenset(name.value for name, value in told.items() if value is False)


async def lm_studio(get: Get, _: int | None) -> list[Served] | None:
    """`/api/v1/models` (0.4 and later), else `/api/v0/models`; only loaded models have a window."""
    rows = _rows(await get("/api/v1/models"), "models")
    if rows is not None and all("loaded_instances" in row for row in rows):
        return [model for row in rows for model in _lm_studio_models(row)]
    rows = _rows(await get("/api/v0/models"), "data")
    if rows is None or not all("max_context_length" in row for row in rows):
        return None
    return [_lm_studio_old(row) for row in rows]


def _lm_studio_models(row: dict[str, Any]) -> list[Served]:
    told = _mapping(row.get("capabilities"))
    kind = {"tools": told.get("trained_for_tool_use"), "vision": told.get("vision")}
    can, lacks = _lm_studio_abilities(str(row.get("type")), kind)
    windows = {
        str(instance.get("id")): _positive(_mapping(instance.get("config")).get("context_length"))
        for instance in _rows(row, "loaded_instances") or []
    }
    names = windows or {str(row.get("key")): None}
    return [
        Served(model=n, context_tokens=t, capabilities=can, lacks=lacks, build="lm_studio")
        for n, t in names.items()
    ]


def _lm_studio_old(row: dict[str, Any]) -> Served:
    told = row.get("capabilities")
    kind = {
        "tools": "tool_use" in told if isinstance(told, list) else None,
        "vision": row.get("type") == "vlm",
    }
    can, lacks = _lm_studio_abilities(str(row.get("type")), kind)
    tokens = _positive(row.get("loaded_context_length"))
    return Served(
        model=str(row.get("id")),
        context_tokens=tokens,
        capabilities=can,
        lacks=lacks,
        build="lm_studio",
    )


def _lm_studio_abilities(
    kind: str, told: dict[str, bool | None]
) -> tuple[frozenset[str], frozenset[str]]:
    if kind.startswith("embedding"):
        lacks = {Capability.CHAT.value, Capability.COMPLETIONS.value, Capability.JSON_SCHEMA.value}
        return frozenset({Capability.EMBEDDINGS.value}), frozenset(lacks)
    can = {name for name, value in told.items() if value is True}
    lacks = {name for name, value in told.items() if value is False}
    return frozenset(can), frozenset(lacks | {Capability.EMBEDDINGS.value})


async def localai(get: Get, _: int | None) -> list[Served] | None:
    """`/system` names its backends; windows are not told."""
    system = _mapping(await get("/system"))
    rows = _rows(await get("/v1/models"), "data")
    if "backends" not in system or rows is None:
        return None
    return [Served(model=str(row.get("id")), build="localai") for row in rows]


READERS = {
    "ollama": ollama,
    "vllm": vllm,
    "sglang": sglang,
    "tgi": tgi,
    "llama_cpp": llama_cpp,
    "lm_studio": lm_studio,
    "localai": localai,
}


def _listed(row: dict[str, Any], build: str) -> Served:
    tokens = _positive(row.get("max_model_len"))
    return Served(model=str(row.get("id")), context_tokens=tokens, build=build)


def _owned(listing: Any, owner: str) -> list[dict[str, Any]] | None:
    """The rows of a model listing whose owner says what server it is; None: another server.

    A LoRA adapter's row of vLLM carries the same owner and the base model as `parent`.
    """
    rows = _rows(listing, "data")
    if not rows or any(row.get("owned_by") != owner for row in rows):
        return None
    return rows


def _rows(value: Any, key: str) -> list[dict[str, Any]] | None:
    found = _mapping(value).get(key)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        return None
    return found


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
