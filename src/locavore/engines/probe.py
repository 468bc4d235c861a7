"""What an engine really does, found by making it work: window, tools, schema, logprobs, vision.

Runs on first use or by `locavore doctor --probe`, never at start: it generates, and so may load a
model. Findings are kept under LOCAVORE_HOME until the engine, its build or its model changes.
"""

import asyncio
import base64
import hashlib
import json
import struct
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from locavore.core.backend import Backend, Capability
from locavore.engines.ask import Answer, AskError, ask
from locavore.engines.truncation import truncated

WORD = " apple"
"""Filler: one token, or a constant number of them, in every tokenizer."""
_SHORT_WORDS, _LONGER_WORDS = 64, 192
_FIRST_TOKENS = 1024
_SLACK_TOKENS = 64
_COUNT_ERROR = 0.9
_REFUSED = frozenset({400, 404, 405, 415, 422, 501})


class Findings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was seen. A capability in neither set could not be decided."""

    capabilities: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    context_tokens: int | None = None
    """Longest prompt tried that was read whole, or the window that one was cut to."""
    context_is_limit: bool = False
    """A longer prompt was tried and refused or cut."""
    truncates: bool = False
    """Cut a prompt silently and answered all the same."""
    prefill_tokens_s: float | None = None
    notes: tuple[str, ...] = ()
    as_of: str = ""


class Probe:
    """Asks one backend of the OpenAI dialect."""

    def __init__(
        self, backend: Backend, *, headers: dict[str, str], timeout_s: float, budget_s: float
    ) -> None:
        self.backend = backend
        self._headers, self._timeout_s, self._budget_s = headers, timeout_s, budget_s
        unix = backend.url.startswith("unix:")
        self._socket = backend.url.removeprefix("unix:").removesuffix("/v1") if unix else None
        self._base = "http://engine/v1" if unix else backend.url
        self.can: set[str] = set()
        self.lacks: set[str] = set()
        self.notes: list[str] = []

    async def post(self, path: str, body: dict[str, Any]) -> Answer:
        return await ask(
            self._base + path,
            {"model": self.backend.model, **body},
            headers=self._headers,
            timeout_s=self._timeout_s,
            socket_path=self._socket,
        )

    async def chat(self, text: Any, **more: Any) -> Answer:
        messages = [{"role": "user", "content": text}]
        more = {"max_tokens": 256, "temperature": 0} | more
        return await self.post("/chat/completions", {"messages": messages, **more})

    def found(self, capability: Capability, answer: Answer, seen: bool | None) -> None:
        """A refusal is a no; an answer without the thing is a no only where `seen` is False."""
        if answer.status in _REFUSED or (answer.status == 200 and seen is False):
            self.lacks.add(capability.value)
        elif answer.status == 200 and seen:
            self.can.add(capability.value)


async def probe(
    backend: Backend,
    *,
    headers: dict[str, str] | None = None,
    timeout_s: float = 120.0,
    budget_s: float = 60.0,
) -> Findings:
    """Ask `backend` for each thing once. `budget_s` bounds the search for the window.

    AskError when it does not answer at all; a probe that fails alone leaves its question open.
    """
    asking = Probe(backend, headers=headers or {}, timeout_s=timeout_s, budget_s=budget_s)
    if Capability.EMBEDDINGS in backend.capabilities and not backend.can(Capability.CHAT):
        await _embeddings(asking)
        return _findings(asking)
    first = await asking.chat("Say ok.", max_tokens=1)
    if first.status != 200:
        raise AskError(f"{backend.id} answers {first.status}: {first.body[:300]!r}")
    asking.can.add(Capability.CHAT.value)
    for check in (
        _schema,
        _object,
        _logprobs,
        _choices,
        _tools,
        _tool_choice,
        _vision,
        _embeddings,
    ):
        try:
            await check(asking)
        except AskError as error:
            asking.notes.append(str(error))
    window = await _Window(asking).search()
    return msgspec.structs.replace(_findings(asking), **window)


def _findings(asking: Probe) -> Findings:
    return Findings(
        capabilities=frozenset(asking.can),
        lacks=frozenset(asking.lacks),
        notes=tuple(asking.notes),
        as_of=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def applied(backend: Backend, findings: Findings) -> Backend:
    """The backend as it really is: what was seen wins over what was told."""
    told = backend.context_tokens
    window = findings.context_tokens if findings.context_is_limit else None
    return msgspec.structs.replace(
        backend,
        capabilities=(backend.capabilities | findings.capabilities) - findings.lacks,
        lacks=(backend.lacks | findings.lacks) - findings.capabilities,
        context_tokens=min(told, window) if told and window else told or window,
        prefill_tokens_s=findings.prefill_tokens_s or backend.prefill_tokens_s,
    )


def load(home: Path, backend: Backend) -> Findings | None:
    """Findings kept for exactly this engine, build and model."""
    try:
        return msgspec.json.decode(_kept(home, backend).read_bytes(), type=Findings)
    except (OSError, msgspec.MsgspecError):
        return None


def keep(home: Path, backend: Backend, findings: Findings) -> None:
    """Write findings where `load` looks."""
    path = _kept(home, backend)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_bytes(msgspec.json.encode(findings))
    temporary.replace(path)


def _kept(home: Path, backend: Backend) -> Path:
    parts = (backend.id, backend.url, backend.model, backend.engine_build, backend.weights_sha256)
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:32]
    return home / "probes" / f"{digest}.json"


async def _schema(asking: Probe) -> None:
    """Asks for something no model would say by itself."""
    schema = {
        "type": "object",
        "properties": {"shade": {"enum": ["teal-7"]}},
        "required": ["shade"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "shade", "schema": schema}}
    answer = await asking.chat("Name a fruit.", response_format=wanted)
    value = _json(_message(answer).get("content"))
    asking.found(Capability.JSON_SCHEMA, answer, value == {"shade": "teal-7"})


async def _object(asking: Probe) -> None:
    answer = await asking.chat(
        "Name a fruit as JSON, for example {}.", response_format={"type": "json_object"}
    )
    value = _json(_message(answer).get("content"))
    asking.found(Capability.JSON_OBJECT, answer, isinstance(value, dict))


async def _logprobs(asking: Probe) -> None:
    answer = await asking.chat("Say ok.", logprobs=True, top_logprobs=2, max_tokens=2)
    rows = _mapping(_choice(answer).get("logprobs")).get("content")
    asking.found(Capability.LOGPROBS, answer, bool(rows))


async def _choices(asking: Probe) -> None:
    answer = await asking.chat("Say ok.", n=2, max_tokens=2, temperature=1)
    asking.found(Capability.CHOICES, answer, len(_rows(answer)) == 2)


_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city right now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


async def _tools(asking: Probe) -> None:
    """A text instead of a call may be the model's choice, so it decides nothing."""
    answer = await asking.chat("Use the tool: what is the weather in Oslo?", tools=[_TOOL])
    asking.found(Capability.TOOLS, answer, _calls(answer) or None)


async def _tool_choice(asking: Probe) -> None:
    """Where a schema forces the call, nothing needs to be seen here."""
    if "force_tools_by_schema" in asking.backend.quirks:
        return
    answer = await asking.chat("What is your name?", tools=[_TOOL], tool_choice="required")
    asking.found(Capability.TOOL_CHOICE, answer, _calls(answer))


async def _vision(asking: Probe) -> None:
    url = "data:image/png;base64," + base64.b64encode(_red_png()).decode()
    content = [
        {"type": "text", "text": "Which color fills this image? One word."},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    answer = await asking.chat(content)
    text = str(_message(answer).get("content") or "").lower()
    asking.found(Capability.VISION, answer, True if "red" in text else None)
    if answer.status >= 500:  # llama.cpp without a projector
        asking.lacks.add(Capability.VISION.value)


async def _embeddings(asking: Probe) -> None:
    answer = await asking.post("/embeddings", {"input": "apple"})
    rows = _mapping(answer.json()).get("data")
    vector = _mapping(rows[0]).get("embedding") if isinstance(rows, list) and rows else None
    asking.found(Capability.EMBEDDINGS, answer, isinstance(vector, list) and len(vector) > 1)


_CHECKS = (_schema, _object, _logprobs, _choices, _tools, _tool_choice, _vision, _embeddings)


class _Window:
    """Doubles a prompt of known length until the engine refuses, cuts, or the budget is spent."""

    def __init__(self, asking: Probe) -> None:
        self._asking = asking
        self._whole = 0
        self._speed: float | None = None

    async def search(self) -> dict[str, Any]:
        """Fields of `Findings`."""
        deadline = time.monotonic() + self._asking._budget_s
        try:
            short = await self._read(_SHORT_WORDS)
            longer = await self._read(_LONGER_WORDS)
            if short is None or longer is None or longer <= short:
                self._asking.notes.append("reports no prompt tokens: the window cannot be measured")
                return {}
            per_word = (longer - short) / (_LONGER_WORDS - _SHORT_WORDS)
            overhead = short - per_word * _SHORT_WORDS
            limit = self._asking.backend.context_tokens
            for goal in _goals(limit):
                if time.monotonic() > deadline:
                    break
                cut = await self._step(int((goal - overhead) / per_word), per_word, overhead)
                if cut is not None:
                    return cut
        except AskError as error:
            self._asking.notes.append(f"window: {error}")
        return self._so_far(limit_seen=False)

    async def _step(self, words: int, per_word: float, overhead: float) -> dict[str, Any] | None:
        """None: read whole, go on."""
        expected = overhead + per_word * words
        started = time.monotonic()
        reported = await self._read(words)
        if reported is None:
            return self._so_far(limit_seen=True)
        if truncated(expected * _COUNT_ERROR, reported):
            self._asking.notes.append(
                f"cut a prompt of {expected:,.0f} tokens to {reported:,} and answered all the same"
            )
            self._whole = reported
            return self._so_far(limit_seen=True) | {"truncates": True}
        self._whole = reported
        self._speed = reported / max(1e-6, time.monotonic() - started)
        return None

    async def _read(self, words: int) -> int | None:
        """Prompt tokens the engine says it read; None: refused, or it does not say."""
        # A first word of its own keeps a prompt cache from making the next one look fast.
        answer = await self._asking.chat(f"{words}" + WORD * words, max_tokens=1)
        tokens = _mapping(_mapping(answer.json()).get("usage")).get("prompt_tokens")
        return tokens if answer.status == 200 and isinstance(tokens, int) else None

    def _so_far(self, *, limit_seen: bool) -> dict[str, Any]:
        return {
            "context_tokens": self._whole or None,
            "context_is_limit": limit_seen and self._whole > 0,
            "prefill_tokens_s": self._speed,
        }


def _goals(told_tokens: int | None) -> list[int]:
    """Prompt lengths to try: doubling, the last just inside the window that was told."""
    most = (told_tokens or 131_072) - _SLACK_TOKENS
    goals, goal = [], _FIRST_TOKENS
    while goal < most:
        goals.append(goal)
        goal *= 2
    return [*goals, most]


def _red_png() -> bytes:
    """A 32 x 32 image, all red."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    side = 32
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\xff\0\0" * side) * side)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _rows(answer: Answer) -> list[Any]:
    rows = _mapping(answer.json()).get("choices")
    return rows if isinstance(rows, list) else []


def _choice(answer: Answer) -> dict[str, Any]:
    return _mapping(next(iter(_rows(answer)), None))


def _message(answer: Answer) -> dict[str, Any]:
    return _mapping(_choice(answer).get("message"))


def _calls(answer: Answer) -> bool:
    return bool(_message(answer).get("tool_calls"))


def _json(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


async def probe_all(
    backends: list[tuple[Backend, dict[str, str]]], home: Path, *, at_once: int = 2
) -> dict[str, Findings | str]:
    """Probe several (backend, headers), keep what was found; backend id -> findings or problem."""
    gate = asyncio.Semaphore(at_once)

    async def one(backend: Backend, headers: dict[str, str]) -> Findings | str:
        async with gate:
            try:
                findings = await probe(backend, headers=headers)
            except AskError as error:
                return str(error)
        await asyncio.to_thread(keep, home, backend, findings)
        return findings

    results = await asyncio.gather(*(one(backend, headers) for backend, headers in backends))
    return {backend.id: result for (backend, _), result in zip(backends, results, strict=True)}
