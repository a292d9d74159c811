"""The error codes of work that was admitted, and of what keeps it from ending well. See `test_error_codes`."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator

import pytest

from rigs.error_codes import assert_speaks, produces
from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import (
    MIB,
    held_name,
    needs_root,
    staging,
    status,
)
from rigs.waiting import wait_until

# -- room


@produces("no_space")
def test_no_space_when_too_little_would_be_left_free(stopped: RealDaemon) -> None:
    stopped.environ["MODELD_STORE_MIN_FREE"] = "1000TB"
    reply = stopped.start().ask("model.add", path=stopped.file("a.bin", b"a" * 1000), name="a")
    assert_speaks(reply, "no_space", "1000 bytes")
    assert reply["details"]["needed_bytes"] == 1000
    assert reply["details"]["free_bytes"] == 0
    assert "min_free" in reply["hint"]
    assert staging(stopped) == []


@pytest.fixture
def small_disk(stopped: RealDaemon) -> Iterator[RealDaemon]:
    """A store on a filesystem of 4 MiB; the test starts the daemon."""
    os.makedirs(stopped.root)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "none", stopped.root], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no filesystem can be mounted here: {mounted.stderr.decode().strip()}")
    stopped.environ["MODELD_STORE_MIN_FREE"] = "0"
    yield stopped
    stopped.close()
    subprocess.run(["umount", stopped.root], check=True)


@produces("no_space")
@needs_root
def test_no_space_on_a_full_disk_and_success_when_there_is_room_again(small_disk: RealDaemon) -> None:
    daemon = small_disk.start()
    big = daemon.file("big.bin", b"b" * (3 * MIB))
    filler = os.path.join(daemon.root, "filler")
    with open(filler, "wb") as file:
        file.write(b"f" * (2 * MIB))
    reply = daemon.ask("model.add", path=big, name="big")
    assert_speaks(reply, "no_space", str(3 * MIB))
    assert reply["details"]["free_bytes"] < 3 * MIB
    assert staging(daemon) == []
    os.unlink(filler)
    assert daemon.ask("model.add", path=big, name="big")["type"] == "result", "the same request, no restart"


@produces("quota_exceeded")
def test_quota_exceeded(stopped: RealDaemon) -> None:
    stopped.environ["MODELD_STORE_MAX_BYTES"] = "1500"
    daemon = stopped.start()
    path = daemon.file("a.bin", b"a" * 1000)
    blob = daemon.ask("model.add", path=path, name="a")["value"]["blob"]
    reply = daemon.ask("model.add", path=daemon.file("b.bin", b"b" * 1000), name="b")
    assert_speaks(reply, "quota_exceeded", "1500", "1000")
    assert "max_bytes" in reply["hint"]
    assert daemon.ask("model.add", path=path, name="c", sha256=blob)["type"] == "result", "these bytes are here"


# -- sources


@produces("untrusted")
def test_untrusted(stopped: RealDaemon) -> None:
    rule = f'references = ["local:{stopped.room}/*"]\nkeys = ["{stopped.room}/key.pem"]'
    stopped.configure(f"[[trust.require]]\n{rule}\n")
    daemon = stopped.start()
    path = daemon.file("a.bin", b"a")
    assert_speaks(daemon.ask("model.add", path=path, name="a"), "untrusted", path, "signature")
    reply = daemon.ask("model.add", path=path, name="a", signature="{}")
    assert_speaks(reply, "untrusted", path, f"{stopped.room}/key.pem", "no such file")


@produces("source_not_found")
def test_source_not_found(daemon: RealDaemon) -> None:
    for path in (f"{daemon.room}/no-such.bin", f"{daemon.file('file', b'x')}/below-a-file"):
        assert_speaks(daemon.ask("model.add", path=path, name="x"), "source_not_found", path)


@produces("source_unavailable")
def test_source_unavailable_when_the_file_changes_while_it_is_read(held: HeldDaemon) -> None:
    held.start()
    path = held.file("changing.bin", b"1" * (8 * MIB))
    with held.connect() as wire:
        wire.request("model.add", path=path, name="x", id="1")
        wait_until(lambda: len(staging(held)) == 1, what="the copy has begun")
        with open(path, "ab") as file:
            file.write(b"more")
        held.release()
        reply = wire.terminal("1")
    assert_speaks(reply, "source_unavailable", path, str(8 * MIB), str(8 * MIB + 4))
    assert staging(held) == []


@produces("source_unavailable")
def test_source_unavailable_when_the_file_ends_too_early(daemon: RealDaemon) -> None:
    """Files of the kernel say that they have a page, and give a line."""
    path = "/sys/kernel/mm/transparent_hugepage/enabled"
    if not os.path.exists(path):
        pytest.skip("no such file in /sys")
    assert_speaks(daemon.ask("model.add", path=path, name="x"), "source_unavailable", path, "4096")


# -- others in the way


@produces("in_use")
def test_in_use_by_another_tool_that_holds_the_name(stopped: RealDaemon) -> None:
    stopped.configure("[store]\nlock_wait = '200ms'\n")
    daemon = stopped.start()
    path = daemon.file("a.bin", b"a")
    with held_name(daemon, "taken"):
        reply = daemon.ask("model.add", path=path, name="taken")
    assert_speaks(reply, "in_use", "'taken'", str(os.getpid()), "locks/taken.lock", "waited 0.2 s")
    assert "[store] lock_wait" in reply["hint"]
    assert reply["details"]["pid"] == os.getpid()
    assert staging(daemon) == []


def _catalogue(daemon: RealDaemon) -> str:
    private = os.path.join(daemon.root, ".modeld")
    (found,) = (
        name for name in os.listdir(private) if name.startswith("catalog") and name.endswith((".db", ".sqlite"))
    )
    return os.path.join(private, found)


@produces("queue_full")
def test_queue_full(held: HeldDaemon) -> None:
    held.environ |= {"MODELD_LIMITS_RUNNING_BYTES": "1", "MODELD_LIMITS_WAITING_TOTAL": "1"}
    held.start()
    with held.connect() as wire:
        for name in ("runs", "waits"):
            wire.request("model.add", path=held.file(f"{name}.bin", b"x" * MIB), name=name, id=name)
            wire.until(name, "accepted")
        reply = wire.ask("model.add", path=held.file("late.bin", b"x"), name="late", id="late")
    assert_speaks(reply, "queue_full", "limit is 1")
    assert reply["details"]["depth"] == 1
    assert reply["retry_after_ms"] > 0


# -- ends


@produces("cancelled")
def test_cancelled(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire, held.connect() as other:
        for number, way in enumerate(("cancel", "job.cancel")):
            path = held.file(f"{number}.bin", bytes([number]) * MIB)
            wire.request("model.add", path=path, name=f"c{number}", id="add")
            job = wire.until("add", "accepted")["job"]
            if way == "cancel":
                wire.request("cancel", target="add")
            else:
                assert other.ask("job.cancel", job=job)["value"]["state"] == "cancelled"
            reply = wire.terminal("add")
            assert (reply["code"], reply["retryable"]) == ("cancelled", False)
            assert job in reply["message"] if way == "job.cancel" else "client" in reply["message"]
            wait_until(lambda job=job: other.ask("job.show", job=job)["value"]["state"] == "cancelled")  # type: ignore[misc]
            kept = other.ask("job.attach", job=job)
            assert kept["value"]["error"]["code"] == "cancelled" if kept["type"] == "result" else kept["code"]
    assert staging(held) == []


@produces("draining", "interrupted")
def test_draining_and_interrupted(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire, held.connect() as watcher, held.connect() as late:
        wire.request("model.add", path=held.file("a.bin", b"a" * (8 * MIB)), name="a", id="1")
        job = wire.until("1", "accepted")["job"]
        wait_until(lambda: len(staging(held)) == 1)
        watcher.request("events.subscribe", id="w")
        assert watcher.ask("daemon.drain", deadline_s=1, id="d")["value"]["running"] == 1
        assert_speaks(late.ask("model.add", path=held.file("b.bin", b"b"), name="b"), "draining", "stopping")
        assert late.ask("daemon.status")["value"]["state"] == "draining"
        reply = wire.terminal("1")
        assert_speaks(reply, "interrupted", job)
        assert job in reply["hint"]
        assert_speaks(watcher.terminal("w"), "interrupted", "stopped")
        assert wire.closed()
    assert held.wait() == 0
    held.release()
    held.start()
    assert held.ask("job.attach", job=job)["value"]["state"] == "done", "it goes on at the next start"


@produces("interrupted")
def test_interrupted_at_once_when_there_is_no_deadline(held: HeldDaemon) -> None:
    held.start()
    with held.connect() as wire:
        wire.request("model.add", path=held.file("a.bin", b"a" * (8 * MIB)), name="a", id="1")
        wire.until("1", "accepted")
        assert wire.ask("daemon.drain", deadline_s=0, id="d")["value"]["deadline_s"] == 0
        assert_speaks(wire.terminal("1"), "interrupted")
    assert held.wait() == 0


# -- what nobody foresaw


@produces("internal")
def test_internal_tells_the_client_an_incident_and_the_log_all_of_it(daemon: RealDaemon) -> None:
    """Somebody has tampered with the catalogue while no daemon held it."""
    assert daemon.terminate() == 0
    with contextlib.closing(sqlite3.connect(_catalogue(daemon))) as tampering:
        tampering.execute("CREATE TRIGGER odd BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'tampered with'); END")
        tampering.commit()
    daemon.start()
    reply = daemon.ask("model.add", path=daemon.file("a.bin", b"a"), name="a")
    incident = reply["details"]["incident"]
    assert_speaks(reply, "internal", incident)
    assert incident in reply["hint"]
    assert "tampered" not in str(reply), "the details are for the log"
    wait_until(lambda: incident in daemon.log(), what="the incident in the log")
    assert "tampered with" in daemon.log()
    assert daemon.ask("model.list")["type"] == "result", "whoever needs no new job is served"
    assert status(daemon)["queue"]["running"] == 0


@produces("internal")
def test_internal_when_the_disk_reports_an_error(daemon: RealDaemon) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not here")
    with _syncs_fail(daemon):
        reply = daemon.ask("model.add", path=daemon.file("a.bin", b"a"), name="a")
    assert_speaks(reply, "internal", "error")
    assert "kernel's log" in reply["hint"]
    # The same number for whoever looks after the daemon. A thread of its own writes the log.
    wait_until(lambda: reply["details"]["incident"] in daemon.log(), what="the incident in the log")
    assert daemon.ask("model.resolve", name="a")["code"] == "not_found"
    assert staging(daemon) == []


@contextlib.contextmanager
def _syncs_fail(daemon: RealDaemon) -> Iterator[None]:
    """As of a disk that cannot write any more."""
    command = ["strace", "-f", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "-p", str(daemon.pid)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        try:
            assert b"attached" in tracer.stderr.readline()
            yield
        finally:
            tracer.terminate()
            tracer.stderr.read()


@produces("internal")
def test_internal_when_the_store_is_away(daemon: RealDaemon) -> None:
    os.rename(daemon.root, daemon.root + ".away")
    try:
        reply = daemon.ask("model.add", path=daemon.file("a.bin", b"a"), name="a")
        assert_speaks(reply, "internal", daemon.root, retryable=True)
        assert "mounted" in reply["hint"]
        assert daemon.ask("daemon.status")["type"] == "result"
    finally:
        os.rename(daemon.root + ".away", daemon.root)
    assert daemon.ask("model.add", path=daemon.file("a.bin", b"a"), name="a")["type"] == "result"
