"""Local files of other users come as open files of their clients, and the daemon opens no path for them.

Whatever a client does with its descriptors, the daemon keeps none of them.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelwire import exits
from rigs.decay import flip
from rigs.other_user import ctl_as, file_of, home_of, python_as
from rigs.real_daemon import RealDaemon, Wire
from rigs.rough_peers import (
    FOREIGN_UID,
    everything_until_close,
    incidents,
    needs_root,
    stranger,
    write_access,
)
from rigs.several_files import shards, tree_of
from rigs.waiting import wait_until

pytestmark = needs_root

OTHER_UID = FOREIGN_UID + 1
GGUF = b"GGUF\3\0\0\0 handed over to it"


@pytest.fixture
def daemon(shared: RealDaemon) -> Iterator[RealDaemon]:
    """A daemon for which file modes count, although root runs it; it has as many files open in the end as before."""
    write_access(shared, {str(FOREIGN_UID): "write", str(OTHER_UID): "write"})
    shared.start(prefix=("setpriv", "--bounding-set", "-all", "--inh-caps", "-all"))
    shared.ask("model.add", path=shared.file("first.gguf", GGUF + b"first"), name="first")
    before = shared.descriptors()
    yield shared
    if shared.process is not None and shared.process.poll() is None:
        wait_until(lambda: shared.descriptors() <= before, what="all that was handed over is closed")
    assert not incidents(shared)


# -- what is added


@pytest.mark.parametrize("verb", ["add", "pull"])
def test_a_user_adds_a_private_file_that_the_daemon_may_not_read(daemon: RealDaemon, verb: str) -> None:
    path = file_of(home_of(daemon), "m.gguf", GGUF)
    assert daemon.ask("model.add", path=path, name="no")["code"] == "permission_denied", "the test is one"
    done = ctl_as(daemon, verb, path, "--name", "m", "--json")
    assert done.returncode == 0, done
    assert Path(json.loads(done.stdout)["path"]).read_bytes() == GGUF
    assert daemon.ask("model.show", name="m")["value"]["owner"] == FOREIGN_UID
    assert os.path.exists(path)


def test_the_async_client_hands_over_too(daemon: RealDaemon) -> None:
    """Also when it leaves the work to the daemon at once."""
    home = home_of(daemon)
    path, second = file_of(home, "m.gguf", GGUF), file_of(home, "n.gguf", GGUF + b"n")
    code = """
async def main():
    async with modelclient.connect(start=False) as client:
        print((await client.add(sys.argv[1], name="m", move=True)).name)
        async with client.add(sys.argv[2], name="n") as work:
            work.detach()
anyio.run(main)
"""
    done = python_as(daemon, code, path, second)
    assert (done.returncode, done.stdout) == (0, "m\n"), done
    assert not os.path.exists(path)
    wait_until(lambda: daemon.ask("model.resolve", name="n")["type"] == "result", what="n is there")


@pytest.mark.parametrize("verb", ["add", "pull"])
def test_a_directory_of_many_files(daemon: RealDaemon, verb: str) -> None:
    home = home_of(daemon)
    files = {f"sub/{number:03}.bin": b"%d" % number for number in range(199)} | {"m.gguf": GGUF}
    for name, content in files.items():
        file_of(f"{home}/model", name, content)
    file_of(f"{home}/model", ".hidden/x", b"not of the model")
    done = ctl_as(daemon, verb, f"{home}/model", "--name", "m", "--json")
    assert done.returncode == 0, done
    assert tree_of(json.loads(done.stdout)["path"]) == files


def test_a_directory_with_one_file_stays_a_directory(daemon: RealDaemon) -> None:
    home = home_of(daemon)
    file_of(f"{home}/model", "m.gguf", GGUF)
    added = json.loads(ctl_as(daemon, "add", f"{home}/model", "--json").stdout)
    assert [file["path"] for file in added["files"]] == ["m.gguf"]
    assert os.path.isdir(added["path"])


def test_a_shard_brings_its_whole_set(daemon: RealDaemon) -> None:
    home = home_of(daemon)
    made = shards(Path(home))
    for path in made:
        os.chmod(path, 0o600)
        os.chown(path, FOREIGN_UID, FOREIGN_UID)
    done = ctl_as(daemon, "add", str(made[1]), "--name", "m", "--move", "--json")
    assert done.returncode == 0, done
    assert len(json.loads(done.stdout)["files"]) == 3
    assert os.listdir(home) == []
    incomplete = shards(Path(home))
    os.unlink(incomplete[0])
    for path in incomplete[1:]:
        os.chown(path, FOREIGN_UID, FOREIGN_UID)
    done = ctl_as(daemon, "add", str(incomplete[1]))
    assert "the set is not complete" in done.stderr, done


def test_a_move_takes_only_what_was_handed_over(daemon: RealDaemon) -> None:
    """And it needs the client, which alone may remove the file."""
    home = home_of(daemon)
    for name in ("a.gguf", "sub/b.gguf"):
        file_of(f"{home}/model", name, GGUF + name.encode())
    left = file_of(f"{home}/model", ".keep", b"")
    refused = ctl_as(daemon, "add", f"{home}/model", "--move", "--detach")
    assert (refused.returncode, "--detach" in refused.stderr) == (exits.USAGE, True), refused
    done = ctl_as(daemon, "add", f"{home}/model", "--move")
    assert done.returncode == 0, done
    assert os.listdir(f"{home}/model") == [".keep"]
    os.unlink(left)


# -- what is not


@pytest.mark.parametrize("operation", ["add", "pull"])
def test_no_path_of_another_user_is_opened_whoever_may_read_it(daemon: RealDaemon, operation: str) -> None:
    """Neither another user's file, nor what the daemon alone may read, nor what everybody may."""
    others = file_of(home_of(daemon, OTHER_UID), "m.gguf", GGUF, OTHER_UID)
    own = daemon.file("daemons.gguf", GGUF)
    os.chmod(own, 0o600)
    public = daemon.file("public.gguf", GGUF)
    with stranger(daemon) as wire:
        for path in (others, own, public):
            fields = {"path": path} if operation == "add" else {"ref": path}
            refused = wire.ask(f"model.{operation}", **fields, name="m")
            assert (refused["code"], refused["details"]["by"]) == ("permission_denied", "descriptors"), refused
            assert "hands it over" in refused["hint"]
    for path in (others, own):
        done = ctl_as(daemon, operation, path, "--name", "m")
        assert (done.returncode, path in done.stderr) == (13, True), done
    assert daemon.ask("model.resolve", name="m")["code"] == "not_found"


def bad_descriptor(kind: str, path: str) -> int:
    match kind:
        case "pipe":
            reader, writer = os.pipe()
            os.close(writer)
            return reader
        case "directory":
            return os.open(os.path.dirname(path), os.O_RDONLY)
        case "device":
            return os.open("/dev/zero", os.O_RDONLY)
        case "socket":
            return socket.socket(socket.AF_UNIX).detach()
        case "write-only":
            return os.open(path, os.O_WRONLY)
        case _:
            return os.open(path, os.O_PATH)


@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "socket", "write-only", "path"])
def test_a_descriptor_that_is_no_readable_file_is_refused(daemon: RealDaemon, kind: str) -> None:
    path = daemon.file("m.gguf", GGUF)
    with stranger(daemon) as wire:
        descriptor = bad_descriptor(kind, path)
        assert wire.offer("t", {"m.gguf": descriptor})["type"] == "result"
        os.close(descriptor)
        refused = wire.ask("model.add", path=path, transfer="t")
        assert refused["code"] == "invalid_request", refused
        assert path in refused["message"]
        assert wire.ask("model.add", path=path, transfer="t")["code"] == "invalid_request", "it is taken"
        assert wire.ask("daemon.status")["type"] == "result"


def line(**fields: object) -> bytes:
    return json.dumps({"id": "1", **fields}).encode() + b"\n"


OFFER = line(op="files.offer", transfer="t", paths=["a", "b"])


def two_messages(wire: Wire, file: int) -> None:
    for part in (OFFER[:1], OFFER[1:40]):
        wire.send_with(part, [file])


STRAYS: dict[str, Callable[[Wire, int], None]] = {
    "too few": lambda wire, file: wire.send_with(OFFER, [file]),
    "none": lambda wire, _: wire.send(OFFER),
    "too many": lambda wire, file: wire.send_with(OFFER, [file] * 3),
    "more than fit": lambda wire, file: wire.send_with(OFFER, [file] * 200),
    "another request": lambda wire, file: wire.send_with(line(op="daemon.status"), [file]),
    "no request": lambda wire, file: wire.send_with(b"{}\n", [file]),
    "bad fields": lambda wire, file: wire.send_with(line(op="files.offer", transfer="t", paths=[]), [file]),
    "two messages of one line": two_messages,
}


@pytest.mark.parametrize("how", STRAYS)
def test_descriptors_without_their_line_end_the_connection(daemon: RealDaemon, how: str) -> None:
    with open(daemon.file("m.gguf", GGUF), "rb") as file, stranger(daemon) as wire:
        STRAYS[how](wire, file.fileno())
        errors = [reply for reply in everything_until_close(wire) if reply["type"] == "error"]
        assert {error["code"] for error in errors} == {"invalid_request"}
    assert daemon.ask("daemon.status")["type"] == "result"


@pytest.mark.parametrize("sent", [b"{", OFFER[:40], OFFER, OFFER + line(op="model.add", path="/m.gguf", transfer="t")])
def test_a_peer_that_hangs_up_leaves_no_file_open(daemon: RealDaemon, sent: bytes) -> None:
    """After half a line, before the request that takes the files, and right after it; the fixture counts."""
    with open(daemon.file("m.gguf", GGUF), "rb") as file:
        for _ in range(20):
            wire = stranger(daemon)
            wire.send_with(sent, [file.fileno()] * 2)
            wire.close()


def test_a_user_has_so_many_files_handed_over_and_no_more(daemon: RealDaemon) -> None:
    with open(daemon.file("m.gguf", GGUF), "rb") as file:
        with stranger(daemon) as first, stranger(daemon) as second, stranger(daemon, OTHER_UID) as other:
            for number in range(16):
                wire = (first, second)[number % 2]
                paths = {f"{number}-{each}": file.fileno() for each in range(64)}
                assert wire.offer("t", paths)["type"] == "result"
            refused = first.offer("more", {"m.gguf": file.fileno()})
            assert (refused["code"], refused["details"]["limit"]) == ("queue_full", 1024), refused
            assert refused["retry_after_ms"]
            assert first.ask("daemon.status")["type"] == "result"
            assert other.offer("t", {"m.gguf": file.fileno()})["type"] == "result"
        with stranger(daemon) as again:
            wait_until(lambda: again.offer("t", {"m.gguf": file.fileno()}).get("type") == "result", what="room again")


def test_a_transfer_that_was_never_offered_or_of_another_connection(daemon: RealDaemon) -> None:
    path = daemon.file("m.gguf", GGUF)
    with stranger(daemon) as wire, stranger(daemon) as other:
        given = other.hand_over(path)
        refused = wire.ask("model.add", **given)
        assert (refused["code"], "no files were offered" in refused["message"]) == ("invalid_request", True)
        refused = other.ask("model.pull", ref="hf:org/repo", transfer=given["transfer"])
        assert (refused["code"], refused["message"].startswith("$.transfer")) == ("invalid_request", True)


def test_several_files_that_are_no_set_are_no_model(daemon: RealDaemon) -> None:
    path = daemon.file("m.gguf", GGUF)
    with stranger(daemon) as wire, open(path, "rb") as file:
        wire.offer("t", {"m.gguf": file.fileno(), "n.gguf": file.fileno()})
        refused = wire.ask("model.add", path=path, transfer="t")
        assert (refused["code"], "no set of shards" in refused["message"]) == ("invalid_request", True), refused


# -- other mounts


@pytest.mark.parametrize("verb", ["add", "pull"])
def test_a_client_in_another_mount_namespace_gets_its_own_file(daemon: RealDaemon, verb: str) -> None:
    """Root's too: at the path lies another file for the daemon."""
    path = daemon.file("m.gguf", GGUF + b" of the daemon")
    own = daemon.file("n.gguf", GGUF + b" of the client")
    prefix = ("unshare", "--mount", "sh", "-c", f'mount --bind {own} {path} && exec "$0" "$@"')
    done = ctl_as(daemon, verb, path, "--name", "m", "--json", uid=0, prefix=prefix)
    assert done.returncode == 0, done
    assert Path(json.loads(done.stdout)["path"]).read_bytes() == GGUF + b" of the client"
    refused = ctl_as(daemon, "add", path, "--link", uid=0, prefix=prefix)
    assert (refused.returncode, "same files" in refused.stderr) == (13, True), refused


def test_where_the_peer_has_ended_its_paths_are_not_opened(daemon: RealDaemon) -> None:
    """Nobody can say any more what they meant to it."""
    path = daemon.file("m.gguf", GGUF)
    with stranger(daemon, 0) as wire:
        assert wire.ask("model.add", path=path, name="m")["details"]["by"] == "descriptors"
        assert wire.ask("model.add", **wire.hand_over(path), name="m")["type"] == "result"


def test_the_service_raises_its_limit_of_open_files(daemon: RealDaemon) -> None:
    limits = subprocess.run(
        ["prlimit", "--nofile", "--noheadings", "--raw", "--output", "SOFT,HARD", "--pid", str(daemon.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert limits[0] == limits[1]


def test_a_user_repairs_from_a_private_file_that_the_daemon_may_not_read(daemon: RealDaemon) -> None:
    path = file_of(home_of(daemon), "m.gguf", GGUF)
    assert ctl_as(daemon, "add", path, "--name", "m").returncode == 0
    blob = daemon.ask("model.resolve", name="m")["value"]["path"]
    flip(blob, 20)
    done = ctl_as(daemon, "repair", "m", "--from", path, "--json")
    assert done.returncode == 0, done
    (repaired,) = json.loads(done.stdout)["repaired"]
    assert (repaired["damaged_blocks"], repaired["copied_bytes"]) == (1, len(GGUF))
    assert Path(blob).read_bytes() == GGUF
    assert daemon.ask("model.verify", names=["m"])["value"]["ok"]
    with stranger(daemon) as wire:
        reply = wire.ask("model.repair", names=["m"], **{"from": path})
        assert (reply["code"], reply["details"]["by"]) == ("permission_denied", "descriptors")
    daemon.terminate()
    with sqlite3.connect(f"{daemon.root}/.modeld/catalog.sqlite") as catalog:
        left = [path for (path,) in catalog.execute("SELECT path FROM left_files")]
    assert [path for path in left if path.startswith("blobs/")] == [], "a model names the bytes: they are no leftovers"
