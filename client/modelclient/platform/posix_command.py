"""A command that runs in place of this program, as far as its caller can tell."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def run(words: Sequence[str], environ: Mapping[str, str], begun: Callable[[], None]) -> int:
    with _signals_passed_on() as receivers, subprocess.Popen(words, env=environ) as child:
        receivers.append(child)
        begun()
        code = child.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _signals_passed_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """From before the command exists. A terminal sends Ctrl-C to both processes, and the command decides what it means.
    A signal that this process ignores, as under nohup, stays ignored in both."""
    receivers: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        for child in receivers:
            child.send_signal(number)

    handlers = {**dict.fromkeys(_PASSED_ON, pass_on), signal.SIGINT: lambda *_: None}
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield receivers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
