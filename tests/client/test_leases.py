"""Models that are held: by a program, with both clients and with `modelctl run`, and for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

import modelclient
from modelclient.ctl.verbs.run import NOT_EXECUTABLE, NOT_FOUND
from modelwire import exits
from modelwire.errors import InUse, NotFound
from rigs.command import Ctl
from rigs.real_daemon import RealDaemon
from rigs.waiting import wait_until

Open = Callable[..., Any]

CONTENT = b"GGUF" + b"\1" * 5000


@pytest.fixture
def model(daemon: RealDaemon) -> str:
    added = daemon.ask("model.add", path=daemon.file("m.gguf", CONTENT), name="m")
    path = added["value"]["path"]
    assert isinstance(path, str)
    return path


def holders(daemon: RealDaemon, name: str = "m") -> list[dict[str, Any]]:
    return list(daemon.ask("model.show", name=name)["value"].get("holders", ()))


def test_within_the_block_the_model_stays(daemon: RealDaemon, model: str, open_client: Open) -> None:
    with open_client(daemon.socket) as client:
        with client.lease("m", purpose="a test") as lease:
            assert (lease.path, lease.state) == (model, "loaded")
            (holder,) = holders(daemon)
            assert (holder["pid"], holder["purpose"], holder["lease"]) == (os.getpid(), "a test", lease.lease)
            with pytest.raises(InUse):
                client.remove("m").result()
        assert holders(daemon) == []
        with pytest.raises(NotFound), client.lease("nothing"):
            raise AssertionError("it was granted")
        client.remove("m").result()


def test_the_block_ends_the_lease_when_it_fails(daemon: RealDaemon, model: str, open_client: Open) -> None:
    with open_client(daemon.socket) as client:
        with pytest.raises(ZeroDivisionError), client.lease("m"):
            raise ZeroDivisionError
        assert holders(daemon) == []


def test_a_block_that_outlives_the_daemon_ends_without_an_error(
    daemon: RealDaemon, model: str, open_client: Open
) -> None:
    with open_client(daemon.socket) as client, client.lease("m"):
        daemon.kill()


async def test_a_cancelled_task_gives_its_lease_back(daemon: RealDaemon, model: str) -> None:
    async with modelclient.connect(daemon.socket) as client:
        with anyio.move_on_after(10) as scope:
            async with client.lease("m"):
                scope.cancel()
                await anyio.sleep_forever()
        assert (await client.show("m")).holders == ()


def test_a_detached_lease_ends_when_it_is_released(daemon: RealDaemon, model: str, open_client: Open) -> None:
    with open_client(daemon.socket) as client:
        lease = client.acquire("m", ttl_s=600, purpose="later")
        assert lease.expires_at is not None
    with open_client(daemon.socket) as client:
        assert [holder.lease for holder in client.show("m").holders] == [lease.lease]
        assert client.release(lease.lease).lease == lease.lease
        with pytest.raises(NotFound):
            client.release(lease.lease)


def test_a_lease_ends_with_a_process_that_is_killed(daemon: RealDaemon, model: str) -> None:
    code = (
        "import sys, time, modelclient\n"
        "with modelclient.Client(sys.argv[1], start=False) as client, client.lease('m'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, daemon.socket], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert [holder["pid"] for holder in holders(daemon)] == [process.pid]
        process.kill()
    wait_until(lambda: not holders(daemon), what="the lease has ended")


# -- modelctl run


def test_the_command_gets_the_path_and_its_exit_code_counts(ctl: Ctl) -> None:
    path = ctl.json("add", ctl.file("m.gguf", CONTENT), "--name", "m")["path"]
    done = ctl("run", "m", "--", "sh", "-c", 'echo "$MODEL_PATH $1 $2"; exit 7', "sh", "-m={path}", "--x")
    assert (done.returncode, done.stdout) == (7, f"{path} -m={path} --x\n"), done
    assert ctl("run", "m", "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert ctl("run", "m", "--", "no-such-command").returncode == NOT_FOUND
    assert ctl("run", "m", "--", ctl.file("plain", b"")).returncode == NOT_EXECUTABLE
    assert ctl("run", "m").returncode == exits.USAGE
    assert ctl("run", "nothing", "--", "true").returncode == exits.NOT_FOUND
    assert ctl("show", "m", "--json").stdout.count('"holders"') == 0


def test_while_the_command_runs_the_model_cannot_be_removed_and_signals_reach_it(ctl: Ctl) -> None:
    path = ctl.json("add", ctl.file("m.gguf", CONTENT), "--name", "m")["path"]
    script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with ctl.open("run", "m", "--", "sh", "-c", script) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        refused = ctl("rm", "m")
        assert (refused.returncode, refused.stdout) == (exits.EXISTS, "")
        assert f"pid {running.pid} (sh)" in refused.stderr
        assert ctl.json("list")[0]["state"] == "loaded"
        assert str(running.pid) in ctl("show", "m").stdout
        ctl("rm", "m", "--force")
        assert ctl.json("sweep", "--grace", "0")["removed"] == 0
        assert os.path.exists(path)
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=30)
    assert (running.returncode, out) == (3, "told\n")
    assert ctl.json("sweep", "--grace", "0")["removed"] == 1
    assert not os.path.exists(path)


def test_a_signal_that_is_ignored_outside_is_ignored_by_the_command(ctl: Ctl) -> None:
    """As under nohup."""
    ctl("add", ctl.file("m.gguf", CONTENT), "--name", "m")
    script = "kill -HUP $$; kill -HUP $PPID; echo still here"

    ended = {}
    for action in (signal.SIG_IGN, signal.SIG_DFL):  # the tests may run under nohup themselves
        hangup = partial(signal.signal, signal.SIGHUP, action)
        with ctl.open("run", "m", "--", "sh", "-c", script, preexec_fn=hangup) as running:
            out, _ = running.communicate(timeout=30)
        ended[action] = running.returncode, out
    assert ended == {signal.SIG_IGN: (0, "still here\n"), signal.SIG_DFL: (128 + signal.SIGHUP, "")}


def test_the_model_is_held_again_after_the_daemon_was_restarted(ctl: Ctl) -> None:
    ctl("add", ctl.file("m.gguf", CONTENT), "--name", "m")
    with ctl.open("run", "m", "--", "sh", "-c", "echo ready; read line", stdin=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        assert ctl("stop").returncode == 0
        assert ctl("start").returncode == 0
        wait_until(lambda: ctl.json("show", "m").get("holders"), 30, "it is held again")
        _, said = running.communicate("", timeout=30)
        assert running.returncode == 1
        assert "held again" in said


def test_a_pinned_model_stays_until_it_is_unpinned(ctl: Ctl) -> None:
    ctl("add", ctl.file("m.gguf", CONTENT), "--name", "m")
    assert ctl("pin", "m").stdout == "m  pinned\n"
    assert ctl("pin", "m").stdout == "m  pinned already\n"
    refused = ctl("rm", "m")
    assert (refused.returncode, "unpin m" in refused.stderr) == (exits.EXISTS, True)
    assert ctl.json("show", "m")["pinned"] is True
    assert ctl.json("list", "--filter", "pinned=yes")[0]["name"] == "m"
    assert ctl.json("unpin", "m") | {"blob": ""} == {"name": "m", "blob": "", "pinned": False, "changed": True}
    assert ctl("rm", "m").returncode == 0
