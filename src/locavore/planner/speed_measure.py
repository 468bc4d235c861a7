"""Measuring this machine: memory bandwidth by copying, and one short run of the embedded engine.

A measurement anchors the model: every later prediction for this machine is scaled by measured
over predicted, with the narrower interval that anchored predictions had on published runs.
"""

import ctypes
import datetime
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from locavore.catalog.load import Catalog
from locavore.core.errors import LocavoreError
from locavore.engines import machine
from locavore.engines.ask import AskError, ask
from locavore.engines.embedded import EmbeddedEngine, RunningModel
from locavore.engines.facts import engine_build
from locavore.engines.weights import InstalledModel
from locavore.planner.speed_gguf import write_shape

CALIBRATION_MODEL = "Qwen3-0.6B"
"""Small enough to run anywhere; its weights file is written, not fetched."""
CALIBRATION_QUANT = "Q4_K_M"
_PROMPT_TOKENS = 256
_GENERATED_TOKENS = 48
_RUNS = 3
_COPY_BYTES = 64 << 20
_COPY_S = 0.4


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one model on one machine."""

    machine: str
    cpu: str
    threads: int
    bandwidth_gbs: float
    """Copy loop over all cores, bytes read and written."""
    model: str
    quant: str
    file_bytes: int
    decode_tps: float
    prefill_tps: float
    prompt_tokens: int
    generated_tokens: int
    engine_build: str
    as_of: str


def copy_bandwidth_gbs(threads: int) -> float:
    """Memory traffic of parallel copies, 10^9 bytes per second: what all cores reach together."""
    copied: list[int] = []
    ready = threading.Barrier(max(threads, 1) + 1)

    def copy() -> None:
        source, target = bytearray(_COPY_BYTES), bytearray(_COPY_BYTES)
        a = (ctypes.c_char * _COPY_BYTES).from_buffer(source)
        b = (ctypes.c_char * _COPY_BYTES).from_buffer(target)
        ready.wait()
        end, done = time.perf_counter() + _COPY_S, 0
        while not done or time.perf_counter() < end:
            ctypes.memmove(b, a, _COPY_BYTES)
            done += 2 * _COPY_BYTES
        copied.append(done)

    workers = [threading.Thread(target=copy) for _ in range(max(threads, 1))]
    for worker in workers:
        worker.start()
    ready.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return sum(copied) / (time.perf_counter() - started) / 1e9


async def measure(
    home: Path,
    catalog: Catalog,
    *,
    model: str = CALIBRATION_MODEL,
    prompt_tokens: int = _PROMPT_TOKENS,
) -> Measurement:
    """Run a model of this shape in the embedded engine; best of three, about half a minute."""
    here = machine.describe()
    threads = machine.engine_threads(here)
    shape = catalog.model(model).shape
    if shape is None:
        raise LocavoreError(f"model {model!r} has no known shape to calibrate with")
    with _temporary_model(model) as path:
        size = write_shape(path, shape, CALIBRATION_QUANT)
        installed = InstalledModel(
            name="calibration", path=path, sha256="", bytes=size, source=f"file:{path}"
        )
        engine = EmbeddedEngine(home, threads=threads)
        try:
            room = prompt_tokens + 2 * _GENERATED_TOKENS
            running = await engine.start(installed, context_tokens=max(room, 1024), parallel=1)
            runs = [await timed_run(running, prompt_tokens) for _ in range(_RUNS)]
        finally:
            await engine.close()
    return Measurement(
        machine=here.gpus[0].name if here.gpus else here.cpu,
        cpu=here.cpu,
        threads=threads,
        bandwidth_gbs=copy_bandwidth_gbs(threads),
        model=model,
        quant=CALIBRATION_QUANT,
        file_bytes=size,
        decode_tps=max(decode for decode, _ in runs),
        prefill_tps=max(prefill for _, prefill in runs),
        prompt_tokens=prompt_tokens,
        generated_tokens=_GENERATED_TOKENS,
        engine_build=engine_build(),
        as_of=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    )


@contextmanager
def _temporary_model(model: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="locavore-") as folder:
        yield Path(folder) / f"{model.lower()}.gguf"


async def timed_run(
    running: RunningModel, prompt_tokens: int = _PROMPT_TOKENS
) -> tuple[float, float]:
    """(decode, prefill) tokens per second, as the engine timed them."""
    body = {
        "prompt": [10 + number % 90 for number in range(prompt_tokens)],
        "n_predict": _GENERATED_TOKENS,
        "cache_prompt": False,
        "ignore_eos": True,
    }
    headers = {"authorization": f"Bearer {running.api_key}"}
    try:
        answer = await ask(
            "http://engine/completion",
            body,
            headers=headers,
            timeout_s=300.0,
            socket_path=str(running.socket_path),
        )
        timings = answer.json()["timings"]
        return float(timings["predicted_per_second"]), float(timings["prompt_per_second"])
    except (AskError, KeyError, TypeError, ValueError) as error:
        raise LocavoreError(f"the engine gave no timings: {error}") from error


# --- keeping --------------------------------------------------------------------------------


def measurements_file(home: Path) -> Path:
    return home / "measurements" / "speed.json"


def kept(home: Path) -> list[Measurement]:
    """Measurements kept under LOCAVORE_HOME, oldest first; an unreadable file is an error."""
    path = measurements_file(home)
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Measurement])
    except msgspec.DecodeError as error:
        raise LocavoreError(f"{path} is damaged: {error}; delete it and measure again") from error


def keep(home: Path, measurement: Measurement) -> Path:
    """Add a measurement; the last one of the same model and machine replaces the earlier."""
    key = (measurement.machine, measurement.model, measurement.quant)
    others = [m for m in kept(home) if (m.machine, m.model, m.quant) != key]
    path = measurements_file(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode([*others, measurement]), indent=1))
    return path
