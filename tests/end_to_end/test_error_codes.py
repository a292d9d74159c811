"""Every error code that this daemon can answer with, produced by what produces it in real life, through its socket.

Each test also reads the sentence as a stranger would: it names the thing, it says why, and where there is a next step
the hint says which. The last test fails when a code has no test here.

These belong to fetching, and are covered where sources are tested, with a scripted peer on the other side:
`source_unauthorized`, `offline`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from held_daemon import HeldDaemon
from modelwire.errors import BY_CODE, CODES
from real_daemon import RealDaemon, wait_until
from rough_peers import (
    FOREIGN_UID,
    MIB,
    connect_as,
    everything_until_close,
    held_name,
    line,
    needs_root,
    send_unwelcome,
    staging,
    status,
    write_access,
)

OF_FETCHING = {"source_unauthorized", "offline"}

_PRODUCED: set[str] = set()
_Test = TypeVar("_Test", bound=Callable[..., object])


def produces(*codes: str) -> Callable[[_Test], _Test]:
    def note(test: _Test) -> _Test:
        _PRODUCED.update(codes)
        return test

    return note


def assert_speaks(
    reply: dict[str, Any], code: str, *names: str, retryable: bool | None = None, says_all: bool = False
) -> None:
    """One error as a stranger can use it. `says_all`: the message itself leaves no question what to do."""
    assert reply["type"] == "error", reply
    assert reply["code"] == code, reply
    message, hint = reply["message"], reply.get("hint", "")
    for name in names:
        assert name in message, f"{name!r} is not named in {message!r}"
    assert len(message) > 15, message
    assert hint or says_all, f"no hint beside {message!r}"
    assert reply["retryable"] is (BY_CODE[code].retryable_by_default if retryable is None else retryable), reply
    for text in (message, hint):
        assert "Traceback" not in text
        assert "\n" not in text
        assert "object at 0x" not in text
        assert "Errno" not in text
        assert "None" not in text, text


# -- the request


@produces("invalid_request")
def test_invalid_request(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        assert_speaks(wire.ask("model.add", path="relative/path"), "invalid_request", "$.path", "'relative/path'")
        assert_speaks(wire.ask("model.resolve"), "invalid_request", "$.name")
        assert_speaks(wire.ask("job.list", limit=100_000), "invalid_request", "$.limit", "100000")
        assert_speaks(wire.ask("daemon.drain", deadline_s=-1), "invalid_request", "$.deadline_s", "-1")
        assert_speaks(wire.ask("cancel", target="x"), "invalid_request", "$.target", "'x'")


@produces("invalid_request")
@pytest.mark.parametrize("kind", ["named pipe", "socket", "character device", "too many links"])
def test_invalid_request_for_what_is_no_file(daemon: RealDaemon, kind: str) -> None:
    path = os.path.join(daemon.room, "thing")
    match kind:
        case "named pipe":
            os.mkfifo(path)
        case "socket":
            path = daemon.socket
        case "character device":
            path = "/dev/zero"
        case "too many links":
            os.symlink(path, path)
    reply = daemon.ask("model.add", path=path, name="x")
    assert_speaks(reply, "invalid_request", path, says_all=True)
    if kind != "too many links":
        assert kind in reply["message"]


@produces("unsupported")
def test_unsupported(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        assert_speaks(wire.ask("hello", protocol=7), "unsupported", "7", "1 to 1")
        assert_speaks(wire.ask("hello", protocol=1, required=["teleport"]), "unsupported", "teleport", "jobs")


@produces("unknown_operation")
def test_unknown_operation(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        reply = wire.ask("model.resole", name="x")
        assert_speaks(reply, "unknown_operation", "'model.resole'")
        assert reply["hint"] == "did you mean model.resolve?"
        assert_speaks(wire.ask("qqqq"), "unknown_operation", "'qqqq'")


@produces("frame_too_large")
def test_frame_too_large(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        send_unwelcome(wire, b"x" * (MIB + 1) + b"\n")
        assert_speaks(everything_until_close(wire)[0], "frame_too_large", str(MIB))


@produces("timeout")
def test_timeout(stopped: RealDaemon) -> None:
    stopped.environ["MODELD_LIMITS_READ_STALL"] = "200ms"
    with stopped.start().connect() as wire:
        wire.send(b"{")
        assert_speaks(everything_until_close(wire)[0], "timeout", "0.2 s")


# -- rights


@pytest.fixture
def open_daemon(room: Path) -> Iterator[RealDaemon]:
    """In a room that other users may enter; the test starts it."""
    at = f"/tmp/modeld-{os.getpid()}-{room.name}"
    os.mkdir(at, 0o755)
    made = RealDaemon(at)
    yield made
    made.close()
    shutil.rmtree(at)


@produces("unauthorized", "permission_denied")
@needs_root
def test_unauthorized_and_permission_denied(open_daemon: RealDaemon) -> None:
    write_access(open_daemon, {str(FOREIGN_UID): "write"})
    daemon = open_daemon.start()
    with connect_as(daemon.socket, FOREIGN_UID + 1) as wire:
        assert_speaks(everything_until_close(wire)[0], "unauthorized", str(FOREIGN_UID + 1))
    path = daemon.file("private.bin", b"x")
    os.chmod(path, 0o600)
    with connect_as(daemon.socket, FOREIGN_UID) as wire:
        wire.read()
        assert_speaks(wire.ask("daemon.drain"), "unauthorized", "daemon.drain", str(FOREIGN_UID))
        assert_speaks(wire.ask("model.add", path=path, name="x"), "permission_denied", path, str(FOREIGN_UID))


# -- names and digests


@produces("not_found")
def test_not_found(daemon: RealDaemon) -> None:
    daemon.ask("model.add", path=daemon.file("a.bin", b"a"), name="llama")
    with daemon.connect() as wire:
        for op in ("model.resolve", "model.show"):
            reply = wire.ask(op, name="lama")
            assert_speaks(reply, "not_found", "'lama'")
            assert reply["hint"] == "did you mean llama?"
        assert_speaks(wire.ask("model.resolve", name="qqqq"), "not_found", "'qqqq'")
        for op in ("job.show", "job.attach", "job.cancel", "job.pause", "job.resume"):
            assert_speaks(wire.ask(op, job="no-such-job"), "not_found", "'no-such-job'")


@produces("already_exists")
def test_already_exists(daemon: RealDaemon) -> None:
    one, two = daemon.file("1.bin", b"1"), daemon.file("2.bin", b"2")
    with daemon.connect() as wire:
        assert wire.ask("model.add", path=one, name="Llama")["type"] == "result"
        assert wire.ask("model.add", path=one, name="Llama")["type"] == "result", "the same again is success"
        reply = wire.ask("model.add", path=two, name="Llama")
        assert_speaks(reply, "already_exists", "Llama")
        assert "replace" in reply["hint"]
        assert_speaks(wire.ask("model.add", path=one, name="llama"), "already_exists", "'llama'", "'Llama'")
        assert wire.ask("model.add", path=two, name="Llama", replace=True)["type"] == "result"


@produces("invalid_name")
def test_invalid_name_has_a_sentence_for_each_rule(daemon: RealDaemon) -> None:
    path = daemon.file("a.bin", b"a")
    messages = set()
    with daemon.connect() as wire:
        for name, said in (
            ("", "is empty"),
            ("a/b", "separator"),
            ("a\\b", "separator"),
            ("a\0b", "NUL"),
            ("a..b", "'..'"),
            (".hidden", "starts with a dot"),
            ("a b", "' '"),
            ("con.gguf", "device"),
            ("x" * 129, "128"),
            ("a:", "tag is empty"),
            ("é", "character"),
        ):
            for op, fields in (("model.add", {"path": path}), ("model.resolve", {}), ("model.show", {})):
                reply = wire.ask(op, name=name, **fields)
                assert_speaks(reply, "invalid_name", "is not a valid model name")
                assert said in reply["message"] or said == "character"
                messages.add(reply["details"]["rule"])
    assert len(messages) == 8
    assert not os.listdir(os.path.join(daemon.root, "manifests"))


@produces("invalid_digest")
def test_invalid_digest_says_length_or_alphabet(daemon: RealDaemon) -> None:
    path = daemon.file("a.bin", b"a")
    with daemon.connect() as wire:
        length = wire.ask("model.add", path=path, name="a", sha256="ab" * 31)
        alphabet = wire.ask("model.add", path=path, name="a", sha256="g" * 64)
        upper = wire.ask("model.add", path=path, name="a", sha256="A" * 64)
        other = wire.ask("model.add", path=path, name="a", sha256="md5:" + "a" * 32)
    assert_speaks(length, "invalid_digest", "64", "62")
    assert_speaks(alphabet, "invalid_digest", "0-9 and a-f", "'g'", says_all=True)
    assert_speaks(upper, "invalid_digest", "'A'")
    assert "lowercase" in upper["hint"]
    assert_speaks(other, "invalid_digest", "'md5'", "only sha256", says_all=True)
    assert length["message"] != alphabet["message"]
    assert status(daemon)["queue"]["waiting"] == 0
    assert daemon.ask("job.list")["value"]["jobs"] == [], "what is wrong in itself is refused before it becomes a job"


@produces("digest_mismatch")
def test_digest_mismatch(daemon: RealDaemon) -> None:
    path = daemon.file("a.bin", b"not what was wanted")
    reply = daemon.ask("model.add", path=path, name="a", sha256="0" * 64)
    assert_speaks(reply, "digest_mismatch", path, "sha256:" + "0" * 64)
    assert reply["details"]["expected_sha256"] == "0" * 64
    with open(reply["details"]["quarantine_path"], "rb") as kept:
        assert kept.read() == b"not what was wanted"
    assert daemon.ask("model.resolve", name="a")["code"] == "not_found"
    assert staging(daemon) == []


@produces("corrupt")
@pytest.mark.parametrize("how", ["removed", "cut", "manifest"])
def test_corrupt(daemon: RealDaemon, how: str) -> None:
    added = daemon.ask("model.add", path=daemon.file("a.bin", b"a" * 100), name="a")["value"]
    match how:
        case "removed":
            os.unlink(added["path"])
        case "cut":
            os.chmod(added["path"], 0o600)
            os.truncate(added["path"], 50)
        case "manifest":
            with open(os.path.join(daemon.root, "manifests", "a.json"), "w", encoding="utf-8") as file:
                file.write('{"schema_version": 1, "name": ')
    reply = daemon.ask("model.resolve", name="a")
    assert_speaks(reply, "corrupt", "a.json" if how == "manifest" else "'a'")
    if how != "manifest":
        assert added["path"] in reply["message"]
    assert daemon.ask("model.list")["type"] == "result"


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
    assert daemon.ask("model.add", path=daemon.file("a.bin", b"a" * 1000), name="a")["type"] == "result"
    reply = daemon.ask("model.add", path=daemon.file("b.bin", b"b" * 1000), name="b")
    assert_speaks(reply, "quota_exceeded", "1500", "1000")
    assert "max_bytes" in reply["hint"]
    assert daemon.ask("model.add", path=daemon.file("a.bin", b"a" * 1000), name="c")["type"] == "result", "no new bytes"


# -- sources


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
@pytest.mark.torture
def test_in_use_by_another_tool_that_holds_the_name(daemon: RealDaemon) -> None:
    """The daemon's patience with other tools is half a minute."""
    path = daemon.file("a.bin", b"a")
    with held_name(daemon, "taken"):
        reply = _patient_add(daemon, path, "taken")
    assert_speaks(reply, "in_use", "'taken'", str(os.getpid()), "locks/taken.lock")
    assert reply["details"]["pid"] == os.getpid()
    assert staging(daemon) == []


def _patient_add(daemon: RealDaemon, path: str, name: str) -> dict[str, Any]:
    with daemon.connect() as wire:
        wire.socket.settimeout(90)
        return wire.ask("model.add", path=path, name=name)


@produces("in_use")
def test_in_use_by_another_program_that_locks_the_catalogue(daemon: RealDaemon) -> None:
    with contextlib.closing(sqlite3.connect(_catalogue(daemon), isolation_level=None)) as locking:
        locking.execute("BEGIN IMMEDIATE")
        reply = daemon.ask("model.add", path=daemon.file("a.bin", b"a"), name="a")
        locking.execute("ROLLBACK")
    assert_speaks(reply, "in_use", "catalogue", daemon.root)
    assert daemon.ask("model.add", path=daemon.file("a.bin", b"a"), name="a")["type"] == "result"
    assert status(daemon)["queue"]["running"] == 0


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
    """Somebody takes a table out of the catalogue while the daemon runs."""
    daemon.ask("job.list")
    with contextlib.closing(sqlite3.connect(_catalogue(daemon))) as tampering:
        tampering.execute("DROP TABLE jobs")
        tampering.commit()
    for op, fields in (("job.list", {}), ("model.add", {"path": daemon.file("a.bin", b"a"), "name": "a"})):
        reply = daemon.ask(op, **fields)
        incident = reply["details"]["incident"]
        assert_speaks(reply, "internal", incident)
        assert incident in reply["hint"]
        assert "no such table" not in str(reply), "the details are for the log"
        assert incident in daemon.log()
    assert "no such table: jobs" in daemon.log()
    assert daemon.ask("model.list")["type"] == "result", "whoever needs no catalogue is served"


@produces("internal")
def test_internal_when_the_disk_reports_an_error(daemon: RealDaemon) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not here")
    with _syncs_fail(daemon):
        reply = daemon.ask("model.add", path=daemon.file("a.bin", b"a"), name="a")
    assert_speaks(reply, "internal", "error")
    assert "kernel's log" in reply["hint"]
    assert reply["details"]["incident"] in daemon.log(), "the same number for whoever looks after the daemon"
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


# -- all of them


def test_every_code_is_produced_here() -> None:
    assert set(CODES) - OF_FETCHING == _PRODUCED


def test_a_stored_failure_is_told_again_as_it_was(daemon: RealDaemon) -> None:
    """Whoever asks later gets the same words: also from the ledger, after a restart."""
    path = f"{daemon.room}/no-such.bin"
    first = daemon.ask("model.add", path=path, name="x")
    (job,) = daemon.ask("job.list")["value"]["jobs"]
    told = {field: first[field] for field in ("code", "message", "hint", "details")}
    assert {field: job["error"][field] for field in told} == told
    assert daemon.terminate() == 0
    daemon.start()
    again = daemon.ask("job.show", job=job["id"])["value"]["error"]
    assert {field: again[field] for field in told} == told


def test_an_error_in_mid_pipeline_is_only_its_own(daemon: RealDaemon) -> None:
    with daemon.connect() as wire:
        wire.send(line("daemon.status", "1") + b"\n" + line("nonsense", "2") + b"\n" + line("model.list", "3") + b"\n")
        assert [wire.read()["type"] for _ in range(3)] == ["result", "error", "result"]
