"""Pulls that are cut short: killed, paused, cancelled, drained, interrupted. What has arrived is not fetched twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.command import COMMAND
from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, begun, gguf, hex_of, job_state, partials, pulled, put, sent
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.waiting import wait_until

needs_nginx = pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")

CONTENT = gguf(48 * MIB + 123, 11)
CONNECTIONS = 2
SLOW = 16_000_000


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as made:
        yield made


@pytest.fixture
def address(web: Nginx) -> str:
    return put(web, "big.gguf", CONTENT)


@pytest.fixture
def slow(stopped: RealDaemon) -> RealDaemon:
    stopped.environ["MODELD_TRANSFER_CONNECTIONS_PER_FILE"] = str(CONNECTIONS)
    return stopped.start()


def assert_whole(daemon: RealDaemon, name: str) -> None:
    value = daemon.ask("model.resolve", name=name)["value"]
    with open(value["path"], "rb") as file:
        assert file.read() == CONTENT


def assert_hardly_more_than_once(web: Nginx, times: int = 1) -> None:
    """What a kill may cost, and what lay in sockets when connections ended."""
    wait_until(lambda: sent(web) >= len(CONTENT), what="the server's log")
    assert sent(web) <= len(CONTENT) + times * CONNECTIONS * 16 * MIB


@needs_nginx
def test_a_daemon_that_is_killed_goes_on_where_it_was(slow: RealDaemon, web: Nginx, address: str) -> None:
    with slow.connect() as wire:
        number = wire.request("model.pull", ref=address, max_rate=SLOW, on_disconnect="continue")
        job = begun(wire, number, 36 * MIB)
        slow.kill()
    slow.start()
    assert job_state(slow, job, "done", "failed")["state"] == "done"
    assert_whole(slow, "big")
    assert_hardly_more_than_once(web)
    assert [event for event in slow.activity() if event["event"] == "transfer.resumed"]
    assert partials(slow) == []


@needs_nginx
def test_a_stop_parks_it_and_the_next_start_takes_it_up(slow: RealDaemon, web: Nginx, address: str) -> None:
    with slow.connect() as wire:
        number = wire.request("model.pull", ref=address, max_rate=SLOW, on_disconnect="continue")
        job = begun(wire, number, 20 * MIB)
        slow.ask("daemon.drain", deadline_s=0)
        assert wire.terminal(number)["code"] == "interrupted"
    assert slow.wait() == 0
    slow.start()
    assert job_state(slow, job, "done", "failed")["state"] == "done"
    assert_whole(slow, "big")
    assert_hardly_more_than_once(web)


@needs_nginx
def test_a_stop_does_not_wait_for_what_the_next_start_resumes(slow: RealDaemon, web: Nginx, address: str) -> None:
    with slow.connect() as wire:
        number = wire.request("model.pull", ref=address, max_rate=1_000_000, on_disconnect="continue")
        job = begun(wire, number, MIB)
        assert slow.ask("daemon.drain", deadline_s=3600)["value"] == {
            "running": 0,
            "waiting": 1,
            "deadline_s": 3600.0,
        }
        assert wire.terminal(number)["code"] == "interrupted"
    assert slow.wait() == 0
    slow.start()
    slow.ask("job.configure", job=job, max_rate=0)
    assert job_state(slow, job, "done", "failed")["state"] == "done"
    assert_whole(slow, "big")


@needs_nginx
def test_a_stop_waits_for_what_could_not_go_on(slow: RealDaemon, web: Nginx, address: str) -> None:
    """Its address holds a secret, which is kept nowhere: the next start could not ask with it."""
    with slow.connect() as wire:
        number = wire.request("model.pull", ref=f"{address}?token=s3cret", max_rate=SLOW)
        begun(wire, number, MIB)
        assert slow.ask("daemon.drain", deadline_s=3600)["value"]["running"] == 1
        slow.ask("job.configure", job=begun(wire, number, 2 * MIB), max_rate=0)
        assert wire.terminal(number)["type"] == "result"
    assert slow.wait() == 0


@needs_nginx
def test_paused_it_keeps_what_it_has_and_asks_for_nothing(slow: RealDaemon, web: Nginx, address: str) -> None:
    with slow.connect() as wire:
        number = wire.request("model.pull", ref=address, max_rate=SLOW)
        job = begun(wire, number, 20 * MIB)
        assert slow.ask("job.pause", job=job)["value"]["state"] == "paused"
        wait_until(lambda: partials(slow), what="a partial")
        requests = len(web.requests())
        shown = slow.ask("job.show", job=job)["value"]
        assert shown["progress"]["bytes_done"] >= 20 * MIB
        slow.ask("job.resume", job=job)
        reply = wire.terminal(number)
    assert reply["type"] == "result", reply
    assert len(web.requests()) > requests
    assert_whole(slow, "big")
    assert_hardly_more_than_once(web)


@needs_nginx
def test_cancelled_it_answers_at_once_and_the_next_pull_goes_on(slow: RealDaemon, web: Nginx, address: str) -> None:
    with slow.connect() as wire:
        number = wire.request("model.pull", ref=address, max_rate=SLOW)
        begun(wire, number, 20 * MIB)
        assert wire.ask("cancel", target=number, id="c")["type"] == "result"
        assert wire.terminal(number)["code"] == "cancelled"
    assert partials(slow)
    assert slow.ask("model.list")["value"]["models"] == []
    assert pulled(slow, address)["blob"] == f"sha256:{hex_of(CONTENT)}"
    assert_hardly_more_than_once(web)
    assert partials(slow) == []


@needs_nginx
def test_ctrl_c_keeps_the_partial_and_says_so(slow: RealDaemon, web: Nginx, address: str) -> None:
    arguments = ("pull", address, "--max-rate", "16MB", "--events")
    with subprocess.Popen(
        [*COMMAND, *arguments], env=slow.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"phase":"download"' in line and '"bytes_done":0,' not in line:
                break
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert "what has arrived is kept" in told
    assert f"modelctl pull {address}" in told
    assert partials(slow)


@needs_nginx
def test_a_reference_with_a_secret_does_not_outlive_the_daemon(slow: RealDaemon, web: Nginx, address: str) -> None:
    with slow.connect() as wire:
        secret = f"{address}?token=very-secret-token"
        number = wire.request("model.pull", ref=secret, max_rate=SLOW, on_disconnect="continue")
        job = begun(wire, number, 4 * MIB)
        slow.kill()
    slow.start()
    ended = job_state(slow, job, "done", "failed")
    assert ended["state"] == "failed"
    assert "kept nowhere" in ended["error"]["message"]
    assert pulled(slow, secret)["blob"] == f"sha256:{hex_of(CONTENT)}"


def test_files_of_a_model_that_were_complete_stay_so_after_a_kill(stopped: RealDaemon) -> None:
    small = {f"part-{number}.json": gguf(2 * MIB, 50 + number) for number in range(3)}
    files = {**small, "weights.gguf": gguf(32 * MIB, 60)}
    with Hub({"org/many": Repo(files, lfs=frozenset(files))}) as hub:
        stopped.environ |= {"HF_ENDPOINT": hub.url, "MODELD_TRANSFER_FILES_AT_ONCE": "1"}
        stopped.start()
        with stopped.connect() as wire:
            number = wire.request("model.pull", ref="hf:org/many", max_rate=SLOW, on_disconnect="continue")
            job = begun(wire, number, 12 * MIB)
            stopped.kill()
        asked = len(hub.cdn.asked)
        stopped.start()
        assert job_state(stopped, job, "done", "failed")["state"] == "done"
        assert {each.path for each in hub.cdn.asked[asked:]} == {"/org/many/weights.gguf"}
    value = stopped.ask("model.resolve", name="many")["value"]
    for path, content in files.items():
        assert Path(value["path"], path).read_bytes() == content


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a.gguf"


def test_a_pull_from_a_silent_server_is_cancelled_and_stopped_at_once(stopped: RealDaemon, silent: str) -> None:
    stopped.start("--set", "daemon.drain_deadline=1s")
    with stopped.connect() as wire:
        wire.socket.settimeout(10)  # the server would be waited for 30 s
        number = wire.request("model.pull", ref=silent)
        assert wire.until(number, "accepted")["position"] == 0
        wire.request("cancel", target=number, id="c")
        assert wire.terminal(number)["code"] == "cancelled"
        number = wire.request("model.pull", ref=silent, on_disconnect="continue")
        assert wire.until(number, "accepted")["position"] == 0
        os.kill(stopped.pid, signal.SIGTERM)
        assert wire.terminal(number)["code"] == "interrupted"
    assert stopped.wait(15) == 0
