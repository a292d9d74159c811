"""Names, bytes and space through the socket: what each verb answers, what it refuses, what a restart finds of it."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon

NO_GRACE = '[store]\ngrace = 0\nsweep = "off"\n'


def value(reply: dict[str, Any]) -> dict[str, Any]:
    assert reply["type"] == "result", reply
    result: dict[str, Any] = reply["value"]
    return result


def add(daemon: RealDaemon, name: str, content: bytes = b"GGUF weights") -> dict[str, Any]:
    return value(daemon.ask("model.add", path=daemon.file(f"{name.replace(':', '+')}.gguf", content), name=name))


def spoil(path: str) -> None:
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.write(b"XX")


def names(daemon: RealDaemon, **how: Any) -> list[str]:
    return [model["name"] for model in value(daemon.ask("model.list", **how))["models"]]


@pytest.fixture
def swept(stopped: RealDaemon) -> RealDaemon:
    """A daemon without a grace period, which sweeps only on request."""
    stopped.configure(NO_GRACE)
    return stopped.start()


def test_a_copy_is_a_job_that_is_kept(daemon: RealDaemon) -> None:
    add(daemon, "a")
    copied = value(daemon.ask("model.copy", source="a", destination="b:c", token="once"))
    assert (copied["name"], copied["source"], copied["dry_run"]) == ("b:c", "a", False)
    job = value(daemon.ask("job.show", job=copied["job"]))
    assert (job["kind"], job["state"], job["model"], job["value"]) == ("model.copy", "done", "b:c", copied)
    assert value(daemon.ask("model.copy", source="a", destination="b:c", token="once")) == copied
    assert daemon.ask("model.copy", source="a", destination="b:c")["code"] == "already_exists"
    daemon.kill()
    daemon.start()
    assert value(daemon.ask("job.show", job=copied["job"]))["value"] == copied


def test_a_move_and_a_removal(daemon: RealDaemon) -> None:
    added = add(daemon, "a")
    moved = value(daemon.ask("model.move", source="a", destination="b"))
    assert (moved["name"], moved["source"], moved["blob"]) == ("b", "a", added["blob"])
    assert names(daemon) == ["b"]
    assert daemon.ask("model.resolve", name="a")["code"] == "not_found"
    removed = value(daemon.ask("model.remove", name="b"))
    assert (removed["name"], removed["blob"], removed["size_bytes"]) == ("b", added["blob"], 12)
    assert names(daemon) == []
    assert os.path.exists(added["path"])
    kinds = [(line["event"], line.get("kind")) for line in daemon.activity() if line["event"] == "job.done"]
    assert [kind for _, kind in kinds] == ["model.add", "model.move", "model.remove"]


@pytest.mark.parametrize(
    ("op", "fields", "code"),
    [
        ("model.move", {"source": "nope", "destination": "b"}, "not_found"),
        ("model.move", {"source": "a", "destination": "a"}, "already_exists"),
        ("model.move", {"source": "a", "destination": "A"}, "already_exists"),
        ("model.move", {"source": "a", "destination": "other"}, "already_exists"),
        ("model.move", {"source": "a", "destination": "x/y"}, "invalid_name"),
        ("model.move", {"source": "..", "destination": "b"}, "invalid_name"),
        ("model.remove", {"name": "nope"}, "not_found"),
        ("model.remove", {"name": "a\\b"}, "invalid_name"),
        ("model.verify", {"names": ["a", "nope"]}, "not_found"),
        ("model.verify", {"names": [".x"]}, "invalid_name"),
        ("model.verify", {}, "invalid_request"),
        ("model.verify", {"names": ["a"], "all": True}, "invalid_request"),
        ("model.list", {"filter": "size>big"}, "invalid_request"),
        ("model.list", {"filter": "name~("}, "invalid_request"),
        ("model.list", {"sort": "weight"}, "invalid_request"),
        ("model.list", {"sort": "-size", "after": "nope"}, "invalid_request"),
        ("model.show", {"name": "nope"}, "not_found"),
    ],
)
def test_refusals(daemon: RealDaemon, op: str, fields: dict[str, Any], code: str) -> None:
    add(daemon, "a")
    add(daemon, "other", b"other")
    reply = daemon.ask(op, **fields)
    assert (reply["type"], reply["code"]) == ("error", code)
    assert reply["message"]
    assert names(daemon) == ["a", "other"]


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("model.copy", {"source": "a", "destination": "b"}),
        ("model.move", {"source": "a", "destination": "b"}),
        ("model.remove", {"name": "b"}),
    ],
)
def test_a_name_that_another_tool_has_locked_is_waited_for_until_a_cancel(
    daemon: RealDaemon, op: str, fields: dict[str, str]
) -> None:
    add(daemon, "a")
    if op == "model.remove":
        value(daemon.ask("model.copy", source="a", destination="b"))
    before = names(daemon)
    with open(f"{daemon.root}/locks/b.lock", "a") as lock, daemon.connect() as wire:
        fcntl.flock(lock, fcntl.LOCK_EX)
        number = wire.request(op, **fields)
        assert wire.until(number, "accepted")["position"] == 0
        wire.request("cancel", target=number)
        assert wire.terminal(number)["code"] == "cancelled"
        assert names(daemon) == before
    assert value(daemon.ask(op, **fields))["name"] == "b"


def test_a_corrupt_model_fails_with_its_reason_and_is_told_to_all(daemon: RealDaemon) -> None:
    added = add(daemon, "a")
    value(daemon.ask("model.copy", source="a", destination="b"))
    add(daemon, "good", b"good")
    assert value(daemon.ask("model.verify", all=True))["ok"] is True
    spoil(added["path"])
    outcome = value(daemon.ask("model.verify", names=["good", "a"]))
    assert (outcome["ok"], outcome["checked"], outcome["failed"]) == (False, 2, 1)
    bad = next(model for model in outcome["models"] if not model["ok"])
    assert (bad["name"], bad["expected"]) == ("a", added["blob"])
    assert Path(bad["quarantine_path"]).read_bytes() == b"XXUF weights"
    assert names(daemon, filter="state=failed") == ["a", "b"]
    told = [line for line in daemon.activity() if line["event"] == "model.failed"]
    assert sorted(line["model"] for line in told) == ["a", "b"]
    assert {line["digest"] for line in told} == {added["blob"]}
    for name in ("a", "b"):
        reply = daemon.ask("model.resolve", name=name)
        assert reply["code"] == "corrupt"
        assert bad["actual"] in reply["message"]
    kept = value(daemon.ask("store.quarantine"))
    assert [(item["path"], item["reason"]) for item in kept["items"]] == [(bad["quarantine_path"], "corrupt-blob")]
    daemon.kill()
    daemon.start()
    shown = value(daemon.ask("model.show", name="b"))
    assert (shown["state"], bad["quarantine_path"] in shown["reason"]) == ("failed", True)
    assert [past["outcome"] for past in shown["history"]] == ["added", "verified", "corrupt"]
    assert {past["peer"] for past in shown["history"]} == {os.getuid()}
    assert shown["history"][-1]["actual"] == bad["actual"]
    add(daemon, "again")
    assert value(daemon.ask("model.verify", all=True))["ok"] is True
    assert "verified_at" in value(daemon.ask("model.show", name="b"))


def test_progress_of_a_verification_never_decreases_and_ends_whole(daemon: RealDaemon) -> None:
    size = 60_000_000
    add(daemon, "big", b"x" * size)
    with daemon.connect() as wire:
        number = wire.request("model.verify", names=["big"])
        seen = []
        while (reply := wire.read())["type"] in ("accepted", "progress"):
            if reply["type"] == "progress":
                seen.append(reply)
    assert reply["id"] == number
    assert reply["value"]["ok"] is True
    done = [progress["bytes_done"] for progress in seen]
    assert done == sorted(done)
    assert seen[-1]["bytes_done"] == seen[-1]["bytes_total"] == seen[-1]["verified_bytes"] == size
    assert {progress["phase"] for progress in seen} <= {"queued", "verify", "done"}


def test_usage_counts_each_blob_once(daemon: RealDaemon) -> None:
    add(daemon, "a", b"1" * 1000)
    value(daemon.ask("model.copy", source="a", destination="b"))
    usage = value(daemon.ask("store.usage"))
    assert (usage["logical_bytes"], usage["physical_bytes"], usage["shared_bytes"]) == (2000, 1000, 1000)
    assert [model["name"] for model in usage["models"]] == ["a", "b"]


def test_a_sweep_takes_what_nothing_holds(swept: RealDaemon) -> None:
    gone = add(swept, "gone", b"gone")
    add(swept, "stays", b"stays")
    value(swept.ask("model.remove", name="gone"))
    planned = value(swept.ask("store.sweep", dry_run=True))
    assert [victim["path"] for victim in planned["victims"]] == [gone["path"]]
    assert os.path.exists(gone["path"])
    done = value(swept.ask("store.sweep"))
    assert (done["victims"][0]["path"], done["freed_bytes"], done["kept"]) == (gone["path"], 4, 1)
    assert not os.path.exists(gone["path"])
    assert value(swept.ask("model.resolve", name="stays"))["state"] == "ready"


def test_the_grace_period_of_an_hour_is_kept_by_default(daemon: RealDaemon) -> None:
    added = add(daemon, "a")
    value(daemon.ask("model.remove", name="a"))
    swept = value(daemon.ask("store.sweep"))
    assert (swept["victims"], swept["waiting"], swept["waiting_bytes"]) == ([], 1, added["size_bytes"])
    assert 3500 < swept["waiting_s"] <= 3600
    assert os.path.exists(added["path"])


def test_who_needs_the_space_now_need_not_wait(daemon: RealDaemon) -> None:
    added = add(daemon, "a")
    value(daemon.ask("model.remove", name="a"))
    assert daemon.ask("store.sweep", grace_s=-1)["code"] == "invalid_request"
    planned = value(daemon.ask("store.sweep", grace_s=0, dry_run=True))
    assert (planned["removed"], planned["waiting"], os.path.exists(added["path"])) == (1, 0, True)
    assert value(daemon.ask("store.sweep", grace_s=0))["freed_bytes"] == added["size_bytes"]
    assert not os.path.exists(added["path"])


def test_a_sweep_is_for_admins_and_names_are_for_writers(stopped: RealDaemon) -> None:
    from modelwire.operations import OPERATIONS

    assert OPERATIONS["store.sweep"].role == "admin"
    assert {OPERATIONS[f"model.{verb}"].role for verb in ("copy", "move", "remove", "verify")} == {"write"}
    assert {OPERATIONS[f"store.{verb}"].role for verb in ("usage", "quarantine")} == {"read"}


def test_adds_and_sweeps_of_the_same_content_at_once(swept: RealDaemon) -> None:
    """Whatever a sweep takes, a name that was answered for has its bytes."""
    faults: list[object] = []
    ended = threading.Event()

    def add_and_remove(number: int) -> None:
        with swept.connect() as wire:
            path = swept.file(f"source{number}.gguf", b"the same for all")
            for _ in range(15):
                added = wire.ask("model.add", path=path, name=f"m{number}")
                if added["type"] != "result" or Path(added["value"]["path"]).read_bytes() != b"the same for all":
                    faults.append(added)
                if wire.ask("model.resolve", name=f"m{number}")["type"] != "result":
                    faults.append("gone")
                if wire.ask("model.remove", name=f"m{number}")["type"] != "result":
                    faults.append("not removed")

    def sweep() -> None:
        with swept.connect() as wire:
            while not ended.is_set():
                reply = wire.ask("store.sweep")
                if reply["type"] != "result":
                    faults.append(reply)

    threads = [threading.Thread(target=add_and_remove, args=(number,)) for number in range(3)]
    sweeping = threading.Thread(target=sweep)
    for thread in (*threads, sweeping):
        thread.start()
    for thread in threads:
        thread.join(60)
    ended.set()
    sweeping.join(60)
    assert faults == []
    value(swept.ask("store.sweep"))
    assert list(Path(swept.root, "blobs", "sha256").glob("*/*/data")) == []


def test_lists_by_a_filter_and_in_an_order(daemon: RealDaemon) -> None:
    for number, name in enumerate(("llama:8b", "Llama2", "phi")):
        add(daemon, name, b"GGUF" + b"x" * (1996 - number))
    value(daemon.ask("model.resolve", name="phi"))
    assert names(daemon, filter="name~^llama", sort="-size") == ["llama:8b", "Llama2"]
    assert names(daemon, filter="size<2kB, format=gguf") == ["Llama2", "phi"]
    assert names(daemon, sort="-used") == ["phi", "Llama2", "llama:8b"]
    first = value(daemon.ask("model.list", sort="-name", limit=2))
    assert [model["name"] for model in first["models"]] == ["phi", "llama:8b"]
    assert names(daemon, sort="-name", limit=2, after=first["next"]) == ["Llama2"]
    assert "used_at" in value(daemon.ask("model.show", name="phi"))


def test_uses_survive_a_stop(daemon: RealDaemon) -> None:
    add(daemon, "a")
    value(daemon.ask("model.resolve", name="a"))
    used = value(daemon.ask("model.show", name="a"))["used_at"]
    assert daemon.terminate() == 0
    daemon.start()
    assert value(daemon.ask("model.show", name="a"))["used_at"] == used


def test_writes_are_refused_while_it_stops(daemon: RealDaemon) -> None:
    add(daemon, "a")
    with daemon.connect() as wire:
        value(wire.ask("daemon.drain"))
        for op, fields in (
            ("model.copy", {"source": "a", "destination": "b"}),
            ("model.remove", {"name": "a"}),
            ("store.sweep", {}),
        ):
            try:
                reply = wire.ask(op, **fields)
            except (EOFError, OSError):
                return
            assert reply["code"] == "draining"
