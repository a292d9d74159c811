"""A daemon of the tests is a fork of a Python that has imported it: it has what a process of its own would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rigs.real_daemon import TESTS, RealDaemon
from rigs.waiting import wait_until
from rigs.warm_python import DAEMON, WarmProcess, fits, start_warm

SAME = ("Umask", "SigBlk", "SigIgn", "SigCgt", "Uid", "Gid", "Groups", "CapEff", "NoNewPrivs", "Seccomp")
"""Of the status in /proc: what a process inherits, and what the daemon makes of it."""

KEY = "from modeld.sources import reference; print(reference._FINGERPRINT_KEY.hex())"


def status(daemon: RealDaemon) -> dict[str, str]:
    text = Path(f"/proc/{daemon.pid}/status").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return {name: fields[name].strip() for name in SAME}


def seen(daemon: RealDaemon) -> tuple[dict[str, str], str, str, list[str]]:
    process = f"/proc/{daemon.pid}"
    files = [os.readlink(f"{process}/fd/{number}").partition(":")[0] for number in os.listdir(f"{process}/fd")]
    limits = Path(process, "limits").read_text(encoding="ascii")
    return (
        status(daemon),
        os.readlink(f"{process}/cwd"),
        limits,
        sorted(each.replace(process, "/proc") for each in files),
    )


def settled(daemon: RealDaemon) -> tuple[dict[str, str], str, str, list[str]]:
    """When it has opened what it opens in its first moments, and its first threads have ended."""
    found = [seen(daemon)]

    def same() -> bool:
        time.sleep(0.2)
        found.append(seen(daemon))
        return found[-1] == found[-2] == found[max(0, len(found) - 3)] and len(found) > 3

    wait_until(same, what="no change of a daemon that does nothing")
    return found[-1]


def test_it_has_what_a_process_of_its_own_has(stopped: RealDaemon) -> None:
    stopped.start(prefix=("env",))
    assert isinstance(stopped.process, subprocess.Popen)
    cold = settled(stopped)
    assert stopped.terminate() == 0
    stopped.start()
    assert isinstance(stopped.process, WarmProcess)
    assert settled(stopped) == cold
    assert stopped.terminate() == 0


def run(room: Path, text: str, *arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str]:
    """A program of this text, as a fork: its exit code, and what it wrote."""
    program, output = room / "program.py", room / "output"
    program.write_text(text, encoding="utf-8")
    with open(output, "wb") as writer, open(os.devnull, "rb") as nothing:
        process = start_warm(
            [str(program)],
            arguments,
            {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error", **(environ or {})},
            imported=DAEMON,
            stdin=nothing.fileno(),
            stdout=writer.fileno(),
            stderr=writer.fileno(),
        )
        assert process is not None
        code = process.wait(30)
    return code, output.read_text(encoding="utf-8")


def test_arguments_environment_directory_and_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "import os, sys; print(sys.argv[1:], sorted(os.environ), os.getcwd(), oct(os.umask(0)), __name__)"
    before = os.umask(0o027)
    try:
        code, said = run(tmp_path, text, "a", "é b", environ={"MODELS_HOME": "/m"})
    finally:
        os.umask(before)
    names = ["MODELS_HOME", "PATH", "PYTHONWARNINGS"]
    assert (code, said) == (0, f"['a', 'é b'] {names} {tmp_path} 0o27 __main__\n")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 0),
        ("raise SystemExit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("raise ValueError('what it was')", 1),
        ("import warnings; warnings.warn('what it was', stacklevel=1)", 1),
    ],
)
def test_its_end_is_reported(tmp_path: Path, text: str, code: int) -> None:
    ended, said = run(tmp_path, text)
    assert ended == code
    assert ("what it was" in said) == (code == 1)


def test_each_draws_keys_of_its_own(tmp_path: Path) -> None:
    keys = [run(tmp_path, KEY) for _ in range(2)]
    assert [code for code, _ in keys] == [0, 0]
    assert keys[0] != keys[1]


def test_one_that_does_not_end_is_waited_for_in_vain_and_can_be_killed(daemon: RealDaemon) -> None:
    assert daemon.process is not None
    assert daemon.process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(0)
    daemon.kill()
    assert daemon.process.poll() == -signal.SIGKILL
    daemon.kill()


def test_what_needs_a_python_of_its_own_gets_one() -> None:
    assert fits(("-m", "modeld"), {})
    assert not fits(("-c", "pass"), {})
    assert not fits(("-m", "modeld"), {"LD_PRELOAD": "/slow_disk.so"})


def test_no_other_module_of_the_daemon_draws_anything_when_it_is_imported() -> None:
    """What is drawn at the import would be the same in every fork: `_draw_keys` has to know it."""
    watch = (
        "import os, sys\n"
        "drawn, real = [], os.urandom\n"
        "def urandom(size):\n"
        "    drawn.append(sys._getframe(1).f_globals['__name__'])\n"
        "    return real(size)\n"
        "os.urandom = urandom\n"
        "import modeld.app.run\n"
        "print([name for name in drawn if name.startswith('modeld')])\n"
    )
    done = subprocess.run([sys.executable, "-c", watch], cwd=TESTS, capture_output=True, text=True, check=True)
    assert done.stdout == "['modeld.sources.reference']\n"
