"""The embedded engine: llama.cpp in one supervised child process per loaded model.

A damaged GGUF can abort the process that reads it, so no process of ours ever does. Each child
serves HTTP on a private Unix socket and is reached like any other OpenAI-compatible server;
it keeps its socket and key over restarts, so clients only see a refused connection meanwhile.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from locavore.core.backend import Backend
from locavore.core.errors import LocavoreError
from locavore.engines import facts, machine
from locavore.engines.ask import AskError
from locavore.engines.child import Settings
from locavore.engines.fit import choose_context
from locavore.engines.gguf import GgufError, Header, read_header
from locavore.engines.lifecycle import reap_orphans, run_folder
from locavore.engines.process import EngineProcess, State, settings_for
from locavore.engines.weights import InstalledModel

DEFAULT_PARALLEL = 4
PROMPT_CACHE_SHARE = 0.04
"""Part of the machine's memory that prompts of earlier conversations may keep."""


class EngineError(LocavoreError):
    """A model cannot be loaded or does not stay up; the message says why and what to do."""

    status = 503


class RunningModel(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded model and how to reach it."""

    name: str
    model: InstalledModel
    socket_path: Path
    api_key: str
    context_tokens: int
    parallel: int
    backend: Backend

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What each request to the socket must carry."""
        return ((b"authorization", b"Bearer " + self.api_key.encode()),)


class EmbeddedEngine:
    """All models loaded by this process. Use from one event loop, in its main thread.

    `on_change(name, state, message)` is told of crashes, restarts and stops.
    """

    def __init__(
        self,
        home: Path,
        *,
        on_change: Callable[[str, State, str], None] | None = None,
        idle_unload_s: float | None = None,
        threads: int | None = None,
        load_timeout_s: float = 600.0,
    ) -> None:
        self._run = run_folder(home)
        self.on_change = on_change
        self._idle_unload_s = idle_unload_s
        self._threads = threads
        self._load_timeout_s = load_timeout_s
        self._processes: dict[str, EngineProcess] = {}
        self._running: dict[str, RunningModel] = {}
        self._loading = asyncio.Lock()
        self.reaped = reap_orphans(self._run)
        """Processes a killed gateway had left behind, ended now."""

    @property
    def running(self) -> tuple[RunningModel, ...]:
        return tuple(self._running.values())

    def state(self, name: str) -> State:
        """What became of a started model."""
        process = self._processes.get(name)
        return process.state if process else State.STOPPED

    def pid(self, name: str) -> int | None:
        """Process id of a loaded model's engine."""
        process = self._processes.get(name)
        return process.pid if process else None

    async def props(self, name: str) -> dict[str, Any]:
        """What the engine says about itself, as it says it; empty when it does not answer."""
        process = self._processes.get(name)
        try:
            found = (await process.ask("/props")).json() if process else None
        except AskError:
            return {}
        return found if isinstance(found, dict) else {}

    async def busy(self, name: str) -> bool:
        """Whether an answer is under way."""
        process = self._processes.get(name)
        return bool(process and await process.busy())

    async def start(
        self,
        model: InstalledModel,
        *,
        context_tokens: int | None = None,
        parallel: int = DEFAULT_PARALLEL,
    ) -> RunningModel:
        """Load `model` and return once it answers; a model that runs already is returned as is.

        `context_tokens` is per request, not divided over slots; None takes what the model was
        trained for, bounded, as far as memory allows. EngineError before anything is loaded if
        it does not fit, or with the engine's own words if it fails.
        """
        async with self._loading:  # two loads at once could each believe the memory is theirs
            if model.name in self._running:
                return self._running[model.name]
            header = _header(model)
            here = await asyncio.to_thread(machine.describe)
            context = _context(model, header, here, context_tokens)
            settings = _settings(self._run, model, header, here, context, parallel)
            return await self._load(model, header, self._tuned(settings))

    async def stop(self, name: str, *, drain_s: float = 0.0) -> None:
        """Unload, waiting up to `drain_s` for answers under way; unknown names are no error."""
        self._running.pop(name, None)
        process = self._processes.pop(name, None)
        if process:
            await process.stop(drain_s=drain_s)

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Unload everything."""
        await asyncio.gather(*(self.stop(name, drain_s=drain_s) for name in [*self._processes]))

    def _tuned(self, settings: Settings) -> Settings:
        """With what the operator set."""
        changes: dict[str, int] = {}
        if self._idle_unload_s:
            changes["idle_unload_s"] = max(1, round(self._idle_unload_s))
        if self._threads:
            changes["threads"] = self._threads
        return msgspec.structs.replace(settings, **changes)

    def _changed(self, name: str, state: State, message: str) -> None:
        if self.on_change:
            self.on_change(name, state, message)

    async def _load(
        self, model: InstalledModel, header: Header, settings: Settings
    ) -> RunningModel:
        process = EngineProcess(
            model.name, settings, self._run, check=facts.readiness_check(header, settings)
        )
        problem = await process.start(timeout_s=self._load_timeout_s)
        if problem:
            raise EngineError(f"model {model.name!r} is not loaded: {problem}")
        speed = await facts.prompt_speed(settings)
        process.on_change = self._changed
        self._processes[model.name] = process
        running = RunningModel(
            name=model.name,
            model=model,
            socket_path=Path(settings.socket_path),
            api_key=settings.api_key,
            context_tokens=settings.context_tokens,
            parallel=settings.parallel,
            backend=facts.backend_of(model, header, settings, prefill_tokens_s=speed),
        )
        self._running[model.name] = running
        return running


def _header(model: InstalledModel) -> Header:
    try:
        return read_header(model.path)
    except (OSError, GgufError) as error:
        raise EngineError(
            f"model {model.name!r} is not loaded: {error}. Try: locavore pull {model.name}"
        ) from error


def _context(
    model: InstalledModel, header: Header, here: machine.Machine, asked_tokens: int | None
) -> int:
    try:
        if model.is_test:  # one token per byte, and its KV cache is tiny: take all of it
            asked_tokens = asked_tokens or header.number("context_length")
        context, problem = choose_context(header, here, asked_tokens)
    except GgufError as error:
        problem, context = f"its metadata is damaged: {error}", 0
    if problem:
        raise EngineError(f"model {model.name!r} is not loaded: {problem}")
    return context


def _settings(
    run: Path,
    model: InstalledModel,
    header: Header,
    here: machine.Machine,
    context_tokens: int,
    parallel: int,
) -> Settings:
    cache_mib = int(here.memory_bytes * PROMPT_CACHE_SHARE) >> 20
    return settings_for(
        run,
        model.name,
        model_path=model.path,
        context_tokens=context_tokens,
        parallel=parallel,
        threads=1 if model.is_test else machine.engine_threads(here),
        embeddings=model.is_test or facts.is_embedding_model(header),
        batch_tokens=_batch_tokens(model, header, context_tokens),
        prompt_cache_mib=0 if model.is_test else min(1024, cache_mib),
    )


def _batch_tokens(model: InstalledModel, header: Header, context_tokens: int) -> int:
    """What is embedded must fit one batch; a chat model is better served by small ones."""
    if facts.is_embedding_model(header):
        return min(context_tokens, 8192)
    return 1024 if model.is_test else 512


__all__ = ["EmbeddedEngine", "EngineError", "RunningModel", "State"]
