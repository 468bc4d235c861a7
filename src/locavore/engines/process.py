"""One engine child process: start, readiness, crash and restart, drain and stop."""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from locavore.engines.ask import Answer, AskError, ask
from locavore.engines.child import READY, Settings
from locavore.engines.lifecycle import Backoff, child_environment, socket_path, write_pid_file

Check = Callable[[], Awaitable[str | None]]
"""Asks the running engine whether it is what was started; the problem in words, or None."""
_LOG_TAIL_BYTES = 4096
_STOP_S = 5.0


class State(StrEnum):
    STOPPED = "stopped"
    LOADING = "loading"
    READY = "ready"
    WAITING = "waiting"  # crashed; the next start is delayed


def settings_for(
    run: Path,
    name: str,
    *,
    model_path: Path,
    context_tokens: int,
    parallel: int,
    threads: int,
    embeddings: bool,
    batch_tokens: int,
    prompt_cache_mib: int,
) -> Settings:
    """Settings with a socket path and a key that live as long as the model stays loaded."""
    return Settings(
        model_path=str(model_path),
        alias=name,
        socket_path=str(socket_path(run, f"engine-{name}")),
        api_key=secrets.token_urlsafe(32),
        context_tokens=context_tokens,
        parallel=parallel,
        threads=threads,
        embeddings=embeddings,
        batch_tokens=batch_tokens,
        prompt_cache_mib=prompt_cache_mib,
        parent_pid=os.getpid(),
    )


class EngineProcess:
    """Keeps one child alive between `start` and `stop`."""

    def __init__(self, name: str, settings: Settings, run: Path, *, check: Check) -> None:
        self.name, self.settings = name, settings
        self.state = State.STOPPED
        self.on_change: Callable[[str, State, str], None] | None = None
        self.restarts = 0
        self._check = check
        self._log_path = run / f"engine-{name}.log"
        self._pid_path = run / f"engine-{name}.pid"
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._backoff = Backoff()

    @property
    def pid(self) -> int | None:
        """Process id of the live child."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self, *, timeout_s: float) -> str | None:
        """Load and check; the problem in words, or None. After None the child is supervised."""
        problem = await self._launch(timeout_s)
        if problem is None:
            self._supervisor = asyncio.create_task(self._supervise(timeout_s))
        return problem

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Let answers under way finish for up to `drain_s`, then end the child."""
        if self._supervisor:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        if drain_s > 0 and self.pid:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await self._drained()
        await self._end()
        self._enter(State.STOPPED, "stopped")

    async def _launch(self, timeout_s: float) -> str | None:
        self._enter(State.LOADING, "loading")
        try:
            async with asyncio.timeout(timeout_s):
                await self._spawn()
                problem = await self._came_up() or await self._check()
        except TimeoutError:
            problem = f"it was not ready after {timeout_s:g} s"
        except OSError as error:  # no process to be had, no file to be written
            problem = f"it cannot be started: {error}"
        except BaseException:
            await self._end()
            raise
        if problem:
            await self._end()
            self._enter(State.STOPPED, problem)
            return problem
        self._backoff.started()
        self._enter(State.READY, "ready")
        return None

    async def _spawn(self) -> None:
        descriptor = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "locavore.engines.child"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=descriptor,
                env=child_environment(),
                start_new_session=True,  # Ctrl-C in the terminal is for the gateway
            )
        finally:
            os.close(descriptor)
        write_pid_file(self._pid_path, self._process.pid)
        assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for
        self._process.stdin.write(msgspec.json.encode(self.settings) + b"\n")

    async def _came_up(self) -> str | None:
        """Wait for the child's word that it serves, or for its death."""
        process = self._process
        assert process is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        if await process.stdout.readline() == READY:
            return None
        return self._obituary(await process.wait())

    async def _supervise(self, timeout_s: float) -> None:
        """Restart with growing delays for as long as nobody stops us."""
        problem: str | None = None
        while True:
            if problem is None and self._process:
                problem = self._obituary(await self._process.wait())
            delay_s = self._backoff.died()
            self._enter(State.WAITING, f"{problem}; starting again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            self.restarts += 1
            problem = await self._launch(timeout_s)

    def _obituary(self, status: int) -> str:
        how = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        said = self._last_words()
        return f"the engine ended with {how}" + (f": {said}" if said else "")

    def _last_words(self) -> str:
        """The end of what the engine wrote to its log, without its time stamps."""
        try:
            data = self._log_path.read_bytes()[-_LOG_TAIL_BYTES:]
        except OSError:
            return ""
        lines = (
            line.partition(" E ")[2] or line for line in data.decode(errors="replace").split("\n")
        )
        return "; ".join(kept for line in lines if (kept := " ".join(line.split())))[-600:]

    async def _drained(self) -> None:
        while await self.busy():  # noqa: ASYNC110 - the engine tells nobody when it is done
            await asyncio.sleep(0.1)

    async def busy(self) -> bool:
        """Whether any slot works on an answer; False when the engine does not say."""
        try:
            answer = await self.ask("/slots")
        except AskError:
            return False
        slots = answer.json()
        return isinstance(slots, list) and any(slot.get("is_processing") for slot in slots)

    async def ask(self, path: str, timeout_s: float = 5.0) -> Answer:
        """GET from the engine's own API."""
        return await ask(
            f"http://engine{path}",
            headers={"authorization": f"Bearer {self.settings.api_key}"},
            timeout_s=timeout_s,
            socket_path=self.settings.socket_path,
        )

    async def _end(self) -> None:
        process = self._process
        if process and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(_STOP_S):
                    await process.wait()
            except TimeoutError:  # inside a long load, where no signal handler runs
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process and process.stdin:
            process.stdin.close()
        self._clear()

    def _clear(self) -> None:
        self._pid_path.unlink(missing_ok=True)
        Path(self.settings.socket_path).unlink(missing_ok=True)

    def _enter(self, state: State, message: str) -> None:
        self.state = state
        if self.on_change:
            self.on_change(self.name, state, message)
