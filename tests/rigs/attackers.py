"""What users who mean harm do to a daemon, each as a part of `user_process`: until the test ends them, without mercy.

A part of this module reports as wrong what an attack must not be answered.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

from rigs.real_daemon import Wire
from rigs.rough_peers import line
from rigs.user_process import Part
from rigs.wire_fuzz import Fuzz

REFUSED_CONNECTION = (OSError, EOFError)
"""A limit of connections, a daemon that has cut this one: the attacker comes again."""

BREATH = 0.02
"""Between two rounds. Each attacker is one of many, on a machine with as few processors as the daemon has."""


def hold_connections(part: Part) -> None:
    """Holds as many connections as it may, with half a request in each, and opens those anew that the daemon closes."""
    held: list[Wire] = []
    while not part.over(BREATH):
        with contextlib.suppress(*REFUSED_CONNECTION):
            held.append(part.connect())
            held[-1].send(b'{"id":"1","op":"daemon.sta')
            part.report.counts["held"] += 1
            continue
        part.report.counts["refused"] += 1
        held = [wire for wire in held if not _closed(wire)]
    for wire in held:
        wire.close()


def _closed(wire: Wire) -> bool:
    with contextlib.suppress(BlockingIOError):
        wire.socket.recv(1 << 16, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        wire.close()
        return True
    return False


def leave_pulls(part: Part) -> None:
    """Starts pulls from servers that drip, and leaves each at once: by a cancel or without a word."""
    for number in itertools.count():
        if part.over(BREATH):
            return
        path = ("drip-head", "drip-body")[number % 2]
        with contextlib.suppress(*REFUSED_CONNECTION), part.connect() as wire:
            wire.request("model.pull", ref=f"{part.given['url']}/{path}/{number}.gguf", name=f"left{number}", id="p")
            first = wire.until("p", "accepted", "error")
            part.expect("pull", first, "accepted", "queue_full")
            if number % 3 and first["type"] == "accepted":
                wire.request("cancel", target="p", id="c")
                part.expect("left", wire.terminal("p"), "cancelled", "source_unavailable")


def keep_pulling(part: Part) -> None:
    """Keeps as many pulls open as it may, of the best priority: those that end are begun anew."""
    for number in itertools.count():
        if part.over(BREATH):
            return
        with contextlib.suppress(*REFUSED_CONNECTION), part.connect() as wire:
            ref = f"{part.given['url']}/{part.given['path']}/{part.uid}-{number}.gguf"
            fields = {"name": f"u{part.uid}-{number}", "on_disconnect": "continue", "priority": 1}
            wire.request("model.pull", ref=ref, id="p", **fields)
            first = wire.until("p", "accepted", "error")
            part.expect("pull", first, "accepted", "queue_full")
            if first["type"] == "error":
                part.over(0.5)


_FAIL = (
    ("model.copy", {"source": "missing", "destination": "there"}),
    ("model.move", {"source": "missing", "destination": "there"}),
    ("model.remove", {"name": "missing"}),
)


def fail_jobs(part: Part) -> None:
    """Submits jobs that fail, as fast as it can, every other with a token."""
    while not part.over(BREATH):
        with contextlib.suppress(*REFUSED_CONNECTION), part.connect() as wire:
            wire.request("model.pull", ref=f"{part.given['url']}/gone/m.gguf", name="gone", id="gone")
            for first in range(0, 2000, 20):
                for number in range(first, first + 20):
                    token = {"token": f"{part.uid}-{random.random()}"} if number % 2 else {}
                    op, fields = random.choice(_FAIL)
                    wire.request(op, id=f"{number}", **fields, **token)
                ends = itertools.islice((reply for reply in _replies(wire) if reply["type"] in ("result", "error")), 20)
                pause = 0.0
                for reply in ends:
                    part.expect("job", reply, "not_found", "queue_full")
                    part.report.counts["refused for its failures"] += "peer_failed" in reply.get("details", {})
                    pause = max(pause, reply.get("retry_after_ms", 0) / 1000)
                if part.over(min(1.0, pause)):
                    return


def pause_pulls(part: Part) -> None:
    """Pauses pulls that have received a little, as many as it may, cancels them all, and begins again."""
    number = 0
    while not part.over(BREATH):
        with contextlib.suppress(*REFUSED_CONNECTION), part.connect() as wire:
            paused: list[str] = []
            while len(paused) < 20 and not part.over():
                number += 1
                ref = f"{part.given['url']}/trickle-ranges/{part.uid}-{number}.gguf"
                wire.request("model.pull", ref=ref, name=f"p{number}", id=f"p{number}", on_disconnect="continue")
                first = wire.until(f"p{number}", "accepted", "error")
                part.expect("pull", first, "accepted", "queue_full")
                if first["type"] == "error":
                    break
                part.over(0.3)
                reply = wire.ask("job.pause", job=first["job"], id=f"s{number}")
                part.expect("pause", reply, "result", "queue_full", "invalid_request")
                paused.append(first["job"])
            for job in paused:
                number += 1
                wire.ask("job.cancel", job=job, id=f"c{number}")


def deaf(part: Part) -> None:
    """Subscribes to all events, asks for more than fits into any buffer, and reads nothing of it."""
    asked = [line("events.subscribe", "watch", since=0, progress=True)]
    asked += [line("model.list", f"list{n}") for n in range(500)]
    asked += [line("job.list", f"jobs{n}", limit=1000) for n in range(60)]
    asked += [line("daemon.describe", f"describe{n}") for n in range(500)]
    whole = b"".join(each + b"\n" for each in asked)
    held: list[Wire] = []
    while not part.over(BREATH):
        with contextlib.suppress(*REFUSED_CONNECTION):
            wire = part.connect()
            held.append(wire)
            wire.socket.settimeout(0.2)
            wire.send(whole)
        part.report.counts["deaf connections"] += 1
        while len(held) > 8:
            held.pop(0).close()
    for wire in held:
        wire.close()


def filter_lists(part: Part) -> None:
    """Lists with filters that make a backtracking matcher take for ever."""
    filters = ["name~" + "*" * 5000, "name~" + "a*" * 45 + "b", "name~" + "*?" * 45, "name~(a*)*b", "size>" + "9" * 990]
    while not part.over(BREATH):
        with contextlib.suppress(*REFUSED_CONNECTION), part.connect() as wire:
            for text in filters:
                part.expect("list", wire.ask("model.list", filter=text), "result", "invalid_request", "queue_full")


def rubbish(part: Part) -> None:
    """Lines that are too long, too deep, or nothing at all."""
    fuzz = Fuzz(part.uid, fatal=0.05)
    for number in itertools.count():
        if part.over(BREATH):
            return
        with contextlib.suppress(*REFUSED_CONNECTION), part.connect() as wire:
            match number % 4:
                case 0:
                    wire.send(b"x" * (3 << 20))
                case 1:
                    wire.send(b'{"id":"1","op":"model.resolve","name":' + b"[" * 500_000 + b"\n")
                case 2:
                    wire.send(line("model.resolve", "1", name="x" * 900_000) + b"\n")
                case _:
                    wire.send(b"\n".join(fuzz.line() for _ in range(50)) + b"\n")
            wire.end_sending()
            wire.socket.settimeout(5)
            for reply in _replies(wire):
                if reply.get("code") == "internal":
                    part.report.wrongs.append(str(reply))
                part.report.counts[str(reply.get("code", reply["type"]))] += 1


def _replies(wire: Wire) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(*REFUSED_CONNECTION):
        while True:
            yield wire.read()


def offer_files(part: Part) -> None:
    """Hands over open files for work that it never asks for."""
    with open("/dev/zero", "rb") as file:
        while not part.over(BREATH):
            with contextlib.suppress(*REFUSED_CONNECTION), part.connect() as wire:
                wire.socket.settimeout(2)
                for number in range(200):
                    offered = line("files.offer", f"{number}", transfer=f"t{number}", paths=["m.gguf"]) + b"\n"
                    socket.send_fds(wire.socket, [offered], [file.fileno()])
                    reply = wire.read()
                    part.expect("offer", reply, "result", "queue_full", "invalid_request", "unsupported")
                    if reply["type"] == "error":
                        break


def trespass(part: Part) -> None:
    """Takes what belongs to others: locks, models, jobs, files, and the services of this machine."""
    given = part.given
    while not part.over(0.1):
        for path in given["locks"]:
            _take(part, path)
        with contextlib.suppress(*REFUSED_CONNECTION), part.connect() as wire:
            for name in given["models"]:
                _change(part, wire, name)
            for job in wire.ask("job.list", limit=50)["value"]["jobs"]:
                if job["peer"] != part.uid:
                    _control(part, wire, job["id"])
            for reply in _reads(part, wire):
                part.expect("read", reply, "permission_denied", "invalid_request", "queue_full")
            for ref in given["closed_addresses"]:
                reply = wire.ask("model.pull", ref=ref, name="stolen")
                part.expect("reach", reply, "permission_denied", "invalid_request", "queue_full", "cancelled")


def _take(part: Part, path: str) -> None:
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT):
        try:
            descriptor = os.open(path, flags, 0o600)
        except (PermissionError, FileNotFoundError) as fault:
            part.report.counts[f"lock: {type(fault).__name__}"] += 1
            continue
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.report.wrongs.append(f"opened {path}")
        os.close(descriptor)


def _change(part: Part, wire: Wire, name: str) -> None:
    mine, taken = part.given["mine"], f"taken{part.uid}"
    for op, fields in (
        ("model.remove", {"name": name, "force": True}),
        ("model.remove", {"name": name, "now": True}),
        ("model.move", {"source": name, "destination": taken}),
        ("model.pull", {"ref": mine, "name": name, "replace": True}),
    ):
        part.expect(f"{op} {name}", wire.ask(op, **fields), "permission_denied", "queue_full", "cancelled")


def _control(part: Part, wire: Wire, job: str) -> None:
    for op, fields in (
        ("job.cancel", {"discard": True}),
        ("job.pause", {}),
        ("job.resume", {}),
        ("job.prioritize", {"priority": 5}),
        ("job.configure", {"max_rate": 1000}),
    ):
        part.expect(op, wire.ask(op, job=job, **fields), "unauthorized", "not_found", "queue_full")


def _reads(part: Part, wire: Wire) -> Iterator[dict[str, Any]]:
    """Ways to a file that only the daemon may read."""
    forbidden = part.given["forbidden"]
    link = os.path.join(part.given["home"], "link.gguf")
    with contextlib.suppress(FileExistsError):
        os.symlink(forbidden, link)
    for path in (forbidden, link, os.path.join(part.given["home"], "..", os.path.basename(forbidden))):
        for fields in ({}, {"link": True}, {"move": True}, {"sha256": part.given["forbidden_digest"]}):
            yield wire.ask("model.add", path=path, name="stolen", **fields)
        yield wire.ask("model.pull", ref=path, name="stolen")
        yield wire.ask("model.pull", ref=f"file://{path}", name="stolen")
