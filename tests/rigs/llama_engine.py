"""Loads a GGUF with llama.cpp and generates a few tokens: `python llama_engine.py PATH`. A process of its own, because
the engine writes its log where it likes."""

from __future__ import annotations

import json
import os
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


def _main(path: str) -> None:
    import xllamacpp  # type: ignore[import-untyped]

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
    _main(sys.argv[1])
