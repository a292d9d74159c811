"""A program that reports something, and that may hang for ever: it is run with a deadline."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from modeld.platform import children

_AFTER_KILL_SECONDS: Final = 1.0
"""A killed process ends within milliseconds, unless it hangs in the kernel."""


class Report(NamedTuple):
    """`code` is None for a program that did not end in time; `output` is what it had written by then."""

    output: str
    code: int | None


def report(command: Sequence[str], seconds: float, environ: Mapping[str, str]) -> Report:
    """What the program writes. Blocks for little longer than so many seconds. Raises OSError when it cannot start."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=dict(environ),
        start_new_session=True,
    )
    try:
        output, code = process.communicate(timeout=seconds)[0], process.returncode
    except subprocess.TimeoutExpired:
        output, code = _killed(process), None
    return Report(output.decode(errors="replace"), code)


def _killed(process: subprocess.Popen[bytes]) -> bytes:
    children.kill_session(process.pid)
    try:
        return process.communicate(timeout=_AFTER_KILL_SECONDS)[0]
    except subprocess.TimeoutExpired as late:
        return late.output or b""
