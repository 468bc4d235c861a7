"""Loading, crashing, refusing, draining and never leaving a process behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from locavore.engines import facts, fit, machine
from locavore.engines.ask import AskError, ask
from locavore.engines.child import Settings
from locavore.engines.embedded import EmbeddedEngine, EngineError, RunningModel, State
from locavore.engines.gguf import read_header
from locavore.engines.lifecycle import (
    Backoff,
    PidFile,
    child_environment,
    reap_orphans,
    run_folder,
    socket_path,
)
from locavore.engines.test_model import SENTENCE, write_test_model
from locavore.engines.weights import InstalledModel, built_in, sha256_of

pytestmark = pytest.mark.anyio


class Watch:
    """Collects state changes and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, State, str]] = []
        self._changed = asyncio.Condition()

    def __call__(self, name: str, state: State, message: str) -> None:
        self.seen.append((name, state, message))
        self._task = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, state: State, *, times: int = 1) -> str:
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: len(self._of(state)) >= times)
        return self._of(state)[times - 1]

    def _of(self, state: State) -> list[str]:
        return [message for _, entered, message in self.seen if entered is state]


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(tmp_path / "home", on_change=Watch())
    yield engine
    await engine.close()


def _model(path: Path, name: str = "other") -> InstalledModel:
    return InstalledModel(
        name=name, path=path, sha256=sha256_of(path), bytes=path.stat().st_size, source="file"
    )


async def _chat(running: RunningModel, **more: Any) -> Any:
    answer = await ask(
        "http://engine/v1/chat/completions",
        {"messages": [{"role": "user", "content": "hi"}], **more},
        headers={name.decode(): value.decode() for name, value in running.headers},
        timeout_s=30,
        socket_path=str(running.socket_path),
    )
    return answer.json()["choices"][0]["message"]["content"]


def _pid(engine: EmbeddedEngine, name: str = "test") -> int:
    pid = engine.pid(name)
    assert pid
    return pid


async def test_c120_a_second_start_shares_the_first_load(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    model = built_in(tmp_path)
    first, second = await asyncio.gather(engine.start(model), engine.start(model))
    assert first is second
    children = psutil.Process().children(recursive=True)
    assert [child.pid for child in children if "locavore.engines.child" in child.cmdline()] == [
        _pid(engine)
    ]


async def test_c120_a_crashed_engine_returns_on_the_same_socket_with_the_same_key(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    running = await engine.start(built_in(tmp_path))
    watch = Watch()
    engine.on_change = watch
    os.kill(_pid(engine), signal.SIGSEGV)
    assert "SIGSEGV" in await watch.until(State.WAITING)
    await watch.until(State.READY)
    assert await _chat(running) == SENTENCE


async def test_c120_a_crash_loop_is_told_slows_down_and_ends_when_the_cause_does(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    model = built_in(tmp_path)
    running = await engine.start(model)
    watch = Watch()
    engine.on_change = watch
    whole = model.path.read_bytes()
    model.path.write_bytes(whole.replace(b"blk.0.attn_q.weight", b"blk.0.attn_z.weight"))
    os.kill(_pid(engine), signal.SIGABRT)
    await watch.until(State.WAITING, times=2)
    model.path.write_bytes(whole)
    await watch.until(State.READY)
    delays = [message for _, state, message in watch.seen if state is State.WAITING]
    assert "SIGABRT" in delays[0]
    assert delays[0].endswith("again in 0.5 s")
    assert "attn_q.weight" in delays[1]
    assert delays[1].endswith("again in 1 s")
    assert await _chat(running) == SENTENCE


def test_c120_restart_delays_double_up_to_a_minute_and_forget_after_a_calm_run() -> None:
    backoff = Backoff(first_s=1, most_s=8, calm_s=1000)
    assert [backoff.died() for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    calm = Backoff(first_s=1, most_s=8, calm_s=0)
    assert [calm.died() for _ in range(3)] == [1, 1, 1]


async def test_c120_stop_waits_for_an_answer_under_way(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    running = await engine.start(built_in(tmp_path))
    pid = _pid(engine)
    words = asyncio.ensure_future(_chat(running, ignore_eos=True, max_tokens=3000))
    async with asyncio.timeout(20):
        while not await engine.busy("test"):  # noqa: ASYNC110 - the engine announces nothing
            await asyncio.sleep(0)
    await engine.stop("test", drain_s=30)
    assert len(await words) > 3000
    assert not psutil.pid_exists(pid)
    assert not running.socket_path.exists()
    assert engine.running == ()
    assert engine.state("test") is State.STOPPED


async def test_two_models_at_once(engine: EmbeddedEngine, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    write_test_model(path, "Another model says something else.")
    one, two = await asyncio.gather(engine.start(built_in(tmp_path)), engine.start(_model(path)))
    assert await _chat(one) == SENTENCE
    assert await _chat(two) == "Another model says something else."
    await engine.stop("test")
    assert await _chat(two) == "Another model says something else."


async def test_unloading_an_idle_model_keeps_it_reachable(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path / "home", idle_unload_s=1)
    try:
        running = await engine.start(built_in(tmp_path))
        async with asyncio.timeout(30):
            while not (await engine.props("test"))["is_sleeping"]:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        assert await _chat(running) == SENTENCE
    finally:
        await engine.close()


async def test_a_missing_file_names_the_file_and_the_way_out(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    gone = msgspec.structs.replace(built_in(tmp_path), path=tmp_path / "gone.gguf")
    with pytest.raises(EngineError, match=r"gone\.gguf.*locavore pull test"):
        await engine.start(gone)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all", b"GGUF\x03\0\0\0" * 9])
async def test_a_broken_file_is_refused_before_a_process_starts(
    engine: EmbeddedEngine, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"broken\.gguf"):
        await engine.start(_model(path))


async def test_a_truncated_download_is_found_without_the_engine(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    path = tmp_path / "cut.gguf"
    write_test_model(path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(EngineError, match=r"cut\.gguf is truncated: tensor"):
        await engine.start(_model(path))


async def test_what_only_the_engine_can_refuse_is_told_in_its_words_and_hurts_nobody(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    path = tmp_path / "odd.gguf"
    write_test_model(path)
    path.write_bytes(path.read_bytes().replace(b"blk.0.attn_q.weight", b"blk.0.attn_z.weight"))
    running = await engine.start(built_in(tmp_path))
    with pytest.raises(EngineError, match=r"exit status 3: .*blk\.0\.attn_q\.weight"):
        await engine.start(_model(path))
    assert await _chat(running) == SENTENCE
    assert [model.name for model in engine.running] == ["test"]


async def test_c121_what_does_not_fit_is_refused_with_the_numbers(
    engine: EmbeddedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine.describe()
    full = msgspec.structs.replace(here, available_bytes=1 << 20, gpus=())
    monkeypatch.setattr(machine, "describe", lambda: full)
    with pytest.raises(
        EngineError, match=r"needs .* GiB \(weights .* KV cache .* tokens"
    ) as caught:
        await engine.start(built_in(tmp_path))
    assert "0.00 GiB of memory available" in str(caught.value)
    assert engine.running == ()


def test_c121_memory_another_process_holds_on_the_gpu_does_not_count(tmp_path: Path) -> None:
    header = read_header(write_test_model(tmp_path / "m.gguf").path)
    needs = fit.footprint(header, 4096)
    free = int(needs.total_bytes / fit.MARGIN) + 1
    gpu = machine.Gpu(name="G", memory_bytes=64 << 30, free_bytes=free)
    here = msgspec.structs.replace(machine.describe(), available_bytes=0, gpus=(gpu,))
    assert fit.refusal(needs, here) is None
    taken = msgspec.structs.replace(gpu, free_bytes=free // 2)
    said = fit.refusal(needs, msgspec.structs.replace(here, gpus=(taken,)))
    assert said
    assert "free on G" in said


async def test_a_context_beyond_the_models_own_is_refused(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"context_tokens = 500000"):
        await engine.start(built_in(tmp_path), context_tokens=500_000)


async def test_c122_the_check_passes_what_runs_and_names_each_difference(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    model = built_in(tmp_path)
    await engine.start(model, context_tokens=8192, parallel=3)
    header = read_header(model.path)
    props, models = await engine.props("test"), {"data": [{"id": "test"}]}

    def settings(**changes: Any) -> Settings:
        ours: dict[str, Any] = {"alias": "test", "context_tokens": 8192, "parallel": 3} | changes
        rest = {"model_path": "", "socket_path": "", "api_key": "", "threads": 1, "parent_pid": 1}
        return Settings(**{**rest, **ours})

    assert facts.mismatch(header, settings(), props, models) is None
    assert "serves ['test'], not 'x'" in str(
        facts.mismatch(header, settings(alias="x"), props, models)
    )
    assert "8192 tokens" in str(
        facts.mismatch(header, settings(context_tokens=9000), props, models)
    )
    assert "3 slots, not 4" in str(facts.mismatch(header, settings(parallel=4), props, models))
    other = {**props, "chat_template": "{{ messages }}"}
    assert "another chat template" in str(facts.mismatch(header, settings(), other, models))
    assert "does not describe" in str(facts.mismatch(header, settings(), {}, models))


PARENT = """
import asyncio, sys
from pathlib import Path
from locavore.engines.embedded import EmbeddedEngine
from locavore.engines.weights import built_in

async def main():
    engine = EmbeddedEngine(Path(sys.argv[1]))
    await engine.start(built_in(Path(sys.argv[1])))
    print(engine.pid("test"), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_c123_kill_9_of_the_gateway_leaves_no_engine(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        child.wait(timeout=20)
    assert not child.is_running()
    assert (tmp_path / "run" / "engine-test.pid").exists()
    assert reap_orphans(tmp_path / "run") == []
    assert not (tmp_path / "run" / "engine-test.pid").exists()


def test_c123_an_orphan_that_survived_is_reaped_on_restart_and_nobody_else(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(sleeper, stdin=subprocess.PIPE) as orphan,
        subprocess.Popen(sleeper, stdin=subprocess.PIPE) as neighbour,
        subprocess.Popen(sleeper, stdin=subprocess.PIPE) as stranger,
    ):
        us = psutil.Process()
        started = {p.pid: psutil.Process(p.pid).create_time() for p in (orphan, neighbour)}
        gone = {"parent_pid": 2**22 + 1, "parent_started": 1.0}
        here = {"parent_pid": us.pid, "parent_started": us.create_time()}
        folder = run_folder(tmp_path)
        for name, record in {
            "orphan": {"pid": orphan.pid, "started": started[orphan.pid], **gone},
            "neighbour": {"pid": neighbour.pid, "started": started[neighbour.pid], **here},
            "reused": {"pid": stranger.pid, "started": 5.0, **gone},
        }.items():
            written = msgspec.json.encode(msgspec.convert(record, PidFile))
            (folder / f"{name}.pid").write_bytes(written)
        (folder / "junk.pid").write_text("{")
        assert reap_orphans(folder) == [orphan.pid]
        assert not psutil.pid_exists(orphan.pid)
        assert neighbour.poll() is None
        assert stranger.poll() is None
        assert [path.name for path in folder.glob("*.pid")] == ["neighbour.pid"]
        for process in (neighbour, stranger):
            process.kill()


def test_engines_see_no_key_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    monkeypatch.setenv("LOCAVORE_KEY", "canary")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    environment = child_environment()
    assert "canary" not in environment.values()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["GGML_NO_BACKTRACE"] == "1"


async def test_no_key_and_no_prompt_in_arguments_logs_or_pid_files(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    running = await engine.start(built_in(tmp_path))
    await _chat(running, stop=["canary-prompt"])
    folder = tmp_path / "home" / "run"
    seen = b"".join(p.read_bytes() for p in folder.iterdir() if p.suffix in (".log", ".pid"))
    arguments = " ".join(psutil.Process(_pid(engine)).cmdline())
    assert running.api_key not in arguments
    assert running.api_key.encode() not in seen
    assert b"canary-prompt" not in seen


async def test_a_long_home_still_gets_a_socket(tmp_path: Path) -> None:
    home = tmp_path / ("h" * 120)
    engine = EmbeddedEngine(home)
    try:
        running = await engine.start(built_in(tmp_path))
        assert len(os.fsencode(running.socket_path)) < 104
        assert await _chat(running) == SENTENCE
    finally:
        await engine.close()


def test_socket_paths_of_different_homes_differ(tmp_path: Path) -> None:
    one, two = tmp_path / ("a" * 120), tmp_path / ("b" * 120)
    assert socket_path(one, "m") != socket_path(two, "m")


async def test_a_stopped_engine_refuses_connections(engine: EmbeddedEngine, tmp_path: Path) -> None:
    running = await engine.start(built_in(tmp_path))
    await engine.stop("test")
    with pytest.raises(AskError):
        await ask("http://x/health", timeout_s=5, socket_path=str(running.socket_path))


def test_describing_the_machine_is_json_and_one_line() -> None:
    here = machine.describe()
    assert json.loads(msgspec.json.encode(here))["physical_cores"] >= 1
    assert "\n" not in here.line()
    assert here.available_bytes <= here.memory_bytes


@pytest.mark.parametrize(
    ("cores", "quota", "load", "threads"),
    [(8, None, 0.0, 8), (8, None, 6.0, 7), (8, 2.5, 0.0, 2), (1, None, 9.0, 1), (4, 0.5, 0.0, 1)],
)
def test_threads_follow_cores_quota_and_load(
    cores: int, quota: float | None, load: float, threads: int
) -> None:
    here = msgspec.structs.replace(machine.describe(), physical_cores=cores, cpu_quota=quota)
    assert machine.engine_threads(here, load=load) == threads
