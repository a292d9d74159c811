"""The whole store moves while a real daemon works on it: each job that was accepted ends as it would have."""

from __future__ import annotations

import json
import os

import pytest

from rigs.lock_holder import HOLD_FILE, other_process
from rigs.real_daemon import RealDaemon, Start
from rigs.waiting import wait_until


@pytest.fixture
def target(stopped: RealDaemon) -> str:
    os.mkdir(os.path.join(stopped.room, "big"))
    return os.path.join(stopped.room, "big", "models")


def test_an_add_that_waits_for_another_tool_ends_before_the_store_moves(start: Start, target: str) -> None:
    daemon = start(STORE_LOCK_WAIT="20s")
    path = daemon.file("waits.gguf", b"GGUF waits")
    with daemon.connect() as adding, daemon.connect() as moving:
        with other_process(HOLD_FILE, f"{daemon.root}/locks/waits.lock"):
            add = adding.request("model.add", path=path, name="waits")
            wait_until(lambda: os.listdir(f"{daemon.root}/.modeld/staging"), what="the copy")
            wait_until(lambda: not daemon.ask("daemon.status")["value"]["queue"]["running"], what="the add to wait")
            move = moving.request("store.move", path=target)
            moving.socket.settimeout(1)
            with pytest.raises(TimeoutError):
                moving.terminal(move)
        moving.socket.settimeout(30)
        assert adding.terminal(add)["type"] == "result"
        moved = moving.terminal(move)
        assert moved["type"] == "result", moved
    assert os.path.exists(f"{target}/manifests/waits.json")
    assert daemon.ask("model.resolve", name="waits")["type"] == "result"


def test_a_client_finds_the_daemon_by_the_lock_of_the_store_afterwards(start: Start, target: str) -> None:
    daemon = start()
    with open(f"{daemon.root}/.modeld/lock", encoding="utf-8") as file:
        before = json.load(file)
    assert daemon.ask("store.move", path=target)["type"] == "result"
    with open(f"{daemon.root}/.modeld/lock", encoding="utf-8") as file:
        after = json.load(file)
    assert (after["pid"], after["endpoint"]) == (before["pid"], before["endpoint"]) == (daemon.pid, daemon.socket)


def test_nothing_is_dropped_that_a_move_under_way_is_about_to_leave(start: Start, target: str) -> None:
    """A removal that waits for the move would take the directory that nobody has asked to remove."""
    daemon = start(STORE_LOCK_WAIT="20s")
    with daemon.connect() as moving:
        with other_process(HOLD_FILE, f"{daemon.root}/locks/waits.lock"):
            move = moving.request("store.move", path=target)
            moving.until(move, "accepted")
            wait_until(lambda: os.path.exists(f"{target}/.modeld/moving"), what="the move")
            assert daemon.ask("store.move", drop_old=True)["code"] == "in_use"
        assert moving.terminal(move)["type"] == "result"
    assert os.path.isdir(f"{daemon.root}.old")
    assert daemon.ask("store.move", drop_old=True)["type"] == "result"
    assert not os.path.exists(f"{daemon.root}.old")
