"""The command and both clients with real daemons, as people and programs use them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import modelclient
from modelwire import replies
from modelwire.errors import Cancelled, ConnectionLost, DigestMismatch, NotFound
from rigs.command import Ctl
from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon
from rigs.waiting import wait_until


@pytest.fixture
def warm() -> bool:
    """Each command has a Python of its own, as people run it."""
    return False


Open = Callable[..., Any]
SLOW_BYTES = 1 << 30
"""A sparse file of a gigabyte is made in no time and hashed in half a second: long enough to interrupt."""


@pytest.fixture
def slow(ctl: Ctl) -> str:
    path = ctl.room / "slow.bin"
    with open(path, "wb") as file:
        file.truncate(SLOW_BYTES)
    return str(path)


def read_until(process: subprocess.Popen[str], event: str, seconds: float = 30.0) -> list[dict[str, Any]]:
    """What a process prints, as far as that event; it is ended when that takes too long."""
    assert process.stdout is not None
    late = threading.Timer(seconds, process.kill)
    late.start()
    seen: list[dict[str, Any]] = []
    try:
        while not seen or seen[-1].get("event") != event:
            line = process.stdout.readline()
            assert line, f"{event} did not come; {seen}"
            seen.append(json.loads(line))
    finally:
        late.cancel()
    return seen


def ended(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def busy(ctl: Ctl) -> list[dict[str, Any]]:
    return [job for job in ctl.json("jobs") if job["state"] in ("queued", "running")]


def test_from_nothing_to_a_path(ctl: Ctl) -> None:
    content = b"GGUF" + os.urandom(100_000)
    added = ctl.json("add", ctl.file("tiny.gguf", content), "--name", "tiny:1b")
    assert added["name"] == "tiny:1b"
    assert added["blob"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    done = ctl("path", "tiny:1b")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == added["path"] + "\n"
    assert Path(added["path"]).read_bytes() == content
    assert [model["name"] for model in ctl.json("list")] == ["tiny:1b"]
    assert ctl.json("show", "tiny:1b")["size_bytes"] == len(content)
    assert ctl.json("path", "tiny:1b") == {
        "name": "tiny:1b",
        "path": added["path"],
        "blob": added["blob"],
        "state": "ready",
    }
    assert ctl("path", "absent").returncode == 3
    assert ctl("add", ctl.file("other", b"x"), "--name", "tiny:1b").returncode == 5
    assert ctl("add", ctl.file("other", b"x"), "--sha256", "0" * 64).returncode == 6
    assert ctl("add", str(ctl.room / "nothing")).returncode != 0


def test_a_name_that_is_left_out_is_made_and_printed(ctl: Ctl) -> None:
    assert ctl("add", ctl.file("Some Model (v2).gguf", b"x"), "-q").stdout.strip() == ctl("list", "-q").stdout.strip()


def test_twenty_cold_clients_and_one_daemon(ctl: Ctl) -> None:
    processes = [ctl.open("start", "--json") for _ in range(20)]
    outcomes = [(*process.communicate(timeout=100), process.returncode) for process in processes]
    assert [(code, err) for _, err, code in outcomes] == [(0, "")] * 20
    pids = {json.loads(out)["pid"] for out, _, _ in outcomes}
    assert len(pids) == 1
    assert pids == {ctl.pid()}
    assert sum(json.loads(out)["started"] for out, _, _ in outcomes) >= 1
    assert ctl.json("status")["auto_started"] is True


def test_stop_returns_when_the_daemon_is_gone(ctl: Ctl) -> None:
    pid = ctl.json("start")["pid"]
    stopped = ctl.json("stop")
    assert stopped["pid"] == pid
    assert ended(pid)
    assert not os.path.lexists(ctl.socket)
    assert ctl("status").returncode == 9
    assert ctl.json("start")["pid"] != pid  # its locks are free at once


def test_a_killed_daemon_is_replaced(ctl: Ctl) -> None:
    pid = ctl.json("start")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: ctl("status").returncode == 9, what="the end of the daemon")
    assert os.path.lexists(ctl.socket)
    assert ctl.json("start")["started"] is True


def test_a_shell_with_another_runtime_directory_finds_the_daemon_of_its_store(ctl: Ctl) -> None:
    pid = ctl.json("start")["pid"]
    elsewhere = ctl.room / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    environ = {"XDG_RUNTIME_DIR": str(elsewhere)}
    for line in ("start", f"add {ctl.file('m.gguf', b'weights')}", "path m", "stop"):
        done = ctl(*line.split(), "--json", environ=environ)
        assert done.returncode == 0, done.stderr
        if line != "path m" and "add" not in line:
            assert json.loads(done.stdout)["pid"] == pid
    assert ended(pid)
    assert ctl("status", environ=environ).returncode == 9
    assert os.listdir(elsewhere) == []


def test_an_endpoint_at_which_none_can_be_started_is_named(ctl: Ctl) -> None:
    socket = ctl.json("start")["socket"]
    done = ctl("list", "--socket", str(ctl.room / "nowhere" / "x.sock"))
    assert done.returncode == 9
    words, hint = done.stderr.splitlines()
    assert words.startswith(f"modelctl: no daemon runs at {ctl.room}/nowhere/x.sock, and none can be started there: ")
    assert f"--socket {socket}" in hint
    assert not (ctl.room / "nowhere").exists()


def test_nothing_is_added_to_a_store_that_was_not_meant(ctl: Ctl) -> None:
    ctl("start")
    environ = {"MODELS_HOME": str(ctl.room / "mine")}
    done = ctl("add", ctl.file("m.gguf", b"weights"), environ=environ)
    assert done.returncode == 2
    assert str(ctl.room / "mine") in done.stderr
    assert str(ctl.room / "models") in done.stderr
    assert ctl.json("list") == []
    assert ctl("stop", environ=environ).returncode == 0  # as the hint says
    assert ctl("start", environ=environ).returncode == 0
    added = ctl("add", str(ctl.room / "m.gguf"), "--json", environ=environ)
    assert json.loads(added.stdout)["path"].startswith(str(ctl.room / "mine"))


def test_a_service_account_without_a_home_has_all_of_it_in_the_store(ctl: Ctl) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        del ctl.environ[name]
    ctl.environ["MODELS_HOME"] = store = str(ctl.room / "store")
    assert ctl.json("add", ctl.file("m.gguf", b"weights"))["name"] == "m"
    assert ctl.json("status")["log"]["path"] == f"{store}/.modeld/state/activity.ndjson"
    assert "daemon.log" in os.listdir(f"{store}/.modeld/state")
    assert ctl("sweep", "--grace", "0").returncode == 0
    assert ctl("stop").returncode == 0
    assert ctl.json("path", "m")["path"].startswith(store)  # the next start finds all of it


def test_a_root_that_cannot_be_made_ends_with_the_daemons_words(ctl: Ctl) -> None:
    done = ctl("list", environ={"MODELS_HOME": "/proc/models"})
    assert done.returncode in (1, 13)
    what, what_next = done.stderr.splitlines()
    assert "/proc/models" in what
    assert what_next.startswith("hint: ")
    assert ctl("status").returncode == 9


def test_ctrl_c_ends_the_job(ctl: Ctl, slow: str) -> None:
    ctl("start")
    with ctl.open("add", slow, "--name", "slow") as process:
        wait_until(lambda: busy(ctl), what="the job")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == f"hint: To go on, run `modelctl add {slow} --name slow` again."
    # The request ends at once; the work stops at its next check.
    wait_until(lambda: [job["state"] for job in ctl.json("jobs")] == ["cancelled"], what="the end of the job")
    assert ctl("path", "slow").returncode == 3


def test_detach_then_attach(ctl: Ctl, slow: str) -> None:
    ctl("start")
    job = ctl("add", slow, "--name", "slow", "--detach").stdout.strip()
    done = ctl("attach", job, "--json")
    assert done.returncode == 0
    view = json.loads(done.stdout)
    assert (view["id"], view["state"], view["value"]["name"]) == (job, "done", "slow")
    assert ctl.json("job", job)["state"] == "done"
    assert ctl("path", "slow").returncode == 0


def test_a_job_can_be_cancelled_from_elsewhere(ctl: Ctl, slow: str) -> None:
    ctl("start")
    job = ctl("add", slow, "--detach").stdout.strip()
    assert ctl.json("cancel", job)["state"] == "cancelled"
    done = ctl("attach", job)
    assert done.returncode == 1
    assert done.stderr.startswith("modelctl: ")


def test_pause_and_resume(ctl: Ctl, slow: str) -> None:
    ctl("start")
    job = ctl("add", slow, "--name", "slow", "--detach").stdout.strip()
    assert ctl.json("pause", job)["state"] == "paused"
    assert ctl.json("resume", job)["state"] in ("queued", "running", "done")
    assert ctl("attach", job).returncode == 0


def test_the_log_and_the_watcher_tell_the_same(ctl: Ctl) -> None:
    ctl("start")
    with ctl.open("watch", "--events") as watcher:
        wait_until(lambda: ctl.json("status")["watchers"] == 1, what="the watcher")
        ctl("add", ctl.file("x.gguf", b"GGUF" * 1000), "--name", "x")
        seen = read_until(watcher, "job.done")
        watcher.send_signal(signal.SIGINT)
        watcher.communicate(timeout=30)
    assert watcher.returncode == 130
    logged = json.loads(ctl("log", "--json", "-n", "1000").stdout)
    watched = [line for line in seen if "event" in line]
    assert [line for line in logged if line["seq"] >= watched[0]["seq"]][: len(watched)] == watched
    assert [line["seq"] for line in logged] == list(range(1, len(logged) + 1))
    after = json.loads(ctl("log", "--json", "--since", str(watched[-1]["seq"] - 1)).stdout)
    assert after[0]["seq"] == watched[-1]["seq"]


def test_log_follows(ctl: Ctl) -> None:
    ctl("start")
    with ctl.open("log", "-f", "--events") as follower:
        assert read_until(follower, "daemon.started")[0]["seq"] == 1
        ctl("add", ctl.file("x", b"x"), "--name", "x")
        assert read_until(follower, "job.done")[-1]["model"] == "x"
        follower.kill()


def test_a_program_adds_and_resolves(daemon: RealDaemon, open_client: Open) -> None:
    path = daemon.file("m.gguf", b"GGUF" + b"\1" * 5000)
    with open_client(daemon.socket) as client:
        adding = client.add(path, name="m")
        seen = list(adding)
        added = adding.result()
        assert isinstance(seen[0], replies.Accepted)
        assert added.name == "m"
        assert client.resolve("m").path == added.path
        assert client.status().models == 1
        assert client.job(adding.job).state == "done"
        assert "model.add" in client.describe().operations
        with pytest.raises(NotFound):
            client.show("nothing")
        with pytest.raises(DigestMismatch):
            client.add(path, name="n", sha256="0" * 64).result()


def test_leaving_work_early_cancels_its_job(daemon: RealDaemon, open_client: Open) -> None:
    path = os.path.join(daemon.room, "slow.bin")
    with open(path, "wb") as file:
        file.truncate(SLOW_BYTES)
    with open_client(daemon.socket) as client:
        with client.add(path, name="slow") as adding:
            job = adding.accepted().job
        wait_until(lambda: client.job(job).state == "cancelled", what="the cancelled job")
        adding = client.add(path, name="slow")
        adding.accepted()
        adding.cancel()
        with pytest.raises(Cancelled):
            adding.result()


def test_work_survives_its_client_on_request(daemon: RealDaemon, open_client: Open) -> None:
    path = os.path.join(daemon.room, "slow.bin")
    with open(path, "wb") as file:
        file.truncate(SLOW_BYTES)
    with open_client(daemon.socket) as client:
        job = client.add(path, name="slow", on_disconnect="continue", token="once").accepted().job
    with open_client(daemon.socket) as client:
        again = client.add(path, name="slow", token="once")
        assert again.accepted().job == job
        assert again.result().name == "slow"
        assert client.attach(job).result().state == "done"


def test_work_that_was_detached_survives_its_client(held: HeldDaemon, open_client: Open) -> None:
    held.start()
    with open_client(held.socket) as client:
        adding = client.add(held.file("m", b"weights"), name="m")
        job = adding.accepted().job
        adding.detach()
    with open_client(held.socket) as client:
        wait_until(lambda: client.job(job).watchers == 0, what="the client to have left")
        assert client.job(job).on_disconnect == "continue"
        held.release()
        assert client.attach(job).result().state == "done"


def test_events_fill_the_gap_from_the_log(daemon: RealDaemon, open_client: Open) -> None:
    with open_client(daemon.socket) as client:
        for number in range(5):
            client.add(daemon.file(f"f{number}", b"%d" % number)).result()
        events = list(client.subscribe(since=0, follow=False))
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert sum(event.event == "job.done" for event in events) == 5


def test_a_killed_daemon_is_noticed(daemon: RealDaemon, open_client: Open) -> None:
    with open_client(daemon.socket) as client:
        events = client.subscribe()
        client.status()
        daemon.kill()
        with pytest.raises(ConnectionLost):
            list(events)
        with pytest.raises(ConnectionLost):
            client.status()


def test_no_descriptor_is_left(daemon: RealDaemon, open_client: Open) -> None:
    with open_client(daemon.socket) as client:
        client.status()
        before = len(os.listdir("/proc/self/fd"))
        at_daemon = daemon.descriptors()
        for _ in range(5):
            with modelclient.Client(daemon.socket) as other:
                other.status()
        assert len(os.listdir("/proc/self/fd")) == before
        wait_until(lambda: daemon.descriptors() == at_daemon, what="the daemon's descriptors")


async def test_one_async_client_serves_many_tasks(daemon: RealDaemon) -> None:
    paths = [daemon.file(f"m{number}", os.urandom(1000)) for number in range(30)]
    names: list[str] = []

    async def add(client: modelclient.AsyncClient, path: str) -> None:
        added = await client.add(path)
        names.append((await client.resolve(added.name)).name)

    async with modelclient.connect(daemon.socket) as client, anyio.create_task_group() as tasks:
        for path in paths[:10]:
            tasks.start_soon(add, client, path)
    assert len(set(names)) == 10


async def test_a_cancelled_task_cancels_its_work_and_nothing_else(daemon: RealDaemon) -> None:
    path = os.path.join(daemon.room, "slow.bin")
    with open(path, "wb") as file:
        file.truncate(SLOW_BYTES)
    async with modelclient.connect(daemon.socket) as client:
        with anyio.CancelScope() as scope:
            async with client.add(path, name="slow") as adding:
                async for _ in adding:
                    scope.cancel()
        assert scope.cancelled_caught
        with anyio.fail_after(20):  # not attached to: that would keep it going
            while (await client.job(adding.job or "")).state != "cancelled":  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert (await client.status()).models == 0


async def test_an_error_in_the_body_stays_what_it_is(daemon: RealDaemon) -> None:
    async def fail() -> None:
        async with modelclient.connect(daemon.socket) as client:
            await client.status()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
