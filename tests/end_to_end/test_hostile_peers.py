"""Peers that break rules, lag, vanish or come all at once: the daemon goes on, for everybody else as before.

The figures in the docstrings are of a machine with two cores.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from modelwire.operations import OPERATIONS
from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon, Wire
from rigs.rough_peers import (
    MIB,
    SHORT,
    everything_until_close,
    incidents,
    line,
    many_models,
    measuring,
    scaled,
    staging,
    status,
)
from rigs.waiting import wait_until
from rigs.wire_fuzz import Fuzz

GENEROUS_MS = 250.0
"""What somebody else's answer may take in the everyday suite, on a machine that runs other tests too."""

PROMISED_MS = 50.0


# -- fuzz


def _send_rubbish(daemon: RealDaemon, fuzz: Fuzz, lines: int, batch: int = 50) -> Counter[str]:
    """Sends lines over one connection after the other; what came back, by type or code."""
    seen: Counter[str] = Counter()
    sent = 0
    while sent < lines:
        with daemon.connect() as wire:
            alive = True
            while alive and sent < lines:
                chosen = [fuzz.line() for _ in range(batch)]
                sent += len(chosen)
                alive = _one_batch(wire, chosen, f"end-{sent}", seen)
    return seen


def _one_batch(wire: Wire, chosen: Sequence[bytes], end: str, seen: Counter[str]) -> bool:
    """Whether the connection lives on. When it does not, the last words were an error that says so."""
    try:
        wire.send(b"\n".join(chosen) + b"\n" + line("daemon.status", end) + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        seen["closed while sending"] += 1
    last: dict[str, object] = {}
    try:
        while last.get("id") != end or last["type"] not in ("result", "error"):
            last = wire.read()
            seen[str(last.get("code", last["type"]))] += 1
    except EOFError:
        assert last["type"] == "error", last
        # Without an id, or of a line whose descriptors did not come with it.
        assert last.get("id") is None or "The connection is closed" in str(last["hint"]), last
        return False
    return True


def _fuzz_from_several_connections(daemon: RealDaemon, lines: int, seed: int) -> Counter[str]:
    with ThreadPoolExecutor(3) as peers:
        parts = [peers.submit(_send_rubbish, daemon, Fuzz(seed + n), lines // 3) for n in range(3)]
        return sum((part.result() for part in parts), Counter())


@pytest.mark.parametrize("lines", [5_000, pytest.param(100_000, marks=pytest.mark.torture)])
def test_no_line_of_rubbish_is_unforeseen_or_costs_memory(daemon: RealDaemon, lines: int) -> None:
    if lines > 5_000:
        lines = scaled(lines, 10_000)
    _fuzz_from_several_connections(daemon, max(3_000, lines // 5), seed=1)
    before = daemon.resident()
    seen = _fuzz_from_several_connections(daemon, lines, seed=1000)
    grown = daemon.resident() - before
    print(f"{lines} lines: {dict(seen)}; {grown / MIB:.2f} MiB more")
    assert not incidents(daemon)
    assert "internal" not in seen
    assert {"invalid_request", "unknown_operation", "result", "not_found", "invalid_name"} <= seen.keys()
    assert grown < 6 * MIB, f"{grown / MIB:.1f} MiB more after {lines} lines"
    assert daemon.ask("model.add", path=daemon.file("good.bin", b"good"), name="good")["type"] == "result"
    wait_until(lambda: status(daemon)["connections"] == 1, what="every other connection is gone")


def test_a_line_in_any_pieces_is_the_same_line(daemon: RealDaemon) -> None:
    fuzz = Fuzz(7, fatal=0.0)
    # Only what is answered at once: whether an id is still in use must not depend on when a line came.
    at_once_only = {"model.resolve", "daemon.describe", "cancel", "hello"}
    others = [f'"{name}"'.encode() for name in OPERATIONS if name not in at_once_only]
    lines = [made for made in (fuzz.line() for _ in range(600)) if not any(name in made for name in others)]
    whole = b"\n".join(lines) + b"\n" + line("daemon.describe", "end") + b"\n"
    with daemon.connect() as at_once, daemon.connect() as in_pieces:
        at_once.send(whole)
        for at in range(0, len(whole), 97):
            in_pieces.send(whole[at : at + 97])
        answers = []
        for wire in (at_once, in_pieces):
            kinds: list[tuple[object, object]] = []
            while ("end", "result") not in kinds:
                reply = wire.read()
                if reply["type"] in ("result", "error"):
                    kinds.append((reply.get("id"), reply.get("code", "result")))
            answers.append(Counter(kinds))
    assert answers[0] == answers[1]


# -- many at once


def _one_of_many(daemon: RealDaemon, number: int, rounds: int) -> None:
    """One client: in each round an add, resolves and lists in one write, then exactly one terminal reply for each."""
    with daemon.connect() as wire:
        for turn in range(rounds):
            name = f"c{number}-{turn}"
            path = daemon.file(f"{name}.bin", name.encode() * 50)
            asked = [line("model.add", f"add-{turn}", path=path, name=name)]
            asked += [line("model.resolve", f"resolve-{turn}-{n}", name=f"c{number}-{turn - 1}") for n in range(3)]
            asked += [line("model.list", f"list-{turn}", limit=10), line("job.list", f"jobs-{turn}", limit=5)]
            wire.send(b"".join(each + b"\n" for each in asked))
            terminals: dict[str, dict[str, object]] = {}
            while len(terminals) < len(asked):
                reply = wire.read()
                if reply["type"] in ("result", "error"):
                    assert reply["id"] not in terminals, f"a second terminal reply: {reply}"
                    terminals[reply["id"]] = reply
            assert terminals[f"add-{turn}"]["type"] == "result", terminals[f"add-{turn}"]
            for n in range(3):
                found = terminals[f"resolve-{turn}-{n}"]
                assert found["type"] == ("result" if turn else "error"), found
        wire.end_sending()
        assert everything_until_close(wire) == [], "nothing comes after the terminal replies"


@pytest.mark.parametrize("rounds", [2, pytest.param(30, marks=pytest.mark.torture)])
def test_sixty_four_clients_at_once_each_get_one_end_for_each_request(stopped: RealDaemon, rounds: int) -> None:
    rounds = scaled(rounds, 4) if rounds > 2 else rounds
    stopped.environ["MODELD_LIMITS_WAITING_PER_PEER"] = "64"
    daemon = stopped.start()
    with ThreadPoolExecutor(64) as clients:
        for done in [clients.submit(_one_of_many, daemon, number, rounds) for number in range(64)]:
            done.result(timeout=300)
    with daemon.connect() as wire:
        for number in range(64):
            for turn in range(rounds):
                resolved = wire.ask("model.resolve", name=f"c{number}-{turn}")
                with open(resolved["value"]["path"], "rb") as file:
                    assert file.read() == f"c{number}-{turn}".encode() * 50
        assert wire.ask("daemon.status")["value"]["models"] == 64 * rounds
    assert not incidents(daemon)
    assert staging(daemon) == []


# -- those that leave


def _come_and_go(daemon: RealDaemon, number: int) -> None:
    with Wire(daemon.socket) as wire:
        match number % 5:
            case 0:
                pass
            case 1:
                wire.send(b'{"id":"1","op":"daemon.sta')
            case 2:
                wire.send(line("model.list", "1") + b"\n" + line("job.list", "2") + b"\n")
            case 3:
                wire.send(line("events.subscribe", "1", since=0) + b"\n")
                wire.end_sending()
            case 4:
                wire.read()
                wire.send(b"\0\n" + b"x" * 10_000)


@pytest.mark.parametrize("times", [200, pytest.param(5_000, marks=pytest.mark.torture)])
def test_who_comes_and_goes_leaves_no_descriptor(daemon: RealDaemon, times: int) -> None:
    times = scaled(times, 1_000) if times > 200 else times
    for number in range(10):
        _come_and_go(daemon, number)
    wait_until(lambda: status(daemon)["connections"] == 1)
    wait_until(lambda: status(daemon)["watchers"] == 0)
    with daemon.connect() as steady:
        steady.ask("job.list")
        before, memory = daemon.descriptors(), daemon.resident()
        for number in range(times):
            _come_and_go(daemon, number)
        wait_until(lambda: daemon.descriptors() == before, what=f"{before} descriptors as at the start")
        assert steady.ask("daemon.status")["value"]["connections"] == 1
        assert steady.ask("daemon.status")["value"]["watchers"] == 0
        assert daemon.resident() - memory < 4 * MIB
    assert not incidents(daemon)


@pytest.mark.parametrize("leaving", ["close", "half close, then close", "reset with unread replies"])
def test_twenty_that_leave_in_mid_job_take_their_jobs_along(held: HeldDaemon, leaving: str) -> None:
    held.environ |= {"MODELD_LIMITS_RUNNING_BYTES": "4", "MODELD_LIMITS_WAITING_PER_PEER": "20"}
    held.start()
    jobs = []
    with ExitStack() as connected:
        wires = [connected.enter_context(held.connect()) for _ in range(20)]
        for number, wire in enumerate(wires):
            path = held.file(f"{number}.bin", bytes([number]) * (5 * MIB))
            wire.request("model.add", path=path, name=f"left{number}", id="1")
            jobs.append(wire.until("1", "accepted")["job"])
        wait_until(lambda: len(staging(held)) == 4, what="four jobs copy")
        for wire in wires:
            if leaving.startswith("half"):
                wire.end_sending()
            elif leaving.startswith("reset"):
                wire.request("daemon.describe")
            wire.close()
    with held.connect() as watching:
        for number in jobs:
            wait_until(lambda number=number: watching.ask("job.show", job=number)["value"]["state"] == "cancelled")  # type: ignore[misc]
        wait_until(lambda: staging(held) == [], what="nothing is left in the staging directory")
        queue = watching.ask("daemon.status")["value"]["queue"]
        assert (queue["running"], queue["waiting"]) == (0, 0)
        assert watching.ask("daemon.status")["value"].get("reserved_bytes", 0) == 0
        assert watching.ask("model.list")["value"]["models"] == []
    held.release()
    assert held.ask("model.add", path=held.file("after.bin", b"x"), name="after")["type"] == "result"
    assert not incidents(held)


def test_twenty_that_leave_jobs_which_are_to_continue_find_them_done(held: HeldDaemon) -> None:
    held.environ |= {"MODELD_LIMITS_RUNNING_BYTES": "4", "MODELD_LIMITS_WAITING_PER_PEER": "20"}
    held.start()
    jobs = []
    for number in range(20):
        with held.connect() as wire:
            path = held.file(f"{number}.bin", bytes([number]) * MIB)
            wire.request("model.add", path=path, name=f"kept{number}", id="1", on_disconnect="continue")
            jobs.append(wire.until("1", "accepted")["job"])
    wait_until(lambda: status(held)["connections"] == 1)
    held.release()
    with held.connect() as wire:
        for number in jobs:
            assert wire.ask("job.attach", job=number)["value"]["state"] == "done"
        assert len(wire.ask("model.list")["value"]["models"]) == 20
    assert staging(held) == []


# -- those that do not read


def _ask_and_never_read(daemon: RealDaemon) -> Wire:
    """Asks for far more than fits into any buffer, and takes none of it."""
    wire = daemon.connect()
    wire.socket.settimeout(0.2)
    asked = [line("events.subscribe", "watch", since=0, progress=True)]
    asked += [line("model.list", f"list{n}") for n in range(1000)]
    asked += [line("job.list", f"jobs{n}", limit=1000) for n in range(63)]
    asked += [line("daemon.describe", f"describe{n}") for n in range(1000)]
    with contextlib.suppress(TimeoutError):  # the daemon stops reading from it, as it should
        wire.send(b"".join(each + b"\n" for each in asked))
    wire.socket.settimeout(30)
    return wire


def _some_events(daemon: RealDaemon, count: int) -> None:
    with daemon.connect() as wire:
        for number in range(count):
            wire.ask("model.add", path=f"/nowhere/{number}", name="x")


@pytest.mark.parametrize(
    ("events", "promised"), [(400, GENEROUS_MS), pytest.param(20_000, PROMISED_MS, marks=pytest.mark.torture)]
)
def test_a_peer_that_never_reads_costs_the_others_nothing_and_is_cut(
    stopped: RealDaemon, events: int, promised: float
) -> None:
    if events > 400:
        events, promised = scaled(events, 1_500), PROMISED_MS if not SHORT else GENEROUS_MS
    stopped.environ["MODELD_LIMITS_WRITE_STALL"] = "1s"
    daemon = stopped.start()
    many_models(daemon, 1000)
    _some_events(daemon, 300)
    with daemon.connect() as warming:
        for _ in range(5):
            for op, fields in (("model.list", {}), ("job.list", {"limit": 1000}), ("daemon.describe", {})):
                warming.ask(op, **fields)
    before = daemon.resident()
    highest = before
    with measuring(daemon) as others, ExitStack() as deaf_ones:
        deaf = [deaf_ones.enter_context(_ask_and_never_read(daemon)) for _ in range(4)]
        busy = threading.Thread(target=_some_events, args=(daemon, events))
        busy.start()

        def all_cut() -> bool:
            nonlocal highest
            highest = max(highest, daemon.resident())
            return [event["event"] for event in daemon.activity()].count("peer.cut") >= len(deaf)

        wait_until(all_cut, 30, "the deaf ones are cut")
        busy.join(100)
        assert not busy.is_alive()
        for wire in deaf:
            everything_until_close(wire)
    wait_until(lambda: status(daemon)["connections"] == 1)
    assert status(daemon)["watchers"] == 0
    print(f"others: {others}; at most {(highest - before) / MIB:.2f} MiB more")
    assert others.p99 < promised, str(others)
    assert highest - before < 16 * MIB, f"{(highest - before) / MIB:.1f} MiB more"
    cut = next(event for event in daemon.activity() if event["event"] == "peer.cut")
    assert cut["outcome"] == "timeout"
    assert cut["peer"] == os.geteuid()
    assert not incidents(daemon)


def test_a_slow_reader_is_not_taken_for_a_deaf_one(stopped: RealDaemon) -> None:
    """It takes something in each patience, and gets everything in the end."""
    stopped.environ["MODELD_LIMITS_WRITE_STALL"] = "1s"
    daemon = stopped.start()
    with daemon.connect() as wire:
        wire.send(b"".join(line("daemon.describe", str(number)) + b"\n" for number in range(100)))
        pause = threading.Event()
        got: list[str] = []
        while len(got) < 100:
            got.append(wire.read()["id"])
            if len(got) % 10 == 0:
                pause.wait(0.3)  # its slowness, not a wait for something
    assert got == [str(number) for number in range(100)]
    assert not any(event["event"] == "peer.cut" for event in daemon.activity())


def test_a_watcher_that_lagged_is_told_the_gap_and_can_fill_it(daemon: RealDaemon) -> None:
    with daemon.connect() as watcher:
        watcher.request("events.subscribe", id="w")
        wait_until(lambda: status(daemon)["watchers"] == 1)
        first = status(daemon)["log"]["last_seq"] + 1
        _some_events(daemon, 3_000)
        last = status(daemon)["log"]["last_seq"]
        seen: list[int] = []
        gaps: list[dict[str, int]] = []
        while not seen or seen[-1] < last:
            reply = watcher.read()
            if reply["type"] == "lagged":
                gaps.append(reply)
            else:
                assert reply["type"] == "event"
                seen.append(reply["seq"])
        assert seen == sorted(set(seen))
        if gaps:
            for gap in gaps:
                watcher.request("events.subscribe", id="fill", since=gap["resume_from"], follow=False)
                while (reply := watcher.read())["type"] != "result" or reply["id"] != "fill":
                    if reply.get("id") == "fill" and reply["type"] == "event":
                        seen.append(reply["seq"])
        assert set(seen) >= set(range(first, last + 1)), "no event is lost without a word"
