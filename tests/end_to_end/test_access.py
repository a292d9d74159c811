"""Who may do what, by the kernel's word about who connected. Each stranger here is a real process of another user."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from rigs.command import COMMAND
from rigs.other_user import ctl_as
from rigs.real_daemon import RealDaemon, Wire
from rigs.rough_peers import (
    ALLOW_ROOT,
    FOREIGN_UID,
    connect_as,
    everything_until_close,
    held_name,
    incidents,
    needs_root,
    staging,
    write_access,
)
from rigs.waiting import wait_until

pytestmark = needs_root

OTHER_UID = FOREIGN_UID + 1
FOREIGN = str(FOREIGN_UID)
OTHER = str(OTHER_UID)


def started(daemon: RealDaemon, **rights: str) -> RealDaemon:
    write_access(daemon, rights)
    return daemon.start()


def stranger(daemon: RealDaemon, uid: int = FOREIGN_UID, gid: int | None = None) -> Wire:
    """Connected as another user, its hello read."""
    wire = connect_as(daemon.socket, uid, gid)
    hello = wire.read()
    assert hello["type"] == "hello", hello
    assert hello["peer"]["uid"] == uid
    return wire


def public_file(daemon: RealDaemon, name: str, content: bytes, uid: int = 0, mode: int = 0o644) -> str:
    path = daemon.file(name, content)
    os.chmod(path, mode)
    os.chown(path, uid, uid)
    return path


def test_without_access_the_socket_is_for_its_owner_only(shared: RealDaemon) -> None:
    daemon = shared.start()
    assert os.stat(daemon.socket).st_mode & 0o777 == 0o600
    with pytest.raises(PermissionError):
        connect_as(daemon.socket, FOREIGN_UID)
    # Also when somebody has opened the socket since: the kernel's word counts, not the mode.
    os.chmod(daemon.socket, 0o666)
    with connect_as(daemon.socket, FOREIGN_UID) as wire:
        replies = everything_until_close(wire)
    assert [reply["code"] for reply in replies] == ["unauthorized"]
    refused = next(event for event in daemon.activity() if event["event"] == "peer.refused")
    assert refused["outcome"] == "unauthorized"


def test_who_is_not_named_is_told_by_name_and_closed(shared: RealDaemon) -> None:
    daemon = started(shared, **{OTHER: "admin"})
    with connect_as(daemon.socket, FOREIGN_UID) as wire:
        replies = everything_until_close(wire)
    assert [reply["code"] for reply in replies] == ["unauthorized"], "no hello, and so not a word about the store"
    assert FOREIGN in replies[0]["message"]
    assert "[access]" in replies[0]["hint"]
    assert daemon.config_path in replies[0]["hint"], "the file that is read here, not some other one"
    assert not replies[0]["retryable"]


def test_who_may_write_configures_neither_the_daemon_nor_the_jobs_of_others(shared: RealDaemon) -> None:
    daemon = started(shared, **{FOREIGN: "write"})
    job = daemon.ask("model.add", path=daemon.file("a.gguf", b"bytes"), name="a")["value"]["job"]
    with stranger(daemon) as wire:
        assert wire.ask("daemon.configure", max_rate=5000)["code"] == "unauthorized"
        assert wire.ask("job.configure", job=job, priority=1)["code"] == "unauthorized"
    assert "transfer" not in daemon.ask("daemon.status")["value"]


def test_the_number_that_stands_for_everybody_has_no_right(shared: RealDaemon) -> None:
    """65534 is whom a user namespace cannot name: granting it something would grant it to all of them."""
    daemon = started(shared, **{"65534": "admin"})
    with connect_as(daemon.socket, 65534) as wire:
        assert [reply["code"] for reply in everything_until_close(wire)] == ["unauthorized"]
    wait_until(lambda: "65534" in daemon.log(), what="the refusal in the log")


def test_a_reader_reads_and_nothing_else(shared: RealDaemon) -> None:
    daemon = started(shared, **{FOREIGN: "read"})
    path = public_file(daemon, "a.bin", b"a")
    daemon.ask("model.add", path=path, name="there")
    with stranger(daemon) as wire:
        assert wire.ask("model.resolve", name="there")["type"] == "result"
        assert wire.ask("model.list")["value"]["models"][0]["name"] == "there"
        assert wire.ask("daemon.status")["value"]["peers"][FOREIGN] == 1
        assert wire.ask("job.list")["type"] == "result"
        done = wire.ask("job.list")["value"]["jobs"][0]["id"]
        for op, fields in (
            ("model.add", {"path": path, "name": "mine"}),
            ("job.cancel", {"job": done}),
            ("job.pause", {"job": done}),
            ("job.resume", {"job": done}),
            ("job.prioritize", {"job": done, "priority": 1}),
            ("daemon.drain", {}),
        ):
            refused = wire.ask(op, **fields)
            assert refused["code"] == "unauthorized", (op, refused)
            assert op in refused["message"]
            assert "'read'" in refused["message"]
            assert FOREIGN in refused["message"]
            assert "[access]" in refused["hint"]
    assert daemon.ask("model.resolve", name="mine")["code"] == "not_found"


def test_a_writer_adds_what_it_can_read(shared: RealDaemon) -> None:
    daemon = started(shared, **{FOREIGN: "write"})
    theirs = public_file(daemon, "theirs.bin", b"theirs", FOREIGN_UID, 0o600)
    everybodys = public_file(daemon, "everybodys.bin", b"everybody's")
    for path, name in ((theirs, "theirs"), (everybodys, "everybodys")):
        done = ctl_as(daemon, "add", path, "--name", name)
        assert done.returncode == 0, done
    with stranger(daemon) as wire:
        shown = wire.ask("job.list")["value"]["jobs"]
        assert {job["peer"] for job in shown} == {FOREIGN_UID}


@pytest.mark.parametrize("way", ["file", "directory", "link", "dots", "link to directory"])
def test_the_daemon_reads_nothing_for_a_writer_that_the_writer_could_not_read(shared: RealDaemon, way: str) -> None:
    daemon = started(shared, **{FOREIGN: "write"})
    secret = b"only for root"
    closed = os.path.join(daemon.room, "closed")
    os.mkdir(closed, 0o700)
    hidden = public_file(daemon, "closed/inside.bin", secret)
    private = public_file(daemon, "private.bin", secret, mode=0o600)
    link = os.path.join(daemon.room, "link.bin")
    os.symlink(private, link)
    directory_link = os.path.join(daemon.room, "way-in")
    os.symlink(closed, directory_link)
    path = {
        "file": private,
        "directory": hidden,
        "link": link,
        "dots": os.path.join(daemon.room, "closed", "..", "private.bin"),
        "link to directory": os.path.join(directory_link, "inside.bin"),
    }[way]
    with stranger(daemon) as wire:
        refused = wire.ask("model.add", path=path, name="stolen")
        assert refused["code"] == "permission_denied", refused
        assert path in refused["message"]
        assert FOREIGN in refused["message"]
        assert refused["hint"]
        assert wire.ask("model.resolve", name="stolen")["code"] == "not_found"
    assert staging(daemon) == []
    assert daemon.ask("model.add", path=path, name="roots-own")["type"] == "result", "root may"


def test_a_known_digest_does_not_open_what_the_writer_may_not_read(shared: RealDaemon) -> None:
    """The store has these very bytes, and the file is still nobody's business."""
    daemon = started(shared, **{FOREIGN: "write"})
    private = public_file(daemon, "private.bin", b"secret" * 100, mode=0o600)
    blob = daemon.ask("model.add", path=private, name="roots")["value"]["blob"]
    with stranger(daemon) as wire:
        for fields in ({}, {"sha256": blob}):
            refused = wire.ask("model.add", path=private, name="guess", **fields)
            assert refused["code"] == "permission_denied"


def test_nobody_controls_the_jobs_of_others(shared: RealDaemon) -> None:
    daemon = started(shared, **{FOREIGN: "write", OTHER: "write"})
    path = public_file(daemon, "a.bin", b"a")
    with stranger(daemon) as owner, stranger(daemon, OTHER_UID) as other, daemon.connect() as root:
        with held_name(daemon, "busy"):
            owner.request("model.add", **owner.hand_over(path), name="busy", id="add")
            job = owner.until("add", "accepted")["job"]
            for op, fields in (
                ("job.cancel", {}),
                ("job.pause", {}),
                ("job.resume", {}),
                ("job.prioritize", {"priority": 1}),
            ):
                refused = other.ask(op, job=job, **fields)
                assert refused["code"] == "unauthorized", (op, refused)
                assert job in refused["message"]
                assert OTHER in refused["message"]
                assert "admin" in refused["hint"]
            assert other.ask("job.show", job=job)["value"]["state"] == "running", "looking is free"
            # `cancel` knows the requests of its own connection only.
            assert other.ask("cancel", target="add")["code"] == "invalid_request"
            assert owner.ask("job.prioritize", job=job, priority=2)["value"]["priority"] == 2
            assert root.ask("job.prioritize", job=job, priority=1)["value"]["priority"] == 1
        assert owner.terminal("add")["type"] == "result"


def test_a_reader_that_watched_a_job_does_not_end_it_by_leaving(shared: RealDaemon) -> None:
    """To attach is to look: only those who asked for the work hold it, or end it."""
    daemon = started(shared, **{FOREIGN: "read"})
    path = public_file(daemon, "a.bin", b"a")
    with daemon.connect() as owner:
        with held_name(daemon, "busy"):
            owner.request("model.add", path=path, name="busy", id="add")
            job = owner.until("add", "accepted")["job"]
            with stranger(daemon) as reader:
                reader.request("job.attach", job=job, id="look")
                reader.until("look", "accepted")
            wait_until(lambda: owner.ask("daemon.status", id="s")["value"]["connections"] == 1)
            assert owner.ask("job.show", job=job, id="j")["value"]["state"] == "running"
        assert owner.terminal("add")["type"] == "result"


def test_the_same_path_of_two_users_is_two_jobs(shared: RealDaemon) -> None:
    """What one may read the other may not: nobody joins the work on somebody else's files."""
    daemon = started(shared, **{FOREIGN: "write", OTHER: "write"})
    path = public_file(daemon, "mine.bin", b"mine", FOREIGN_UID, 0o600)
    with stranger(daemon) as owner, stranger(daemon, OTHER_UID) as other:
        with held_name(daemon, "one"):
            owner.request("model.add", **owner.hand_over(path), name="one", id="add", token="t")
            job = owner.until("add", "accepted")["job"]
            refused = other.ask("model.add", path=path, name="one", token="t")
            assert refused["code"] == "permission_denied"
            other.request("model.add", **other.hand_over(path), name="one", id="add", token="t")
            assert other.until("add", "accepted")["job"] != job
            owner.request("model.add", **owner.hand_over(path), name="one", id="again", token="t")
            assert owner.until("again", "accepted")["job"] == job, "a token stands for one piece of work"
        assert owner.terminal("add")["type"] == "result"


def test_limits_are_counted_for_each_user(shared: RealDaemon) -> None:
    shared.environ |= {"MODELD_LIMITS_CONNECTIONS_PER_PEER": "2", "MODELD_LIMITS_REQUESTS_PER_PEER": "1"}
    daemon = started(shared, **{FOREIGN: "read"})
    with daemon.connect() as own, daemon.connect():
        with daemon.connect(hello=False) as third:
            assert third.read()["code"] == "queue_full"
        own.request("events.subscribe", id="w")
        with stranger(daemon) as foreign:
            foreign.request("events.subscribe", id="w")
            wait_until(lambda: own.ask("daemon.status", id="s")["value"]["watchers"] == 2)
            assert foreign.ask("daemon.status")["value"]["peers"] == {"0": 2, FOREIGN: 1}


def test_only_an_admin_stops_the_daemon(shared: RealDaemon) -> None:
    daemon = started(shared, **{FOREIGN: "write", OTHER: "admin"})
    with stranger(daemon) as writer:
        refused = writer.ask("daemon.drain")
        assert refused["code"] == "unauthorized"
        assert "'admin'" in refused["message"]
    with stranger(daemon, OTHER_UID) as admin:
        assert admin.ask("daemon.drain", deadline_s=1)["value"]["deadline_s"] == 1
    assert daemon.wait() == 0
    assert not incidents(daemon)


def test_a_model_is_changed_by_its_owner_and_by_admins_alone(shared: RealDaemon) -> None:
    """Whoever connects, also after a restart, and also for work that waited while the model changed hands."""
    daemon = started(shared, **{FOREIGN: "write", OTHER: "write"})
    first, second = public_file(daemon, "a.bin", b"GGUF a"), public_file(daemon, "b.bin", b"GGUF b")
    with stranger(daemon) as owner:
        assert owner.ask("model.add", **owner.hand_over(first), name="m")["type"] == "result"
    daemon.terminate()
    daemon.start()
    with stranger(daemon) as owner, stranger(daemon, OTHER_UID) as other, daemon.connect() as root:
        changes: list[tuple[str, dict[str, object]]] = [
            ("model.add", {**other.hand_over(second), "name": "m", "replace": True}),
            (
                "model.pull",
                {"ref": second, "transfer": other.hand_over(second)["transfer"], "name": "m", "replace": True},
            ),
            ("model.move", {"source": "m", "destination": "n"}),
            ("model.remove", {"name": "m", "force": True}),
        ]
        for op, fields in changes:
            refused = other.ask(op, **fields)
            assert refused["code"] == "permission_denied", (op, refused)
            assert f"belongs to uid {FOREIGN}" in refused["message"]
            assert refused["details"] == {"name": "m", "owner": FOREIGN_UID, "uid": OTHER_UID}
            assert refused["hint"]
        kinds = [job["kind"] for job in root.ask("job.list", limit=1000)["value"]["jobs"] if job["peer"] == OTHER_UID]
        assert not {"model.add", "model.pull"} & set(kinds), "they are refused before they are queued"
        assert root.ask("model.show", name="m")["value"]["owner"] == FOREIGN_UID
        # Ben's job waits for the name while Ada takes it.
        assert other.ask("model.add", **other.hand_over(first), name="x")["type"] == "result"
        with held_name(daemon, "x"):
            other.request("model.remove", name="x", id="rm")
            other.until("rm", "accepted")
            path = os.path.join(daemon.root, "manifests", "x.json")
            with open(path, encoding="utf-8") as file:
                taken = file.read().replace(f'"owner_uid": {OTHER}', f'"owner_uid": {FOREIGN}')
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(taken)
            os.rename(f"{path}.new", path)
        assert other.terminal("rm")["code"] == "permission_denied"
        assert root.ask("model.move", source="m", destination="n")["type"] == "result"
        assert owner.ask("model.remove", name="n")["type"] == "result", "it has kept its owner"
        assert owner.ask("model.remove", name="x")["type"] == "result"


def test_shared_names_let_every_writer_change_every_model(shared: RealDaemon) -> None:
    shared.configure(
        f'[access]\nshared_names = true\nusers = {{ "{FOREIGN}" = "write", "{OTHER}" = "write" }}\n{ALLOW_ROOT}'
    )
    daemon = shared.start()
    path = public_file(daemon, "a.bin", b"GGUF a")
    with stranger(daemon) as owner, stranger(daemon, OTHER_UID) as other:
        assert owner.ask("model.add", **owner.hand_over(path), name="m")["type"] == "result"
        assert other.ask("model.remove", name="m")["type"] == "result"


@pytest.mark.parametrize("verb", ["add", "pull"])
def test_the_command_says_which_private_file_others_will_read(shared: RealDaemon, verb: str) -> None:
    daemon = shared.start()
    private = public_file(daemon, "private.gguf", b"GGUF\3\0\0\0 private to its owner", mode=0o600)
    done = [
        subprocess.run(
            [*COMMAND, verb, *options, private, "--name", f"m{number}"],
            env=daemon.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        for number, options in enumerate([[], ["--json"], ["-q"]])
    ]
    notes = [f"others on this machine will be able to read {private}" in each.stderr for each in done]
    assert notes == [True, True, False]
    assert json.loads(done[1].stdout)["name"] == "m1", "what a program reads is as it was"
