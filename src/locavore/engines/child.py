"""One llama.cpp server in a process of its own: `python -m locavore.engines.child`.

Reads its settings as one JSON line on standard input, because arguments show in process lists
and one of the settings is a key. Standard input then stays open: its end means that the parent
is gone, and so are we.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

EXIT_LOAD = 3
"""Exit status when the engine refused the model; the reason is on standard error."""

READY = b"locavore: engine ready\n"
"""The only line a child writes to standard output, once its socket accepts connections."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent decides about one engine process."""

    model_path: str
    alias: str
    socket_path: str
    api_key: str
    context_tokens: int
    parallel: int
    threads: int
    embeddings: bool = False
    batch_tokens: int = 512
    """Prompt tokens computed at once; a text to embed must fit."""
    prompt_cache_mib: int = 0
    """Host memory for prompts of earlier conversations; llama.cpp's own default is 8 GiB."""
    idle_unload_s: int = -1
    """Drop the weights after this long without a request; the next request loads them again."""
    parent_pid: int


def main() -> int:
    """Serve until the parent says stop or dies."""
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
    say = _own_standard_output()
    _die_with(settings.parent_pid)
    _keep_no_core()
    os.umask(0o177)  # the engine creates its socket with the mode the umask leaves
    Path(settings.socket_path).unlink(missing_ok=True)  # a crashed predecessor's
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        server = _serve(settings)
    except (RuntimeError, ValueError) as error:
        sys.stderr.write(f"engine: {error}\n")
        return EXIT_LOAD
    os.write(say, READY)
    os.close(say)
    sys.stdin.buffer.read()
    del server
    _leave()
    return 0


def _own_standard_output() -> int:
    """Keep standard output for our one line; what the engine prints joins its errors."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return ours


def _serve(settings: Settings) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.verbosity = 1  # errors only: higher levels may print prompts
    params.offline = True
    params.model.path = settings.model_path
    params.model_alias = {settings.alias}
    _listen(params, settings)
    _limits(params, settings)
    _compute(params, settings, gpu=any(_is_gpu(d) for d in xllamacpp.get_device_info()))
    if settings.embeddings:
        params.embedding = True
        # A pooled text must fit one batch, and pooling aborts unless the slots divide a batch.
        params.n_ubatch = settings.batch_tokens - settings.batch_tokens % settings.parallel
        params.n_batch = params.n_ubatch
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(params)


def _listen(params: Any, settings: Settings) -> None:
    params.hostnames = [settings.socket_path]  # a name that ends in `.sock` is a Unix socket
    params.api_keys = [settings.api_key]
    params.cors_origins = ""
    params.cors_credentials = False
    params.ui = False
    params.endpoint_slots = True  # who is busy, for draining
    params.endpoint_metrics = False
    params.n_threads_http = 64  # each open connection holds a thread; idle ones wait here too


def _limits(params: Any, settings: Settings) -> None:
    params.n_ctx = settings.context_tokens
    params.n_parallel = settings.parallel
    params.kv_unified = True  # otherwise each slot gets context / slots
    params.cont_batching = True
    params.cache_ram_mib = settings.prompt_cache_mib
    params.sleep_idle_seconds = settings.idle_unload_s


def _compute(params: Any, settings: Settings, *, gpu: bool) -> None:
    params.n_ubatch = settings.batch_tokens
    params.cpuparams.n_threads = settings.threads
    params.cpuparams_batch.n_threads = settings.threads
    params.warmup = False  # the parent times a first prompt instead
    params.fit_params = gpu  # places layers on GPUs; without one it could only shrink the context
    params.fit_params_min_ctx = settings.context_tokens


def _is_gpu(device: dict[str, Any]) -> bool:
    return "GPU" in str(device.get("type", ""))


def _die_with(parent_pid: int) -> None:
    """The kernel kills us when the parent's thread that started us ends (Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before we asked
        os._exit(0)


def _keep_no_core() -> None:
    """A core file would hold prompts and the key; nor may a debugger attach."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        set_dumpable = 4
        ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)


def _leave(*_: object) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(0)  # the engine's threads do not need to be joined to be gone


if __name__ == "__main__":
    sys.exit(main())
