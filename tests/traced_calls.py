"""A daemon under strace: its system calls seen, or made to fail."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from real_daemon import RealDaemon


@contextmanager
def strace(daemon: RealDaemon, *expressions: str, output: str = "/dev/null") -> Iterator[None]:
    """As long as the block runs; `expressions` are those of `-e`."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    command = [program, "-f", "-p", str(daemon.pid), "-o", output]
    for expression in expressions:
        command += ["-e", expression]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        try:
            if "attached" not in tracer.stderr.readline():
                pytest.skip("this machine does not let strace attach")
            yield
        finally:
            tracer.terminate()
            tracer.stderr.read()
