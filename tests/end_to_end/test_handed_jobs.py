"""Jobs on files that a client has handed over: who closes the files, and what a restart says of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.other_user import file_of, home_of
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import (
    FOREIGN_UID,
    MIB,
    incidents,
    needs_root,
    staging,
    stranger,
    until_job,
    write_access,
)
from rigs.waiting import wait_until

pytestmark = needs_root

GGUF = b"GGUF\3\0\0\0 handed over to it"


@pytest.fixture
def held(open_room: str) -> Iterator[HeldDaemon]:
    """A daemon whose copying stands still."""
    made = HeldDaemon(open_room)
    write_access(made, {str(FOREIGN_UID): "write"})
    made.start()
    yield made
    made.close()


def handed_open(daemon: RealDaemon, directory: str) -> int:
    """Files below the directory that the daemon has open."""
    found = []
    for entry in os.scandir(f"/proc/{daemon.pid}/fd"):
        try:
            found.append(os.readlink(entry.path))
        except FileNotFoundError:
            continue
    return sum(path.startswith(directory + "/") for path in found)


def test_the_files_belong_to_the_job_until_it_ends(held: HeldDaemon) -> None:
    """Waiting, running, left by its client; and it reads what was handed over, whatever the name leads to by then."""
    home = home_of(held)
    paths = [file_of(home, f"{number}.gguf", GGUF + b"%d" % number) for number in range(4)]
    with stranger(held) as wire, held.connect() as watch:
        jobs = []
        for number, path in enumerate(paths):
            wire.request("model.add", **wire.hand_over(path), id=f"{number}", on_disconnect="continue")
            jobs.append(wire.until(f"{number}", "accepted")["job"])
            os.unlink(path)
        assert handed_open(held, home) >= 4
        wire.close()
        wait_until(lambda: watch.ask("daemon.status")["value"]["connections"] == 1, what="the client has left")
        assert handed_open(held, home) >= 4
        watch.ask("job.cancel", job=jobs[3])
        wait_until(lambda: handed_open(held, home) < 8, what="a cancelled job has closed its file")
        held.release()
        for job in jobs[:3]:
            until_job(held, job, "done")
    wait_until(lambda: handed_open(held, home) == 0, what="no file is open")
    for number in range(3):
        resolved = held.ask("model.resolve", name=str(number))["value"]["path"]
        assert Path(resolved).read_bytes() == GGUF + b"%d" % number


def test_a_client_that_leaves_its_waiting_job_closes_its_file(held: HeldDaemon) -> None:
    home = home_of(held)
    path = file_of(home, "m.gguf", GGUF)
    for _ in range(3):
        with stranger(held) as wire:
            for number in range(4):
                wire.request("model.add", **wire.hand_over(path), name=f"m{number}", id=f"{number}")
                wire.until(f"{number}", "accepted")
    wait_until(lambda: handed_open(held, home) == 0, what="no file is open")
    assert not incidents(held)


def test_after_a_crash_the_job_says_that_its_files_are_gone(held: HeldDaemon) -> None:
    path = file_of(home_of(held), "m.gguf", GGUF)
    with stranger(held) as wire:
        given = wire.hand_over(path)
        wire.request("model.add", **given, name="m", id="add", on_disconnect="continue")
        job = wire.until("add", "accepted")["job"]
        held.kill()
    os.chmod(path, 0o644)
    held.release()
    held.start()
    until_job(held, job, "failed")
    error = held.ask("job.show", job=job)["value"]["error"]
    assert (error["code"], error.get("retryable", False)) == ("interrupted", False), error
    assert error["hint"] == f"Add {path} again."
    assert held.ask("model.resolve", name="m")["code"] == "not_found"
    assert not incidents(held)


def test_a_stop_says_that_the_job_does_not_go_on(held: HeldDaemon) -> None:
    path = file_of(home_of(held), "m.bin", os.urandom(9 * MIB))
    with stranger(held) as wire:
        wire.request("model.add", **wire.hand_over(path), id="add")
        wire.until("add", "accepted")
        assert held.ask("daemon.drain", deadline_s=0)["type"] == "result"
        refused = wire.terminal("add")
        assert (refused["code"], refused["hint"].startswith("Ask for it again")) == ("interrupted", True), refused
    assert held.wait() == 0


@pytest.mark.parametrize("change", ["written", "cut", "grown"])
def test_a_handed_file_that_changes_while_it_is_read(held: HeldDaemon, change: str) -> None:
    path = file_of(home_of(held), "m.bin", os.urandom(9 * MIB))
    with stranger(held) as wire:
        wire.request("model.add", **wire.hand_over(path), name="m", id="add")
        wait_until(lambda: len(staging(held)) == 1, what="the copy has begun")
        with open(path, "r+b") as file:
            match change:
                case "written":
                    file.seek(8 * MIB)
                    file.write(b"other")
                case "cut":
                    file.truncate(5 * MIB)
                case "grown":
                    file.seek(0, os.SEEK_END)
                    file.write(b"more")
        held.release()
        refused = wire.terminal("add")
        assert refused["code"] == "source_unavailable", refused
        assert "changed while it was being read" in refused["message"]
        assert wire.ask("model.add", **wire.hand_over(path), name="m")["type"] == "result"
    assert Path(held.ask("model.resolve", name="m")["value"]["path"]).read_bytes() == Path(path).read_bytes()
