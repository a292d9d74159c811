"""Loads a GGUF with llama.cpp and generates a few tokens: `python llama_engine.py PATH [CONTEXT CACHE_TYPE]`.

A process of its own, because the engine writes its log where it likes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

TOKENS = 4


def generated_tokens(path: str) -> int:
    """How many tokens a real llama.cpp makes with this model; 0 when it does not load."""
    done = subprocess.run(
        [sys.executable, os.path.abspath(__file__), path], capture_output=True, text=True, timeout=90, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOKENS ")]
    return int(lines[0].split()[1]) if lines else 0


def cache_bytes(path: str, context: int, cache_type: str = "f16") -> int:
    """What a real llama.cpp takes for the cache of so many tokens, by its log; 0 when it does not load the model."""
    done = subprocess.run(
        [sys.executable, os.path.abspath(__file__), path, str(context), cache_type],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=90,
        check=False,
    )
    # The engine plans a first time without memory, and says all of it again when it has it.
    _, _, second = (done.stdout + done.stderr).rpartition("load_tensors:   CPU_Mapped model buffer size")
    found = re.findall(r"llama_kv_cache: size = +([0-9.]+) MiB", second)
    return round(sum(float(each) for each in found) * (1 << 20))


def _load(path: str, context: str, cache_type: str) -> None:
    import xllamacpp  # type: ignore[import-untyped]

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = int(context)
    parameters.n_parallel = 1
    parameters.warmup = False
    parameters.cpuparams.n_threads = 1
    parameters.verbosity = 10
    kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{cache_type.upper()}")
    parameters.cache_type_k = parameters.cache_type_v = kind
    # A server that ends before it has answered once may wait for itself.
    xllamacpp.Server(parameters).handle_completions({"prompt": "hi", "n_predict": 1})


def _main(path: str) -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = 128
    parameters.n_parallel = 1
    parameters.warmup = False
    parameters.cpuparams.n_threads = 1
    server = xllamacpp.Server(parameters)
    answer = server.handle_completions({"prompt": "hi", "n_predict": TOKENS, "temperature": 0, "ignore_eos": True})
    print("TOKENS", answer["usage"]["completion_tokens"], json.dumps(answer["choices"][0]["text"]))


if __name__ == "__main__":
    _main(sys.argv[1]) if len(sys.argv) == 2 else _load(*sys.argv[1:])
