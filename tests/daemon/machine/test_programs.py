"""A program that reports something ends in time, or is ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from modeld.machine.programs import Report, report
from rigs.waiting import wait_until

ENVIRON = {"PATH": os.environ["PATH"]}


def test_what_it_writes_and_how_it_ends() -> None:
    assert report(["sh", "-c", "pwd; exit 3"], 30, ENVIRON) == Report("/\n", 3)


def test_it_gets_the_environment_that_it_is_given_and_no_other() -> None:
    program = "import os; print(sorted(set(os.environ) & {'HOME', 'SECRET', 'A'}))"
    assert report([sys.executable, "-c", program], 30, {"A": "1"}).output == "['A']\n"


def test_one_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"echo begun; sleep 600 & echo $$ $! > {pids}; wait"
    assert report(["sh", "-c", script], 0.3, ENVIRON) == Report("begun\n", None)
    both = [int(pid) for pid in pids.read_text().split()]
    assert len(both) == 2
    wait_until(lambda: not any(map(running, both)), 10, "the end of the program and of its child")


def running(pid: int) -> bool:
    """A zombie that nobody has waited for does not run."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        report([str(tmp_path / "none")], 30, ENVIRON)


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert report(["sh", "-c", r"printf '\377'"], 30, ENVIRON).output == "\ufffd"
