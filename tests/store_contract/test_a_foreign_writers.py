"""The founding contract, part A, "Foreign writers": another tool publishes into the same store by the contract's steps,
without asking the daemon, at each moment of the daemon's own work."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rigs.chaos_server import Chaos
from rigs.foreign_producer import ForeignProducer, Step
from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, begun, downloads_open, gguf, hex_of, job_state
from rigs.real_daemon import RealDaemon, Wire
from rigs.waiting import wait_until

CONTENT = gguf(16 * MIB + 12345, 71)
HEX = hex_of(CONTENT)
SLOW = MIB
"""Bytes a second: sixteen seconds for the whole, if nothing makes the source faster."""


@pytest.fixture
def source() -> Iterator[Chaos]:
    with Chaos(CONTENT, rate=SLOW) as chaos:
        yield chaos


@pytest.fixture
def one(stopped: RealDaemon) -> RealDaemon:
    stopped.environ["MODELD_TRANSFER_CONNECTIONS_PER_FILE"] = "1"
    stopped.configure("[store]\nlock_wait = '60s'\n")
    return stopped.start()


@pytest.fixture
def producers(one: RealDaemon) -> Iterator[Producers]:
    with Producers(one) as made:
        yield made


class Producers:
    def __init__(self, daemon: RealDaemon) -> None:
        self._daemon = daemon
        self._running = ExitStack()

    def __enter__(self) -> Producers:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def __call__(self, name: str, content: bytes = CONTENT, digest: str = HEX) -> ForeignProducer:
        path = self._daemon.file(f"foreign-{hex_of(content)[:8]}", content)
        return self._running.enter_context(ForeignProducer(self._daemon.root, name, digest, path))


def pull(wire: Wire, source: Chaos, name: str = "m", **fields: Any) -> str:
    return wire.request("model.pull", ref=f"{source.url}/m.gguf", sha256=HEX, name=name, **fields)


def value(reply: dict[str, Any]) -> dict[str, Any]:
    assert reply["type"] == "result", reply
    result: dict[str, Any] = reply["value"]
    return result


def assert_right(daemon: RealDaemon, name: str, content: bytes = CONTENT) -> None:
    """Ready, with the right bytes, and verified so."""
    resolved = value(daemon.ask("model.resolve", name=name))
    assert resolved["state"] == "ready"
    assert Path(resolved["path"]).read_bytes() == content
    assert value(daemon.ask("model.verify", names=[name]))["ok"]


def fetched(source: Chaos) -> int:
    """Requests for bytes, without the question what the reference stands for."""
    return len([request for request in source.requests if request.method == "GET"])


FOREIGN = b"FOREIGN!" * (len(CONTENT) // 8)


# -- the name's lock


def test_the_name_belongs_to_the_pull_from_its_first_byte_to_its_manifest(
    one: RealDaemon, source: Chaos, producers: Producers
) -> None:
    """A foreign producer of that name waits. Then it finds the manifest, and nothing that it could spoil."""
    foreign = producers("m", FOREIGN)
    with one.connect() as wire:
        number = pull(wire, source)
        begun(wire, number, MIB)
        foreign.begin("lock")
        begun(wire, number, 2 * MIB)
        assert not foreign.has_done("lock"), "the pull holds the lock while its bytes arrive"
        source.rate = None
        value(wire.terminal(number))
    assert foreign.has_done("lock", 30)
    assert json.loads(Path(one.root, "manifests", "m.json").read_bytes())["blob"] == f"sha256:{HEX}"
    assert_right(one, "m")


@pytest.mark.parametrize("end", ["paused", "cancelled", "failed", "killed"])
def test_the_name_is_free_when_the_pull_ends_however_it_ends(
    one: RealDaemon, source: Chaos, producers: Producers, end: str
) -> None:
    foreign = producers("m")
    with one.connect() as wire:
        number = pull(wire, source, on_disconnect="continue")
        job = begun(wire, number, MIB)
        foreign.begin("lock")
        begun(wire, number, 2 * MIB)
        assert not foreign.has_done("lock")
        if end == "paused":
            wire.ask("job.pause", job=job)
        elif end == "cancelled":
            wire.ask("cancel", target=number, id="c")
        elif end == "failed":
            source.content, source.rate = FOREIGN, None
        else:
            one.kill()
        assert foreign.has_done("lock", 30)
        foreign.take("begin", "finish", "name", "publish", "clear", "unlock")
        if end == "killed":
            one.start()
        elif end == "paused":
            assert wire.ask("job.resume", job=job)["type"] == "result"
    if end in ("paused", "killed"):
        assert job_state(one, job, "done", "failed")["state"] == "done", "what another tool published is what it wants"
    assert_right(one, "m")


def test_a_pull_waits_for_the_producer_of_its_name_and_takes_what_that_one_published(
    one: RealDaemon, source: Chaos, producers: Producers
) -> None:
    foreign = producers("m")
    foreign.take("lock", "begin")
    with one.connect() as wire:
        number = pull(wire, source)
        wire.until(number, "accepted")
        wait_until(lambda: waits(one), what="the event that says for whom it waits")
        foreign.take("finish", "name", "publish", "clear", "unlock")
        assert value(wire.terminal(number))["reused"]
    assert fetched(source) == 0, "not a byte was fetched"
    (event,) = waits(one)
    assert (event["model"], "'m'" in event["message"], str(foreign.pid) in event["message"]) == ("m", True, True), event
    assert_right(one, "m")


def waits(daemon: RealDaemon) -> list[dict[str, Any]]:
    return [event for event in daemon.activity() if event["event"] == "name.waiting"]


def test_a_pull_that_waited_does_not_replace_other_bytes_that_were_published_meanwhile(
    one: RealDaemon, source: Chaos, producers: Producers
) -> None:
    """Also not when the name stood for an earlier version of the same reference, which a pull may replace."""
    other = gguf(1000, 72)
    source.content, source.rate = gguf(2000, 73), None
    ref = f"{source.url}/m.gguf"
    value(one.ask("model.pull", ref=ref, name="m"))
    source.content, source.etag = CONTENT, '"two"'
    foreign = producers("m", other, hex_of(other))
    foreign.take("lock", "begin")
    with one.connect() as wire:
        number = wire.request("model.pull", ref=ref, name="m")
        wire.until(number, "accepted")
        wait_until(lambda: waits(one), what="the event that says for whom it waits")
        before = fetched(source)
        foreign.take("finish", "name", "publish", "clear", "unlock")
        assert wire.terminal(number)["code"] == "already_exists"
    assert fetched(source) == before
    assert_right(one, "m", other)


def test_a_producer_that_keeps_the_name_too_long_is_named(stopped: RealDaemon, source: Chaos) -> None:
    stopped.configure("[store]\nlock_wait = '300ms'\n")
    stopped.start()
    with Producers(stopped) as producers:
        foreign = producers("m")
        foreign.take("lock")
        reply = stopped.ask("model.pull", ref=f"{source.url}/m.gguf", sha256=HEX, name="m")
    assert (reply["code"], str(foreign.pid) in reply["message"]) == ("in_use", True), reply
    assert "[store] lock_wait" in reply["hint"]
    assert fetched(source) == 0


def test_a_pull_that_waits_can_be_cancelled_and_keeps_no_other_from_its_work(
    one: RealDaemon, source: Chaos, producers: Producers
) -> None:
    foreign = producers("m")
    foreign.take("lock")
    with one.connect() as wire:
        number = pull(wire, source)
        wire.until(number, "accepted")
        wait_until(lambda: waits(one), what="the event that says for whom it waits")
        source.rate = None
        value(one.ask("model.pull", ref=f"{source.url}/m.gguf", sha256=HEX, name="other"))
        assert wire.ask("cancel", target=number, id="c")["type"] == "result"
        assert wire.terminal(number)["code"] == "cancelled"
    assert_right(one, "other")


def test_while_a_pull_has_the_name_the_daemon_itself_can_copy_move_and_remove_it(
    one: RealDaemon, source: Chaos, producers: Producers
) -> None:
    before = gguf(1000, 74)
    value(one.ask("model.add", path=one.file("before.gguf", before), name="m"))
    foreign = producers("m", FOREIGN)
    with one.connect() as wire:
        number = pull(wire, source, replace=True)
        begun(wire, number, MIB)
        foreign.begin("lock")
        value(one.ask("model.copy", source="m", destination="copy"))
        value(one.ask("model.move", source="m", destination="moved"))
        value(one.ask("model.copy", source="moved", destination="m"))
        value(one.ask("model.remove", name="m"))
        begun(wire, number, 2 * MIB)
        assert not foreign.has_done("lock"), "the pull has it still"
        source.rate = None
        value(wire.terminal(number))
    assert foreign.has_done("lock", 30)
    assert_right(one, "m")
    assert_right(one, "copy", before)
    assert_right(one, "moved", before)


def test_two_pulls_of_one_name_hold_it_until_the_last_has_ended(
    one: RealDaemon, source: Chaos, producers: Producers
) -> None:
    foreign = producers("m", FOREIGN)
    with one.connect() as wire, one.connect() as second:
        number = pull(wire, source)
        begun(wire, number, MIB)
        other = second.request("model.pull", ref=f"{source.url}/same.gguf", sha256=HEX, name="m")
        begun(second, other, MIB)
        foreign.begin("lock")
        assert wire.ask("cancel", target=number, id="c")["type"] == "result"
        begun(second, other, 3 * MIB)
        assert not foreign.has_done("lock")
        source.rate = None
        value(second.terminal(other))
    assert foreign.has_done("lock", 30)
    assert_right(one, "m")


# -- the bytes: another name with the same digest has another lock


@pytest.mark.parametrize(
    "steps",
    [
        ("lock", "begin"),
        ("lock", "begin", "finish"),
        ("lock", "begin", "finish", "name"),
        ("lock", "begin", "finish", "name", "clear"),
        ("clear",),
    ],
    ids=lambda steps: steps[-1],
)
def test_wrong_bytes_of_a_producer_of_the_same_digest_are_never_published(
    one: RealDaemon, source: Chaos, producers: Producers, steps: tuple[Step, ...]
) -> None:
    foreign = producers("other", FOREIGN)
    with one.connect() as wire:
        number = pull(wire, source)
        begun(wire, number, MIB)
        foreign.take(*steps)
        begun(wire, number, 2 * MIB)
        source.rate = None
        value(wire.terminal(number))
    assert_right(one, "m")
    rest = Path(one.root, "blobs", "sha256", HEX[:2], f".partial-{HEX}", "data.tmp")
    assert rest.exists() == (steps[-1] in ("begin", "finish")), "what is the producer's stays the producer's"
    assert source.sent_twice() == 0


def test_a_producer_of_the_same_digest_that_is_faster_and_the_pull_share_one_blob(
    one: RealDaemon, source: Chaos, producers: Producers
) -> None:
    foreign = producers("other")
    with one.connect() as wire:
        number = pull(wire, source)
        begun(wire, number, MIB)
        foreign.take("lock", "begin", "finish", "name", "clear", "publish", "unlock")
        source.rate = None
        value(wire.terminal(number))
    assert_right(one, "m")
    assert_right(one, "other")
    assert downloads_open(one) == []


def test_a_bad_blob_that_a_producer_named_meanwhile_gives_way_to_the_good_bytes(
    one: RealDaemon, source: Chaos, producers: Producers
) -> None:
    with one.connect() as wire:
        number = pull(wire, source)
        begun(wire, number, MIB)
        blob = Path(one.root, "blobs", "sha256", HEX[:2], HEX, "data")
        blob.parent.mkdir(parents=True)
        blob.write_bytes(FOREIGN)
        source.rate = None
        value(wire.terminal(number))
    assert_right(one, "m")
    (kept,) = Path(one.root, "locks", "quarantine").iterdir()
    assert kept.read_bytes() == FOREIGN


def test_a_blob_that_a_producer_replaces_before_its_model_is_published_is_verified_again(
    stopped: RealDaemon,
) -> None:
    """The producer writes the same bytes and renames them over the blob of a pull that has other files to fetch."""
    first, last = gguf(MIB, 75), gguf(24 * MIB, 76)
    files = {"a.gguf": first, "b.gguf": last}
    with Hub({"org/two": Repo(files, lfs=frozenset(files))}) as hub:
        stopped.environ |= {"HF_ENDPOINT": hub.url, "MODELD_TRANSFER_FILES_AT_ONCE": "1"}
        stopped.start()
        blob = Path(stopped.root, "blobs", "sha256", hex_of(first)[:2], hex_of(first), "data")
        with stopped.connect() as wire, Producers(stopped) as producers:
            number = wire.request("model.pull", ref="hf:org/two", name="m", max_rate=8_000_000)
            begun(wire, number, 4 * MIB)
            inode = blob.stat().st_ino
            producers("other", first, hex_of(first)).take("lock", "begin", "finish", "name", "clear")
            assert blob.stat().st_ino != inode
            model = value(wire.terminal(number))
    assert [hashlib.sha256(Path(model["path"], name).read_bytes()).hexdigest() for name in sorted(files)] == [
        hex_of(first),
        hex_of(last),
    ]


# -- adds and sweeps


def test_an_add_publishes_its_own_bytes_while_a_producer_writes_the_same_digest(
    one: RealDaemon, producers: Producers
) -> None:
    wrong, foreign = producers("other", FOREIGN), producers("another")
    wrong.take("lock", "begin")
    value(one.ask("model.add", path=one.file("m.gguf", CONTENT), name="m"))
    wrong.take("finish", "name")
    foreign.take("lock", "begin", "finish", "name", "clear", "publish", "unlock")
    for name in ("m", "another"):
        assert_right(one, name)


def test_a_sweep_leaves_the_running_download_of_a_producer(one: RealDaemon, producers: Producers) -> None:
    foreign = producers("other")
    foreign.take("lock", "begin")
    one.ask("store.sweep", grace_s=0)
    foreign.take("finish", "name", "publish", "clear", "unlock")
    assert_right(one, "other")
    assert not os.path.exists(f"{one.root}/blobs/sha256/{HEX[:2]}/.partial-{HEX}")
