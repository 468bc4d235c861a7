"""Run as a script: load a GGUF in the embedded engine; its log goes to stderr, memory to stdout."""

import os
import sys
from pathlib import Path

import xllamacpp


def main(path: str, context: int, kv_type: str, prompt: int) -> None:
    """Load with `context` tokens; with `prompt` > 0 also compute that many tokens."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = context
    params.fit_params = False
    params.warmup = prompt > 0
    params.verbosity = 4
    params.cache_type_k = params.cache_type_v = getattr(
        xllamacpp.ggml_type, f"GGML_TYPE_{kv_type.upper()}"
    )
    server = xllamacpp.Server(params)
    if prompt:
        server.handle_completions({"prompt": [5] * prompt, "max_tokens": 1})
    status = Path("/proc/self/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    sys.stdout.write(f"RESIDENT {int(resident.split()[1]) * 1024}\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
