"""Stores that earlier versions have left behind, each promise of them kept by the daemon of today."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from old_stores.archive import VERSIONS, partials, proven, unpack
from old_stores.served import BIG, CONFIG, Served, big, gguf, safetensors
from rigs.pull_rig import job_state, manifest, pulled
from rigs.real_daemon import RealDaemon

ALL_KNOWLEDGE = {"MODELD_JOBS_KEEP": "36500d"}
"""Archives grow old; by default a job that has ended is forgotten after a month."""

GO_ON = ("announced", "waiting-add", "killed", "urgent", "waiting")
"""What was open and not paused."""


class Old:
    """The room in which a store was unpacked; its daemon is started by the test."""

    def __init__(self, version: str, name: str, room: Path, served: Served) -> None:
        self.facts = unpack(version, name, room)
        self.room = room
        self.served = served
        self.daemon = RealDaemon(str(room), {**served.environ(), **ALL_KNOWLEDGE})
        self.daemon.configure(CONFIG)
        self.models: dict[str, Any] = self.facts["models"]
        self.jobs: dict[str, str] = self.facts["purposes"]

    def close(self) -> None:
        self.daemon.close()

    def value(self, op: str, **fields: Any) -> dict[str, Any]:
        reply = self.daemon.ask(op, **fields)
        assert reply["type"] == "result", f"{reply}\n{self.daemon.log()}"
        value: dict[str, Any] = reply["value"]
        return value

    def done(self, *purposes: str) -> None:
        for purpose in purposes:
            shown = job_state(self.daemon, self.jobs[purpose], "done", "failed", "cancelled")
            assert shown["state"] == "done", shown

    def content(self, name: str) -> bytes:
        return Path(self.value("model.resolve", name=name)["path"]).read_bytes()

    def journalled(self, name: str) -> int:
        """Bytes of a download that need not be fetched again."""
        digest = hashlib.sha256(big(name)).hexdigest()
        (found,) = [partial for partial in partials(self.room) if digest[:16] in (partial / "journal").read_text()]
        return proven(found)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as made:
        yield made


@pytest.fixture
def old(version: str, room: Path, served: Served) -> Iterator[Old]:
    with closing(Old(version, "open", room, served)) as made:
        yield made


# -- models


def test_every_model_is_what_it_was(old: Old) -> None:
    old.daemon.start()
    listed = {model["name"]: model for model in old.value("model.list")["models"]}
    assert listed.keys() >= old.models.keys()
    root = f"{old.facts['room']}/models/"
    for name, before in old.models.items():
        now = old.value("model.show", name=name)
        # Until they were hashed: the files that were unpacked are not those that the old daemon verified.
        state = "suspect" if before["state"] == "ready" and before.get("verified_at") else before["state"]
        assert (now["state"], listed[name]["state"]) == (state, state)
        for field in before.keys() - {"state", "path", "history", "verified_at", "used_at"}:
            assert now[field] == before[field], (name, field)
        assert now["history"][: len(before["history"])] == before["history"]
    assert old.value("model.show", name="tiny")["used_at"] == old.models["tiny"]["used_at"]
    old.value("model.verify", all=True)
    for name, before in old.models.items():
        now = old.value("model.show", name=name)
        assert now["state"] == before["state"]
        if now["state"] == "ready":
            assert now["path"] == f"{old.daemon.root}/{before['path'].removeprefix(root)}"


def test_every_model_resolves_to_its_bytes(old: Old) -> None:
    old.daemon.start()
    for name, before in old.models.items():
        if before["state"] == "failed":
            assert old.daemon.ask("model.resolve", name=name)["code"] == "corrupt"
            continue
        path = Path(old.value("model.resolve", name=name)["path"])
        files = before.get("files") or [{"path": "", "blob": before["blob"]}]
        for file in files:
            content = (path / file["path"]).read_bytes() if path.is_dir() else path.read_bytes()
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == file["blob"], (name, file)
    assert old.content("tiny") == gguf("tiny")
    folder = Path(old.value("model.resolve", name="folder")["path"])
    assert (folder / "model.safetensors").read_bytes() == safetensors("folder")


def test_every_model_verifies_but_the_one_that_was_bad(old: Old) -> None:
    old.daemon.start()
    told = old.value("model.verify", names=sorted(old.models))
    assert (told["checked"], told["failed"]) == (len(old.models), 1)
    assert {each["name"]: each["ok"] for each in told["models"]} == {name: name != "rotten" for name in old.models}
    newest = old.value("model.show", name="tiny")["history"][-1]
    assert newest["outcome"] == "verified"
    assert newest["time"] > old.models["tiny"]["history"][-1]["time"]


def test_what_lies_in_quarantine_is_listed_and_the_right_bytes_put_the_model_right(old: Old) -> None:
    old.daemon.start()
    kept = {(item["size_bytes"], item["reason"], Path(item["path"]).name) for item in old.facts["quarantine"]}
    items = old.value("store.quarantine")["items"]
    assert {(item["size_bytes"], item["reason"], Path(item["path"]).name) for item in items} == kept
    assert all(Path(item["path"]).stat().st_size == item["size_bytes"] for item in items)
    old.value("model.add", path=old.daemon.file("again.gguf", gguf("rotten")), name="rotten")
    assert old.value("model.show", name="rotten")["state"] == "ready"
    assert old.content("rotten") == gguf("rotten")


def test_a_linked_model_is_still_watched(old: Old) -> None:
    old.daemon.start()
    assert old.content("linked") == gguf("linked")
    source = old.room / "sources" / "linked.gguf"
    assert source.samefile(old.value("model.resolve", name="linked")["path"])
    source.chmod(0o644)
    source.write_bytes(gguf("linke!"))
    assert old.daemon.ask("model.resolve", name="linked")["code"] == "corrupt"


# -- jobs


def test_jobs_that_had_ended_are_remembered(old: Old) -> None:
    old.daemon.start()
    listed = {job["id"]: job for job in old.value("job.list", limit=1000)["jobs"]}
    ended = [job for job in old.facts["jobs"].values() if "ended_at" in job]
    assert {job["state"] for job in ended} == {"done", "failed", "cancelled"}
    for before in ended:
        now = listed[before["id"]]
        for field in ("kind", "state", "model", "priority", "created_at", "started_at", "ended_at", "attempts"):
            assert now.get(field) == before.get(field), (before, now)
        shown = old.value("job.show", job=before["id"])
        assert shown.get("error") == before.get("error")
    assert old.value("job.show", job=old.jobs["failed"])["error"]["code"] == "digest_mismatch"


def test_open_jobs_go_on_and_the_paused_ones_rest_until_they_are_resumed(old: Old) -> None:
    kept = {name: old.journalled(name) for name in ("killed", "paused")}
    assert min(kept.values()) >= BIG // 2
    old.daemon.start()
    assert old.value("daemon.status")["recovery"]["jobs_resumed"] == len(GO_ON)
    old.done(*GO_ON)
    assert old.content("announced") == gguf("announced")
    assert old.content("waiting-add") == gguf("waiting-add")
    assert old.content("killed") == big("killed")
    assert old.content("waiting") == big("waiting")
    assert old.content("urgent") == gguf("urgent")
    assert old.served.sent["/waiting.gguf"] == BIG
    assert old.served.sent["/killed.gguf"] == BIG - kept["killed"]

    for purpose in ("paused", "paused-add"):
        assert old.value("job.show", job=old.jobs[purpose])["state"] == "paused"
    assert old.served.sent["/paused.gguf"] == 0
    for purpose in ("paused", "paused-add"):
        old.value("job.resume", job=old.jobs[purpose])
    old.done("paused", "paused-add")
    assert old.content("paused") == big("paused")
    assert old.content("paused-add") == gguf("paused-add")
    assert old.served.sent["/paused.gguf"] == BIG - kept["paused"]
    resumed = {event["job"] for event in old.daemon.activity() if event["event"] == "transfer.resumed"}
    assert resumed == {old.jobs["killed"], old.jobs["paused"]}


def test_the_queue_is_in_its_order(old: Old) -> None:
    """One pull and one add at a time, by priority and then as they were admitted."""
    old.daemon.start()
    old.done(*GO_ON)
    purposes = {job: purpose for purpose, job in old.jobs.items()}
    done = [purposes.get(event["job"]) for event in old.daemon.activity() if event["event"] == "job.done"]
    assert [purpose for purpose in done if purpose in ("announced", "waiting-add")] == ["announced", "waiting-add"]
    pulls = [purpose for purpose in done if purpose in ("killed", "urgent", "waiting")]
    assert pulls == ["killed", "urgent", "waiting"]


def test_a_token_still_stands_for_its_job(old: Old) -> None:
    """That of the request that made the job, and that of one that joined it."""
    old.daemon.start()
    for token in ("first", "second"):
        value = pulled(old.daemon, "http://models.test/waiting.gguf", token=token)
        assert value["job"] == old.jobs["waiting"]
    assert old.served.sent["/waiting.gguf"] == BIG


def test_a_model_that_had_its_name_is_not_published_again(version: str, room: Path, served: Served) -> None:
    with closing(Old(version, "named", room, served)) as old:
        path = room / "models" / "manifests" / "named.json"
        before = (path.stat().st_ino, path.read_bytes())
        old.daemon.start()
        old.done("named")
        assert old.value("daemon.status")["recovery"]["jobs_resumed"] == 0
        assert (path.stat().st_ino, path.read_bytes()) == before
        assert old.content("named") == gguf("named")
        with old.daemon.connect() as wire:
            value = wire.ask("job.attach", job=old.jobs["named"])["value"]["value"]
        assert (value["name"], value["size_bytes"]) == ("named", len(gguf("named")))


def test_a_move_that_had_written_its_new_name_is_finished(version: str, room: Path, served: Served) -> None:
    with closing(Old(version, "moving", room, served)) as old:
        old.daemon.start()
        (job,) = [job for job in old.value("job.list")["jobs"] if job["kind"] == "model.move"]
        assert job_state(old.daemon, job["id"], "done", "failed")["state"] == "done"
        assert [model["name"] for model in old.value("model.list")["models"]] == ["new"]
        assert old.content("new") == gguf("moving")


# -- what was learned


def test_a_download_without_a_digest_goes_on(old: Old) -> None:
    kept = old.journalled("keyed")
    assert kept >= BIG // 2
    old.daemon.start()
    pulled(old.daemon, "http://models.test/keyed.gguf")
    assert old.content("keyed") == big("keyed")
    assert old.served.sent["/keyed.gguf"] == BIG - kept


def test_references_mean_what_they_meant(old: Old) -> None:
    old.daemon.start()
    for ref, model in (
        ("hf:org/one/one.gguf", "one"),
        ("hf:org/many", "many"),
        ("http://models.test/plain.gguf", "plain"),
    ):
        value = pulled(old.daemon, ref, name=f"offline-{model}", offline=True)
        assert (value["blob"], value["reused"]) == (old.models[model]["blob"], True)
    assert old.served.sent["/plain.gguf"] == 0


def test_a_name_follows_its_reference(old: Old) -> None:
    old.daemon.start()
    for ref, model in (("hf:org/one/one.gguf", "one"), ("hf:org/many", "many")):
        assert pulled(old.daemon, ref, name=model)["current"]
    assert pulled(old.daemon, "http://models.test/plain.gguf")["current"]
    assert old.served.sent["/plain.gguf"] == 0


def test_who_gave_wrong_bytes_is_not_asked_for_them_again(old: Old) -> None:
    old.daemon.start()
    reply = old.daemon.ask("model.pull", ref="http://models.test/wrong.gguf", sha256="11" * 32)
    assert reply["code"] == "digest_mismatch"
    assert old.served.sent["/wrong.gguf"] == 0


# -- changes


def test_fields_of_other_tools_survive_every_rewriting(old: Old) -> None:
    rating = manifest(old.daemon, "foreign")["x_rating"]
    parts = [file["x_part"] for file in manifest(old.daemon, "shards")["files"]]
    old.daemon.start()
    old.value("model.copy", source="shards", destination="shards-too")
    old.value("model.move", source="shards", destination="shards:moved")
    for name in ("shards-too", "shards+moved"):
        document = manifest(old.daemon, name)
        assert document["x_rating"] == rating
        assert [file["x_part"] for file in document["files"]] == parts
    old.value("model.copy", source="theirs", destination="theirs-too")
    assert manifest(old.daemon, "theirs-too")["x_theirs"] is True
    again = old.daemon.file("again.gguf", gguf("foreign"))
    old.value("model.add", path=again, name="foreign", license="mit", replace=True)
    document = manifest(old.daemon, "foreign")
    assert (document["license"], document["x_rating"]) == ("mit", rating)


def test_names_can_be_copied_moved_and_removed(old: Old) -> None:
    old.daemon.start()
    old.value("model.copy", source="chat:small", destination="chat:copy")
    old.value("model.move", source="folder", destination="folder:moved")
    old.value("model.remove", name="folder-copy")
    old.value("model.remove", name="after:renamed")
    names = {model["name"] for model in old.value("model.list")["models"]}
    assert names >= (old.models.keys() | {"chat:copy", "folder:moved"}) - {"folder", "folder-copy", "after:renamed"}
    assert not names & {"folder", "folder-copy", "after:renamed"}
    assert old.content("chat:copy") == gguf("chat")
    moved = Path(old.value("model.resolve", name="folder:moved")["path"])
    assert (moved / "config.json").read_bytes() == b'{"model_type": "llama"}\n'


def test_a_sweep_takes_what_has_no_name_and_nothing_else(old: Old) -> None:
    blobs = old.room / "models" / "blobs" / "sha256"
    (gone,) = old.facts["unnamed"]
    assert (blobs / gone[:2] / gone / "data").exists()
    old.daemon.start()
    assert old.value("daemon.status")["recovery"]["staging_removed"] >= 1
    old.done(*GO_ON)
    told = old.value("store.sweep", grace_s=0)
    victims = {victim["path"] for victim in told["victims"] if victim["kind"] == "blob"}
    assert [Path(path).name for path in victims if gone in path]
    assert not (blobs / gone[:2] / gone).exists()
    assert len(victims) == 1
    verified = old.value("model.verify", all=True)
    assert {each["name"] for each in verified["models"] if not each["ok"]} == {"rotten"}
    old.value("job.resume", job=old.jobs["paused"])
    old.done("paused")


def test_usage_counts_what_is_there(old: Old) -> None:
    old.daemon.start()
    told = {model["name"]: model for model in old.value("store.usage")["models"]}
    assert told["tiny"]["shared_bytes"] == len(gguf("tiny"))
    assert told["chat:small"]["own_bytes"] == len(gguf("chat"))


# -- the log, and the life after


def test_the_activity_log_goes_on_counting(old: Old) -> None:
    last = old.facts["last_seq"]
    old.daemon.start()
    old.done(*GO_ON)
    lines = old.daemon.activity()
    assert [line["seq"] for line in lines] == list(range(1, lines[-1]["seq"] + 1))
    assert lines[-1]["seq"] > last
    with old.daemon.connect() as wire:
        number = wire.request("events.subscribe", since=0, follow=False)
        replies: list[dict[str, Any]] = []
        while not replies or replies[-1]["type"] != "result":
            replies.append(wire.read())
    told = [reply["seq"] for reply in replies if reply["type"] == "event"]
    assert told[:last] == list(range(1, last + 1))
    assert {reply["id"] for reply in replies} == {number}


def test_it_is_the_same_after_another_stop_and_start(old: Old) -> None:
    old.daemon.start()
    old.done(*GO_ON)
    for name in old.models:
        old.daemon.ask("model.resolve", name=name)
    old.value("daemon.drain", deadline_s=5)
    assert old.daemon.wait() == 0
    old.daemon.start()
    recovery = old.value("daemon.status")["recovery"]
    assert (recovery["jobs_resumed"], recovery["catalog_set_aside"]) == (0, None)
    assert recovery["models_failed"] == ["rotten"]
    listed = {model["name"]: model["blob"] for model in old.value("model.list")["models"]}
    assert {name: listed[name] for name in old.models} == {name: each["blob"] for name, each in old.models.items()}
    assert old.value("job.show", job=old.jobs["paused"])["state"] == "paused"


def test_the_archive_is_of_every_state(version: str, tmp_path: Path) -> None:
    """What the tests above rest on."""
    facts = unpack(version, "open", tmp_path)
    states = {job["state"] for job in facts["jobs"].values()}
    assert states == {"queued", "running", "paused", "done", "failed", "cancelled"}
    assert {model["format"] for model in facts["models"].values()} == {"gguf", "safetensors", "bin"}
    assert len(partials(tmp_path)) == 3
    assert not (tmp_path / "models" / "manifests" / "announced.json").exists()
    assert json.loads((tmp_path / "models" / "manifests" / "theirs.json").read_bytes())["produced_by"] == "other-tool/2"
