"""Events as watchers see them: no gap and no double, across rotation, restarts and a watcher that did not read."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import Any

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon, Wire
from rigs.waiting import wait_until

MANY = 10_000


def add(daemon: RealDaemon, name: str, content: bytes = b"GGUF weights", **fields: Any) -> dict[str, Any]:
    return daemon.ask("model.add", path=daemon.file(f"{name}.gguf", content), name=name, **fields)


def stored(daemon: RealDaemon, **fields: Any) -> list[dict[str, Any]]:
    """What `events.subscribe` without following gives."""
    with daemon.connect() as wire:
        number = wire.request("events.subscribe", follow=False, **fields)
        events = []
        while (reply := wire.until(number, "event", "lagged", "result", "error"))["type"] == "event":
            events.append(reply)
        assert reply["type"] == "result", reply
        assert reply["value"]["delivered"] == len(events)
        return events


def seqs(events: list[dict[str, Any]]) -> list[int]:
    return [event["seq"] for event in events]


def last_seq(daemon: RealDaemon) -> int:
    return int(daemon.ask("daemon.status")["value"]["log"]["last_seq"])


def make_event(wire: Wire, number: int) -> None:
    """A setting that changes is an event, and costs no job."""
    assert wire.ask("daemon.configure", max_rate=100_000_000 + number % 2)["type"] == "result"


def make_events(daemon: RealDaemon, count: int) -> None:
    before = last_seq(daemon)
    with daemon.connect() as wire:
        for number in range(count):
            make_event(wire, number)
        assert wire.ask("daemon.status")["value"]["log"]["last_seq"] == before + count


@pytest.fixture
def narrow(stopped: RealDaemon) -> RealDaemon:
    """With a small log."""
    stopped.environ["MODELD_ACTIVITY_MAX_BYTES"] = "1MiB"
    return stopped.start()


def test_a_watcher_sees_a_job_from_its_beginning_to_its_end(daemon: RealDaemon) -> None:
    with daemon.connect() as watcher:
        number = watcher.request("events.subscribe")
        wait_until(lambda: daemon.ask("daemon.status")["value"]["watchers"] == 1)
        job = add(daemon, "llama")["value"]["job"]
        seen = [watcher.until(number, "event")]
        while seen[-1]["event"] != "job.done":
            seen.append(watcher.until(number, "event"))
    told = [event["event"] for event in seen]
    assert [event for event in told if event.startswith("job.")] == ["job.queued", "job.started", "job.done"]
    assert told[2:-1] == ["phase.checking_local", "phase.copy", "phase.verify", "phase.ready"]
    assert {event["job"] for event in seen} == {job}
    assert {event["model"] for event in seen} == {"llama"}
    assert seqs(seen) == list(range(seen[0]["seq"], seen[0]["seq"] + len(seen)))
    assert seen[-1]["outcome"] == "ok"
    wait_until(lambda: daemon.ask("daemon.status")["value"]["watchers"] == 0)


def test_a_watcher_may_ask_for_progress_too(held: HeldDaemon) -> None:
    held.slow(0.05)
    held.start()
    with held.connect() as watcher:
        number = watcher.request("events.subscribe", progress=True)
        wait_until(lambda: held.ask("daemon.status")["value"]["watchers"] == 1)
        job = add(held, "llama", b"GGUF" + bytes(60 << 20))["value"]["job"]
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1].get("event") != "job.done":
            seen.append(watcher.until(number, "event", "progress"))
    progress = [reply for reply in seen if reply["type"] == "progress"]
    assert len(progress) >= 2
    assert {reply["job"] for reply in progress} == {job}
    done = [reply["bytes_done"] for reply in progress]
    assert done == sorted(done)


def test_since_goes_on_where_one_was(daemon: RealDaemon) -> None:
    for name in "abc":
        add(daemon, name)
    everything = stored(daemon, since=0)
    assert seqs(everything) == list(range(1, last_seq(daemon) + 1))
    for since in (0, 1, 4, len(everything) - 1, len(everything)):
        assert seqs(stored(daemon, since=since)) == list(range(since + 1, len(everything) + 1))
    assert stored(daemon, since=10**9) == []
    assert seqs(stored(daemon, last=2)) == seqs(everything)[-2:]
    assert stored(daemon) == []
    assert daemon.ask("events.subscribe", since=-1)["code"] == "invalid_request"
    assert daemon.ask("events.subscribe", since=1, last=1)["code"] == "invalid_request"


def test_filters(daemon: RealDaemon) -> None:
    jobs = {name: add(daemon, name)["value"]["job"] for name in "ab"}
    bad = add(daemon, "c", sha256="0" * 64)
    assert bad["code"] == "digest_mismatch"
    everything = stored(daemon, since=0)
    for fields, wanted in (
        ({"events": ["job.done"]}, lambda e: e["event"] == "job.done"),
        ({"events": ["daemon"]}, lambda e: e["event"].startswith("daemon.")),
        ({"events": ["job.failed", "daemon.started"]}, lambda e: e["event"] in ("job.failed", "daemon.started")),
        ({"model": "b"}, lambda e: e.get("model") == "b"),
        ({"model": "B"}, lambda e: e.get("model") == "b"),
        ({"job": jobs["a"]}, lambda e: e.get("job") == jobs["a"]),
        ({"job": jobs["a"], "events": ["job.done"]}, lambda e: e.get("job") == jobs["a"] and e["event"] == "job.done"),
        ({"model": "nobody"}, lambda e: False),
    ):
        expected = seqs([event for event in everything if wanted(event)])
        assert seqs(stored(daemon, since=0, **fields)) == expected, fields
        if fields != {"model": "nobody"}:
            assert expected


def test_the_numbers_go_on_over_a_kill_and_a_stop(daemon: RealDaemon) -> None:
    add(daemon, "a")
    before = last_seq(daemon)
    wait_until(lambda: daemon.activity()[-1]["seq"] == before)
    daemon.kill()
    daemon.start()
    add(daemon, "b")
    assert daemon.terminate() == 0
    daemon.start()
    everything = stored(daemon, since=0)
    assert seqs(everything) == list(range(1, len(everything) + 1))
    assert len(everything) > before
    assert [event["event"] for event in everything].count("daemon.started") == 3


def test_a_watcher_that_comes_back_after_a_restart_misses_nothing(daemon: RealDaemon) -> None:
    with daemon.connect() as watcher:
        number = watcher.request("events.subscribe", since=0)
        add(daemon, "a")
        seen = [watcher.until(number, "event") for _ in range(4)]
        daemon.terminate()
        with contextlib.suppress(EOFError):
            while (reply := watcher.read())["type"] == "event":
                seen.append(reply)
    daemon.start()
    add(daemon, "b")
    with daemon.connect() as watcher:
        number = watcher.request("events.subscribe", since=seen[-1]["seq"])
        while seen[-1].get("model") != "b" or seen[-1]["event"] != "job.done":
            seen.append(watcher.until(number, "event", "lagged"))
    assert seqs(seen) == list(range(1, len(seen) + 1))


def test_a_watcher_that_does_not_read_is_told_its_gap_and_the_log_fills_it(narrow: RealDaemon) -> None:
    """Ten thousand events, through several rotations of the log."""
    watcher = Wire(narrow.socket)
    watcher.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert watcher.read()["type"] == "hello"
    start = last_seq(narrow)
    number = watcher.request("events.subscribe", since=start)
    with narrow.connect() as other:
        wait_until(lambda: other.ask("daemon.status")["value"]["watchers"] == 1)
        for event in range(MANY):
            make_event(other, event)
        end = int(other.ask("daemon.status")["value"]["log"]["last_seq"])
        assert end == start + MANY
        assert other.ask("daemon.status")["value"]["log"]["lost"] == 0
    got: list[int] = []
    gaps: list[tuple[int, int]] = []
    while not got or got[-1] != end:
        reply = watcher.until(number, "event", "lagged")
        if reply["type"] == "event":
            got.append(reply["seq"])
        else:
            gaps.append((reply["resume_from"], reply["dropped"]))
    watcher.close()
    assert gaps
    assert got == sorted(set(got))
    for resume_from, dropped in gaps:
        assert resume_from in (got[0] - 1, *got, start)
        filled = seqs(stored(narrow, since=resume_from))[:dropped]
        assert filled == list(range(resume_from + 1, resume_from + dropped + 1))
        got += filled
    assert sorted(got) == list(range(start + 1, end + 1))
    assert os.path.exists(os.path.join(narrow.state, "activity.ndjson.1"))


def test_the_log_is_rotated_and_kept_private(narrow: RealDaemon) -> None:
    for _ in range(2):  # and once more over what is there
        make_events(narrow, MANY)
        everything = stored(narrow, since=0)
        assert seqs(everything) == list(range(everything[0]["seq"], everything[-1]["seq"] + 1))
        assert everything[-1]["seq"] == last_seq(narrow)
        narrow.kill()
        narrow.start()
    files = [name for name in os.listdir(narrow.state) if name.startswith("activity") and not name.endswith(".lock")]
    assert len(files) > 1
    for name in files:
        info = os.stat(os.path.join(narrow.state, name))
        assert stat.S_IMODE(info.st_mode) == 0o600, name
        assert info.st_size <= 1 << 20, name


def test_a_live_watcher_notices_no_rotation(narrow: RealDaemon) -> None:
    rotated = os.path.join(narrow.state, "activity.ndjson.1")
    seen: list[int] = []
    with narrow.connect() as watcher, narrow.connect() as other:
        number = watcher.request("events.subscribe")
        wait_until(lambda: other.ask("daemon.status")["value"]["watchers"] == 1)
        while not os.path.exists(rotated) and len(seen) < 2 * MANY:
            make_event(other, len(seen))
            seen.append(watcher.until(number, "event", "lagged").get("seq", -1))
    assert os.path.exists(rotated)
    assert seen == list(range(seen[0], seen[0] + len(seen)))


SECRETS = ("hf_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "s3cr3tpassword")


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_reaches_neither_the_log_nor_a_watcher(daemon: RealDaemon, secret: str) -> None:
    url = f"https://me:{secret}@example.com/model" if secret == "s3cr3tpassword" else secret
    with daemon.connect() as watcher:
        number = watcher.request("events.subscribe")
        wait_until(lambda: daemon.ask("daemon.status")["value"]["watchers"] == 1)
        missing = daemon.ask("model.add", path=f"/nowhere/{url}", name="a")
        assert missing["type"] == "error"
        assert add(daemon, "b", license=url)["type"] == "result"
        assert add(daemon, "b", license=f"other {url}")["type"] == "error"
        seen: list[dict[str, Any]] = []
        while len([event for event in seen if "outcome" in event]) < 3:
            seen.append(watcher.until(number, "event"))
    assert secret not in str(seen)
    assert daemon.terminate() == 0
    for path in (os.path.join(daemon.state, "activity.ndjson"), daemon.log_path):
        with open(path, encoding="utf-8") as file:
            assert secret not in file.read(), path


def test_a_full_disk_of_the_log_costs_no_job(held: HeldDaemon) -> None:
    """What cannot be logged is counted, and the daemon goes on."""
    held.release()
    held.start()
    log = os.path.join(held.state, "activity.ndjson")
    wait_until(lambda: os.path.getsize(log))
    os.unlink(log)
    os.symlink("/dev/full", log)
    add(held, "a")
    assert add(held, "b")["type"] == "result"
    assert held.ask("daemon.status")["value"]["state"] == "ready"
    os.unlink(log)
    assert add(held, "c")["type"] == "result"
    wait_until(lambda: os.path.exists(log) and any(row.get("model") == "c" for row in held.activity()))
