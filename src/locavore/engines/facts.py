"""What an embedded model is and can do: read from its file, checked against the running engine."""

import hashlib
from importlib import metadata
from typing import Any

from locavore.core.backend import Backend, Capability, Place
from locavore.core.money import FREE
from locavore.engines.ask import AskError, ask
from locavore.engines.child import Settings
from locavore.engines.gguf import Header
from locavore.engines.process import Check
from locavore.engines.quirks import FORCE_TOOLS_BY_SCHEMA
from locavore.engines.weights import InstalledModel

PROVIDER = "embedded"
_SPEED_PROMPT_TOKENS = 48
_ALWAYS = frozenset(
    {
        Capability.CHAT,
        Capability.COMPLETIONS,
        Capability.JSON_OBJECT,
        Capability.JSON_SCHEMA,
        Capability.LOGPROBS,
        Capability.CHOICES,
        Capability.COUNT_TOKENS,
        Capability.SEED,
    }
)


def engine_build() -> str:
    """Package and version that carries llama.cpp; without importing 100 MB of it."""
    return f"xllamacpp {metadata.version('xllamacpp')}"


def template_of(header: Header) -> str:
    """The chat template in the file; empty: none."""
    return str(header.metadata.get("tokenizer.chat_template") or "")


def is_embedding_model(header: Header) -> bool:
    """Made for vectors: an encoder, or a file that names its pooling (0 is none)."""
    return bool(header.of_architecture("pooling_type")) or "bert" in header.architecture


def capabilities_of(header: Header, *, embeddings: bool) -> frozenset[str]:
    """From the file; forced calls need no training, for they are made by a JSON schema."""
    if is_embedding_model(header):
        return frozenset({Capability.EMBEDDINGS})
    found: set[str] = set(_ALWAYS)
    template = template_of(header)
    if not template:
        found -= {Capability.CHAT, Capability.COUNT_TOKENS}
    if "tools" in template:
        found |= {Capability.TOOLS, Capability.TOOL_CHOICE}
    if "<think>" in template or "enable_thinking" in template:
        found.add(Capability.REASONING)
    if embeddings:
        found.add(Capability.EMBEDDINGS)
    return frozenset(found)


def backend_of(
    model: InstalledModel, header: Header, settings: Settings, *, prefill_tokens_s: float | None
) -> Backend:
    """The candidate that routing sees."""
    family = f"{model.sha256[:16]}/mean/normalised" if settings.embeddings else None
    return Backend(
        id=f"{PROVIDER}/{model.name}",
        provider=PROVIDER,
        model=settings.alias,
        url=f"unix:{settings.socket_path}",
        dialect="openai",
        place=Place.EMBEDDED,
        context_tokens=settings.context_tokens,
        capabilities=capabilities_of(header, embeddings=settings.embeddings),
        price=FREE,
        prefill_tokens_s=prefill_tokens_s,
        weights_sha256=model.sha256,
        engine_build=engine_build(),
        embedding_family=family,
        quirks=frozenset({FORCE_TOOLS_BY_SCHEMA}),
        is_test=model.is_test,
    )


def readiness_check(header: Header, settings: Settings) -> Check:
    """A check that the engine serves this model, template and context, not merely that it is up."""

    async def check() -> str | None:
        try:
            props = (await _ask(settings, "/props")).json()
            models = (await _ask(settings, "/v1/models")).json()
        except AskError as error:
            return f"it started but does not answer: {error}"
        return mismatch(header, settings, props, models)

    return check


def mismatch(header: Header, settings: Settings, props: Any, models: Any) -> str | None:
    """The first difference between what was asked for and what the engine says it serves."""
    try:
        served = [row["id"] for row in models["data"]]
        context = props["default_generation_settings"]["n_ctx"]
        template, slots = str(props.get("chat_template") or ""), props["total_slots"]
    except (KeyError, TypeError):
        return f"it does not describe itself as llama.cpp does: {str(props)[:200]!r}"
    if settings.alias not in served:
        return f"it serves {served!r}, not {settings.alias!r}"
    if context < settings.context_tokens:
        return f"a request gets {context!r} tokens of context, not {settings.context_tokens!r}"
    if slots != settings.parallel:
        return f"it has {slots!r} slots, not {settings.parallel!r}"
    own = template_of(header)
    if own and _digest(own) != _digest(template):
        return f"it uses another chat template ({template[:60]!r}) than its file ({own[:60]!r})"
    return None


def _digest(template: str) -> str:
    return hashlib.sha256(template.strip().encode()).hexdigest()


async def prompt_speed(settings: Settings) -> float | None:
    """Prompt tokens per second of one short prompt, which also warms the model up."""
    prompt = list(range(10, 10 + _SPEED_PROMPT_TOKENS))
    body = {"prompt": prompt, "n_predict": 1, "cache_prompt": False}
    try:
        answer = (await _ask(settings, "/completion", body, timeout_s=120.0)).json()
        speed = float(answer["timings"]["prompt_per_second"])
    except (AskError, KeyError, TypeError, ValueError):
        return None
    return speed if speed > 0 else None


async def _ask(settings: Settings, path: str, body: Any = None, timeout_s: float = 10.0) -> Any:
    return await ask(
        f"http://engine{path}",
        body,
        headers={"authorization": f"Bearer {settings.api_key}"},
        timeout_s=timeout_s,
        socket_path=settings.socket_path,
    )
