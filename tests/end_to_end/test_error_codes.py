"""Every error code that this daemon can answer with, produced by what produces it in real life, through its socket.

Each test also reads the sentence as a stranger would: it names the thing, it says why, and where there is a next step
the hint says which. A test below fails when a code has no test, here, in `test_error_codes_of_work` or in
`test_error_codes_of_fetching`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwire.errors import BY_CODE
from rigs.error_codes import assert_speaks, produced, produces
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import (
    FOREIGN_UID,
    MIB,
    connect_as,
    everything_until_close,
    line,
    needs_root,
    send_unwelcome,
    staging,
    status,
    write_access,
)

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
        assert reply["hint"] == "Did you mean model.resolve?"
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
            assert reply["hint"] == "Did you mean llama?"
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
    rules = [reply["details"]["rule"] for reply in (length, alphabet, upper, other)]
    assert rules == ["length", "alphabet", "alphabet", "algorithm"]
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
    if how == "removed":
        assert added["path"] in reply["message"]
    if how == "cut":
        assert f"hash to sha256:{hashlib.sha256(b'a' * 50).hexdigest()}, not to {added['blob']}" in reply["message"]
        assert f"kept at {daemon.root}/locks/quarantine/" in reply["message"]
    assert daemon.ask("model.list")["type"] == "result"


# -- all of them


def test_every_code_is_produced_here() -> None:
    assert produced(os.path.dirname(__file__)) == set(BY_CODE)


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
