"""All attackers at once, each a process of a user of its own, while two users do their work: what that costs the two.

Prints its figures. In full it takes five minutes and needs a machine that does nothing else; the short form asserts no
time. `MODELD_ATTACK_SECONDS` gives another length.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.connect_storm import log_bytes, storm
from rigs.filesystems import FILESYSTEMS
from rigs.hostile_server import SLOW, Hostile, slowly
from rigs.other_user import file_of, home_of
from rigs.pull_rig import MIB, gguf, partials
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import ALLOW_ROOT, SHORT, Latencies, incidents, needs_root, scaled, status
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.soak_settling import resources_back
from rigs.soak_world import status_figures
from rigs.stall_probe import FIRST
from rigs.user_process import Playing, Report, playing
from rigs.waiting import wait_until

pytestmark = [needs_root, pytest.mark.torture, pytest.mark.timeout(1800)]

SECONDS = float(os.environ.get("MODELD_ATTACK_SECONDS") or scaled(300, 20))

LOOKS_P99_MS, LOOKS_LONGEST_MS = 250.0, 1000.0
"""Of a status or a resolve, where attackers, their servers and the daemon share two processors: what a person notices
just so. A daemon that one of them stops for a second fails."""

ADD_MS, PULL_MS = 10_000.0, 270_000.0
"""Of 3 MiB. An add waits for no pull. A pull waits while as many users as there are slots pull what never ends: for
their turn of two minutes, and for one of another user that waited before."""

HELD_BYTES = 4 << 30
"""Of the disk by what the attackers pull: 1 GiB allocated ahead for each of the three that run; of what waits or has
ended the bytes that came. A sweep of partials frees all of it."""

DISK = 512 << 30
"""Room for all that is claimed: on paper. The filesystem lies in a file that has only what is written."""

MEMORY_MIB = 32
"""At rest, more than a fresh daemon. Python's allocator keeps the arenas of the peak, when 640 connections were open
and twenty jobs ran: 13 MB of 38 MB were free in them, and the objects in use were 3 % more than in the fresh one. The
rest is what the system's allocator and SQLite keep."""

CLAIMED = 78_000_000_000

HONEST, FIRST_ATTACKER = 54_321, 54_400
READERS = ("connect", "hold_connections", "deaf", "filter_lists", "rubbish")
PULLERS = {
    "claim": "claim",
    "trickle": "trickle",
    "trickle in ranges": "trickle-ranges",
    "trickle in ranges too": "trickle-ranges",
}
"""Which way of the server each of them pulls. Together they may have all places in the queue, and all slots."""

WRITERS = (*PULLERS, "leave_pulls", "fail_jobs", "pause_pulls", "offer_files", "trespass")
UIDS = {name: FIRST_ATTACKER + number for number, name in enumerate(("stranger", *READERS, *WRITERS))}


class Attacked:
    """A daemon on a disk of its own, the servers that its users name, and what must be as it was in the end."""

    def __init__(self, daemon: RealDaemon) -> None:
        self.daemon = daemon
        self.forbidden = os.urandom(64 * 1024)
        self.forbidden_path = os.path.join(daemon.room, "forbidden.gguf")
        file_of(daemon.room, "forbidden.gguf", self.forbidden, 0)
        os.chmod(daemon.room, 0o755)
        roles = {str(HONEST): "write"} | {str(UIDS[name]): "read" for name in READERS}
        roles |= {str(UIDS[name]): "write" for name in WRITERS}
        users = ", ".join(f'"{uid}" = "{role}"' for uid, role in roles.items())
        # The servers of the test are on this machine. One address of it stays closed.
        daemon.configure(f'{ALLOW_ROOT}[access]\nnetworks = ["127.0.0.1/32"]\nusers = {{ {users} }}\n')
        # So short a log is rotated several times during the attack.
        daemon.environ |= {"MODELD_ACTIVITY_MAX_BYTES": "1MiB", "MODELD_STORE_MIN_FREE": "0"}
        self.homes = {uid: home_of(daemon, uid) for uid in (0, HONEST, UIDS["trespass"])}

    def begin(self, decent: Server) -> None:
        """Models of both users, each kind of work done once, and the figures of a daemon that has nothing to do."""
        self.daemon.start()
        for uid in (0, HONEST):
            with playing(self.daemon, "rigs.bystanders:keep", uid, home=self.homes[uid], url=decent.url) as keeping:
                keeping.end()
        self.models = {f"kept{uid}": self.shown(f"kept{uid}") for uid in (0, HONEST)}
        self.daemon.ask("model.verify", all=True)
        wait_until(lambda: status(self.daemon)["connections"] == 1)
        self.fresh = status_figures(self.daemon)

    def shown(self, name: str) -> tuple[bytes, bytes]:
        """The manifest of a model, and its bytes."""
        manifest = Path(self.daemon.root, "manifests", f"{name}.json").read_bytes()
        path = self.daemon.ask("model.resolve", name=name)["value"]["path"]
        return manifest, Path(path).read_bytes()

    def trespassing(self, inner: Server, mine: str, redirect: str) -> dict[str, Any]:
        root = self.daemon.root
        locks = [f"{root}/.modeld/lock", *(f"{root}/locks/{name}.lock" for name in self.models)]
        hosts = (
            f"127.0.0.2:{inner.port}",
            f"[::ffff:127.0.0.2]:{inner.port}",
            f"[::1]:{inner.port}",
            "169.254.169.254",
        )
        return {
            "locks": [*locks, f"{self.daemon.socket}.lock", f"{self.daemon.state}/activity.ndjson"],
            "models": [*self.models],
            "mine": mine,
            "home": self.homes[UIDS["trespass"]],
            "forbidden": self.forbidden_path,
            "forbidden_digest": hashlib.sha256(self.forbidden).hexdigest(),
            "closed_addresses": [f"http://{host}/m.gguf" for host in hosts] + [redirect],
        }

    def cancel_all(self) -> None:
        """The daemon's user ends what the attackers have left, as an operator would."""

        def none_open() -> bool:
            with contextlib.suppress(BlockingIOError), self.daemon.connect() as wire:
                open_ = [
                    job["id"]
                    for state in ("running", "queued", "paused")
                    for job in wire.ask("job.list", state=state, limit=1000)["value"]["jobs"]
                    if job["peer"] not in (0, HONEST)
                ]
                for job in open_:
                    wire.ask("job.cancel", job=job)
                return not open_
            return False  # some of the attackers still connect, faster than the daemon accepts

        wait_until(none_open, 60, "the end of their jobs")

    def whole(self) -> None:
        """What was there is there, and nothing of the file that only the daemon may read."""
        assert self.models == {name: self.shown(name) for name in self.models}
        named = [model["name"] for model in self.daemon.ask("model.list")["value"]["models"]]
        assert "stolen" not in named
        assert self.daemon.ask("model.verify", all=True)["value"]["ok"]
        for folder, _, names in os.walk(self.daemon.root):
            for path in (os.path.join(folder, name) for name in names):
                if os.path.getsize(path) <= 16 * MIB:
                    assert self.forbidden[:4096] not in Path(path).read_bytes(), path

    def events_of(self, uid: int, event: str) -> set[str]:
        """The jobs with such a line in the activity log, its older files included."""
        found = set()
        for path in Path(self.daemon.state).glob("activity.ndjson*"):
            if path.suffix == ".lock":
                continue
            for text in path.read_text(encoding="utf-8").splitlines():
                read = json.loads(text)
                if read["event"] == event and read.get("peer") == uid:
                    found.add(read["job"])
        return found

    def held_bytes(self) -> int:
        """What unfinished pulls have of the disk."""
        return sum(file.stat().st_blocks * 512 for path in partials(self.daemon) for file in Path(path).iterdir())


def content_of(asked: Asked) -> Reply:
    """A decent server: a file of its own for each number."""
    return file_reply(asked, gguf(3 * MIB, int(asked.path[1:].partition(".")[0])))


def harmful(server: Hostile, inner: Server, asked: Asked) -> Iterable[bytes]:
    def pause() -> bool:
        return server.closing.wait(0.1)

    match asked.path.split("/")[1]:
        case "drip-head":
            return SLOW["a head byte by byte"](pause)
        case "drip-body":
            return slowly(pause, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nGGUF", b"x")
        case "claim":
            return claiming(pause)
        case "trickle":
            return slowly(pause, b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\nGGUF", b"x" * 3000)
        case "trickle-ranges":
            return trickle_ranges(pause, asked)
        case "redirect":
            return [f"HTTP/1.1 302 Found\r\nLocation: {inner.url}/m\r\nContent-Length: 0\r\n\r\n".encode()]
    return [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]


def claiming(pause: Any) -> Iterator[bytes]:
    """Nine bytes of 78 GB, and nothing more for longer than the daemon waits."""
    yield b'HTTP/1.1 200 OK\r\nETag: "one"\r\nContent-Length: %d\r\n\r\nGGUF12345' % CLAIMED
    for _ in range(400):
        pause()
        yield b""


def trickle_ranges(pause: Any, asked: Asked) -> Iterator[bytes]:
    size, status = 9_000_000_000, "200 OK"
    start, end = 0, size
    if (wanted := asked.headers.get("Range", "")).startswith("bytes="):
        first, _, last = wanted[6:].partition("-")
        start, end = int(first), min(size, int(last or size - 1) + 1)
        status = f"206 Partial Content\r\nContent-Range: bytes {start}-{end - 1}/{size}"
    head = f'HTTP/1.1 {status}\r\nETag: "one"\r\nAccept-Ranges: bytes\r\nContent-Length: {end - start}\r\n\r\n'
    return slowly(pause, head.encode(), b"x" * 3000)


def show(name: str, report: Report) -> None:
    waits = "".join(f"\n  {what:14} {Latencies(values)}" for what, values in report.waits.items() if values)
    print(f"{name}: {dict(report.counts)}{waits}", file=sys.stderr)


@pytest.fixture
def attacked(open_room: str) -> Iterator[Attacked]:
    filesystem = FILESYSTEMS["ext4"]
    if missing := filesystem.missing(open_room):
        pytest.skip(missing)
    disk, image = f"{open_room}/disk", f"{open_room}/image"
    os.mkdir(disk)
    filesystem.make(image, DISK)
    with filesystem.mounted(image, disk):
        daemon = RealDaemon(open_room, {"MODELS_HOME": f"{disk}/models"})
        daemon.root = f"{disk}/models"
        try:
            yield Attacked(daemon)
        finally:
            daemon.close()
            shutil.rmtree(daemon.root)


@contextlib.contextmanager
def attackers(world: Attacked, inner: Server, decent: Server) -> Iterator[list[Playing]]:
    daemon = world.daemon
    with Hostile(lambda asked: harmful(server, inner, asked)) as server, contextlib.ExitStack() as parts:
        parts.enter_context(storm(daemon, [UIDS["stranger"], UIDS["connect"]], "leave"))
        trespass = world.trespassing(inner, f"{decent.url}/1.gguf", f"{server.url}/redirect/m.gguf")

        def play(name: str) -> Playing:
            fields = trespass if name == "trespass" else {"url": server.url, "path": PULLERS.get(name, "")}
            function = "keep_pulling" if name in PULLERS else name
            return parts.enter_context(playing(daemon, f"rigs.attackers:{function}", UIDS[name], **fields))

        yield [play(name) for name in (*READERS[1:], *WRITERS)]


def test_whoever_attacks_others_do_their_work(attacked: Attacked) -> None:
    world, daemon = attacked, attacked.daemon
    with (
        Server(lambda asked: file_reply(asked, world.forbidden), "127.0.0.2") as inner,
        Server(content_of) as decent,
        contextlib.ExitStack() as honest,
    ):
        world.begin(decent)
        log_before = log_bytes(daemon)
        with attackers(world, inner, decent) as attacking:

            def play(function: str, *prefix: str) -> dict[int, Playing]:
                return {
                    uid: honest.enter_context(playing(daemon, f"rigs.bystanders:{function}", uid, prefix=prefix, **own))
                    for uid, own in (
                        (uid, {"model": f"kept{uid}", "home": world.homes[uid], "url": decent.url})
                        for uid in (0, HONEST)
                    )
                }

            lookers, workers = play("look", *FIRST), play("work")
            time.sleep(SECONDS)
            figures, held = status_figures(daemon), world.held_bytes()
            looked = {uid: each.end() for uid, each in lookers.items()}
            for each in attacking:
                each.tell_to_end()
            world.cancel_all()
            said = [(each.name, each.end()) for each in attacking]
        worked = {uid: each.end() for uid, each in workers.items()}
    assert inner.asked == []
    print(f"under attack {figures}, {held / MIB:.0f} MiB of the disk are held", file=sys.stderr)
    reports = [*said, *((f"uid {uid}", report) for each in (looked, worked) for uid, report in each.items())]
    for name, report in reports:
        show(name, report)
    print(f"the log took {log_bytes(daemon) - log_before} bytes", file=sys.stderr)
    assert not any(report.wrongs for _, report in reports), [(name, report.wrongs) for name, report in reports]
    assert held <= HELD_BYTES
    for uid, report in worked.items():
        assert set(report.jobs) <= world.events_of(uid, "job.done"), "the log has lost outcomes"
        assert SHORT or (max(report.waits["add"]) <= ADD_MS and max(report.waits["pull"]) <= PULL_MS)
    for report in looked.values():
        for values in map(Latencies, report.waits.values()):
            assert SHORT or (values.p99 <= LOOKS_P99_MS and max(values.values) <= LOOKS_LONGEST_MS)
    world.whole()
    assert not incidents(daemon)

    def swept() -> bool:
        assert daemon.ask("store.sweep", grace_s=0, partials=True)["type"] == "result"
        return not partials(daemon)

    wait_until(swept, 30, "that nothing holds the partials")
    resources_back(daemon, world.fresh, MEMORY_MIB)
