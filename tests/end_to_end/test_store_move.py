"""The whole store moves while clients work: through the socket and the command, over kills, pauses and cancels."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rigs.command import Ctl
from rigs.held_daemon import HeldDaemon
from rigs.metered_server import metered
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import FOREIGN_UID, needs_root, stranger, write_access
from rigs.waiting import wait_until

MIB = 1 << 20


def add(daemon: RealDaemon, name: str, content: bytes) -> dict[str, Any]:
    reply = daemon.ask("model.add", path=daemon.file(f"{name}.gguf", content), name=name)
    assert reply["type"] == "result", reply
    value: dict[str, Any] = reply["value"]
    return value


def moved_to(daemon: RealDaemon) -> str | None:
    return os.readlink(daemon.root) if os.path.islink(daemon.root) else None


@pytest.fixture
def target(room: Path) -> str:
    (room / "big").mkdir()
    return str(room / "big" / "models")


class Clients:
    """Each works on a connection of its own, over and over, until the end of the body."""

    def __init__(self, daemon: RealDaemon) -> None:
        self.daemon = daemon
        self.wrong: list[object] = []
        self.rounds = 0
        self.added: list[str] = []
        self._stop = threading.Event()

    def resolve(self, names: list[str]) -> None:
        with self.daemon.connect() as wire:
            while not self._stop.is_set():
                for name in names:
                    reply = wire.ask("model.resolve", name=name)
                    if reply["type"] != "result":
                        self.wrong.append(reply)
                        continue
                    with open(reply["value"]["path"], "rb") as file:
                        if file.read(4) != b"GGUF":
                            self.wrong.append(reply)
                self.rounds += 1

    def add(self) -> None:
        with self.daemon.connect() as wire:
            while not self._stop.is_set():
                name = f"added{len(self.added)}"
                reply = wire.ask("model.add", path=self.daemon.file(f"{name}.gguf", b"GGUF" + name.encode()), name=name)
                if reply["type"] == "result":
                    self.added.append(name)
                else:
                    self.wrong.append(reply)

    @contextmanager
    def working(self, names: list[str]) -> Iterator[None]:
        threads = [threading.Thread(target=self.resolve, args=(names,)) for _ in range(2)]
        threads.append(threading.Thread(target=self.add))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


def test_clients_work_on_and_lose_nothing(daemon: RealDaemon, target: str) -> None:
    names = [add(daemon, f"m{number}", b"GGUF" + os.urandom(3 * MIB))["name"] for number in range(8)]
    clients = Clients(daemon)
    with daemon.connect() as holder:
        held = holder.ask("lease.acquire", name="m0", purpose="serving")["value"]
        detached = daemon.ask("lease.acquire", name="m1", purpose="a night", detached=True)["value"]
        daemon.ask("model.pin", name="m2")
        with clients.working(names):
            wait_until(lambda: len(clients.added) > 2, what="some work")
            moved = daemon.ask("store.move", path=target)
            assert moved["type"] == "result", moved
            before = clients.rounds, len(clients.added)
            wait_until(lambda: clients.rounds > before[0] + 5 and len(clients.added) > before[1] + 2, what="more work")
        assert clients.wrong == []
        assert moved_to(daemon) == target
        assert moved["value"]["former"] == f"{daemon.root}.old"
        assert daemon.ask("model.show", name="m0")["value"]["state"] == "loaded"
        assert holder.ask("lease.release", lease=held["lease"])["type"] == "result"
    assert daemon.ask("model.remove", name="m1")["code"] == "in_use"

    assert daemon.terminate() == 0
    daemon.start()
    listed = {model["name"]: model for model in daemon.ask("model.list")["value"]["models"]}
    assert listed.keys() == {*names, *clients.added}
    assert listed["m1"]["state"] == "loaded"
    assert daemon.ask("model.show", name="m2")["value"]["pinned"]
    assert daemon.ask("lease.release", lease=detached["lease"])["type"] == "result"
    job = daemon.ask("job.show", job=moved["value"]["job"])["value"]
    assert (job["state"], job["value"]["path"]) == ("done", target)
    verified = daemon.ask("model.verify", all=True)["value"]["models"]
    assert all(model["ok"] for model in verified)


def test_a_kill_during_the_copying_and_the_next_start_goes_on(held: HeldDaemon, target: str) -> None:
    held.release()
    held.start()
    for number in range(3):
        add(held, f"m{number}", b"GGUF" + os.urandom(9 * MIB))
    held.hold()
    with held.connect() as wire:
        job = wire.until(wire.request("store.move", path=target, on_disconnect="continue"), "accepted")["job"]
        wait_until(lambda: os.path.exists(f"{target}/.modeld/moving"), what="the beginning of the copy")
        held.kill()
    assert moved_to(held) is None
    held.release()
    held.start()
    with held.connect() as wire:
        ended = wire.ask("job.attach", job=job)
    assert ended["value"]["value"]["path"] == target
    assert moved_to(held) == target


def test_pause_and_resume_and_cancel_and_the_same_again(held: HeldDaemon, target: str) -> None:
    held.release()
    held.start()
    add(held, "m", b"GGUF" + os.urandom(30 * MIB))
    held.slow(0.05)
    with held.connect() as wire:
        number = wire.request("store.move", path=target)
        job = wire.until(number, "accepted")["job"]
        wait_until(lambda: held.ask("job.show", job=job)["value"]["progress"]["bytes_done"] > 0, what="the copying")
        held.ask("job.pause", job=job)
        wait_until(lambda: held.ask("job.show", job=job)["value"]["state"] == "paused", what="the pause")
        assert add(held, "meanwhile", b"GGUF meanwhile")["path"].startswith(held.root)
        view = held.ask("daemon.status")["value"]["move"]
        assert (view["job"], view["path"], view["paused"], view["former"]) == (job, target, True, [])
        assert 0 < view["bytes_done"] < view["bytes_total"]
        held.ask("job.resume", job=job)
        wait_until(lambda: held.ask("job.show", job=job)["value"]["state"] == "running", what="the copying again")
        held.ask("job.cancel", job=job)
        assert wire.terminal(number)["code"] == "cancelled"
    assert moved_to(held) is None
    held.release()
    assert held.ask("model.resolve", name="m")["type"] == "result"
    assert held.ask("store.move", path=target)["type"] == "result"
    assert moved_to(held) == target
    assert held.ask("model.resolve", name="meanwhile")["type"] == "result"


def test_a_download_gives_way_and_goes_on_there(daemon: RealDaemon, target: str) -> None:
    daemon.ask("daemon.configure", max_rate=4 * MIB)
    with metered(24 * MIB) as server, daemon.connect() as pulling:
        number = pulling.request("model.pull", ref=f"{server.url}/zeros.bin", name="zeros")
        job = pulling.until(number, "accepted")["job"]

        def arrived() -> int:
            return int(daemon.ask("job.show", job=job)["value"]["progress"]["network_bytes"])

        wait_until(lambda: arrived() > 6 * MIB, what="a part of the download")
        assert daemon.ask("store.move", path=target)["type"] == "result"
        daemon.ask("daemon.configure", max_rate=0)
        pulled = pulling.terminal(number)
        assert pulled["type"] == "result", pulled
        assert os.path.realpath(pulled["value"]["path"]).startswith(target)
        assert server.sent() < 24 * MIB + 12 * MIB, "what had arrived moved too"
    events = [line["event"] for line in daemon.activity() if line.get("job") == job]
    assert "job.yielding" in events


def test_a_job_that_began_before_is_waited_for(held: HeldDaemon, target: str) -> None:
    held.start()
    source = held.file("slow.gguf", b"GGUF" + os.urandom(9 * MIB))
    with held.connect() as adding, held.connect() as moving:
        slow = adding.request("model.add", path=source, name="slow")
        adding.until(slow, "accepted")
        number = moving.request("store.move", path=target)
        job = moving.until(number, "accepted")["job"]
        wait_until(lambda: held.ask("job.show", job=job)["value"]["state"] == "running", what="the move")
        with held.connect() as waiting:
            late = waiting.request("model.add", path=held.file("late.gguf", b"GGUF late"), name="late")
            waiting.until(late, "accepted")
            assert moved_to(held) is None
            held.release()
            assert adding.terminal(slow)["type"] == "result"
            assert moving.terminal(number)["type"] == "result"
            assert waiting.terminal(late)["type"] == "result"
    assert sorted(os.listdir(f"{target}/manifests")) == ["late.json", "slow.json"]


@needs_root
def test_another_user_cannot_have_a_directory_made(shared: RealDaemon, room: Path) -> None:
    write_access(shared, {str(FOREIGN_UID): "admin"})
    shared.start()
    with stranger(shared) as wire:
        refused = wire.ask("store.move", path=str(room / "elsewhere"))
    assert refused["code"] == "permission_denied"
    assert "only the daemon's own user and root" in refused["message"]
    assert not (room / "elsewhere").exists()


def test_the_command_moves_and_drops(tmp_path: Path) -> None:
    ctl = Ctl(tmp_path)
    try:
        (tmp_path / "a.gguf").write_bytes(b"GGUF one")
        assert ctl("add", "a.gguf").returncode == 0
        assert ctl("store", "move").returncode == 2
        assert "is not empty" in ctl("store", "move", "state").stderr
        moved = ctl("store", "move", "big")
        assert (moved.returncode, moved.stdout) == (0, f"{tmp_path}/big\n"), moved.stderr
        assert f"{tmp_path}/models leads to {tmp_path}/big now" in moved.stderr
        assert "modelctl store move --drop-old" in moved.stderr
        path = ctl("path", "a").stdout.strip()
        assert path.startswith(f"{tmp_path}/models/")
        assert Path(path).read_bytes() == b"GGUF one"
        assert f"was in {tmp_path}/models.old; to remove that" in ctl("status").stdout
        assert "not both" in ctl("store", "move", "--drop-old", "elsewhere").stderr
        dropped = json.loads(ctl("store", "move", "--drop-old", "--json").stdout)
        assert (dropped["former"], dropped["blobs"]) == (f"{tmp_path}/models.old", 1)
        assert not (tmp_path / "models.old").exists()
        again = ctl("store", "move", "--drop-old")
        assert (again.returncode, "no former directory" in again.stderr) == (3, True)
        assert "models.old" not in ctl("status").stdout
        assert ctl("store", "move", "--detach", "-q", "third").stdout.strip()
        wait_until(lambda: os.readlink(tmp_path / "models") == str(tmp_path / "third"), what="the detached move")
    finally:
        ctl("stop")


def test_an_unfinished_copy_is_no_store(stopped: RealDaemon, target: str) -> None:
    os.makedirs(f"{target}/.modeld")
    Path(f"{target}/.modeld/moving").write_text(json.dumps({"root": stopped.root}))
    stopped.environ["MODELS_HOME"] = target
    assert not stopped.spawn().startswith("READY")
    stopped.wait()
    assert f"{target} is an unfinished copy of the store at {stopped.root}" in stopped.log()
    assert os.listdir(target) == [".modeld"]
