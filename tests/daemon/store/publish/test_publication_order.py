"""Seen from the kernel: every naming stands between two syncs, and errors that come from there are typed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rigs.publication_rig import BIG, SMALL, Adding, run_alone
from rigs.syscall_order import SUCCESS, TRACED, finished_calls, order_faults


def test_split_lines_of_a_log_are_joined() -> None:
    log = "7 fsync(3</a> <unfinished ...>\n8 +++ exited with 0 +++\n7 <... fsync resumed>) = 0\n7 fsync(4</b>) = 0"
    assert list(finished_calls(log)) == ["8 +++ exited with 0 +++", "7 fsync(3</a>) = 0", "7 fsync(4</b>) = 0"]


@pytest.mark.parametrize("end", [") = 40", " <unfinished ...>", " <detached ...>", ""])
def test_a_reply_counts_from_its_beginning(end: str) -> None:
    line = f'7 sendto(4<socket:[1]>, "{SUCCESS}}}", 40, 0, NULL, 0'
    assert list(finished_calls(f"{line}{end}\n7 <... sendto resumed>) = 40")) == [f"{line}) = 0"]


@pytest.fixture
def strace() -> tuple[str, ...]:
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run([found, "-o", os.devnull, "true"], capture_output=True, timeout=60, check=False)
    if probe.returncode != 0:
        pytest.skip("this machine does not let strace trace")
    return found, "-f", "-y", "-s", "4096", "-e", TRACED


@pytest.mark.parametrize(("size", "mode"), [(0, "one"), (SMALL, "one"), (BIG, "one"), (SMALL, "many")])
def test_every_naming_stands_between_two_syncs(tmp_path: Path, strace: tuple[str, ...], size: int, mode: str) -> None:
    adding, log = Adding(tmp_path, size), tmp_path / "log"
    outcome = run_alone(tmp_path, mode, prefix=(*strace, "-o", str(log)))
    assert outcome.returncode == 0, outcome.stderr
    assert order_faults(log.read_text(), adding.layout) == []


@pytest.mark.parametrize(
    ("without", "complaint"),
    [("sync_file", "before its bytes were synced"), ("sync_directory", "was not synced after")],
)
def test_the_order_check_notices_a_missing_sync(
    tmp_path: Path, strace: tuple[str, ...], without: str, complaint: str
) -> None:
    adding, log = Adding(tmp_path), tmp_path / "log"
    outcome = run_alone(tmp_path, "without", without, prefix=(*strace, "-o", str(log)))
    assert outcome.returncode == 0, outcome.stderr
    assert any(complaint in fault for fault in order_faults(log.read_text(), adding.layout))


@pytest.mark.torture
@pytest.mark.parametrize("code", ["EIO", "ENOSPC", "EDQUOT"])
@pytest.mark.parametrize("call", ["fallocate", "pwritev2", "fchmod", "fsync", "renameat2"])
def test_the_kernel_itself_fails_a_call(tmp_path: Path, strace: tuple[str, ...], call: str, code: str) -> None:
    """As the sweep above, with the error where a real one comes from: calls that only the store makes."""
    adding, log = Adding(tmp_path, BIG), tmp_path / "log"
    for nth in range(1, 20):
        inject = ("-e", f"trace={call}", "-e", f"inject={call}:error={code}:when={nth}")
        outcome = run_alone(tmp_path, "reported", prefix=(strace[0], "-f", "-o", str(log), *inject))
        adding.assert_whole_or_absent()
        assert adding.temporaries() == []
        injected = next((line for line in log.read_text().splitlines() if "INJECTED" in line), None)
        if injected is None:
            assert outcome.returncode == 0, outcome.stderr
            assert nth > 1, f"{call} was never made"
            return
        if "modeld blocks" in injected:  # the checksums of a blob that is there: they only save a repair work
            assert outcome.returncode == 0, outcome.stderr
        else:
            assert outcome.returncode == 3, outcome.stderr
            assert outcome.stdout.strip() in {"no_space", "quota_exceeded", "internal"}
        adding.assert_added()
        os.unlink(adding.name)
    pytest.fail("the sweep has no end")
