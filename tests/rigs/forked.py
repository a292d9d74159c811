"""A function that dies on purpose, called many times: each time in a fork of a process that has imported its module.

To start an interpreter and import half of the daemon takes a third of a second, most of what such a call takes.
`python forked.py MODULE-FILE FUNCTION` is that process: a line of arguments in, a line of outcome out.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

Run = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def forked(file: str, function: str) -> Iterator[Run]:
    """Yields a call of the function with texts, in a process of its own: its exit code and what it wrote."""
    with subprocess.Popen(
        [sys.executable, __file__, file, function],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        asked, answers = server.stdin, server.stdout

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            asked.write(json.dumps(arguments) + "\n")
            asked.flush()
            outcome = json.loads(answers.readline())
            return subprocess.CompletedProcess(arguments, outcome["code"], "", outcome["said"])

        yield run
        asked.close()


def _module(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("forked_module", file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def _serve(call: Callable[..., Any]) -> None:
    for line in sys.stdin:
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if child == 0:
                _call(call, json.loads(line), said.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            print(json.dumps({"code": code, "said": said.read().decode(errors="replace")}), flush=True)


def _call(call: Callable[..., Any], arguments: list[str], said: int) -> None:
    """Never returns."""
    code = 1
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        call(*arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(getattr(_module(sys.argv[1]), sys.argv[2]))
