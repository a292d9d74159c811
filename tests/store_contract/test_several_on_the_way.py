"""Models of several files while they are being added: progress, cancel, changes of the source."""

from __future__ import annotations

import os
from pathlib import Path

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon
from rigs.several_files import assert_nothing_there, directory, leftovers, tree_of
from rigs.waiting import wait_until
from store_contract.conftest import Ctl


def test_progress_is_that_of_all_files_and_never_steps_back(room: Path, daemon: RealDaemon) -> None:
    files = {f"part{number:02d}.bin": os.urandom(3 << 20) for number in range(20)}
    source = directory(room, files=files)
    seen = []
    with daemon.connect() as wire:
        number = wire.request("model.add", path=str(source))
        while (reply := wire.read())["type"] != "result":
            assert reply["type"] != "error", reply
            if reply["type"] == "progress" and reply["id"] == number:
                seen.append(reply)
    total = sum(map(len, files.values()))
    for counter in ("bytes_done", "verified_bytes", "committed_bytes", "files_done"):
        counts = [reply[counter] for reply in seen]
        assert counts == sorted(counts), counter
    last = seen[-1]
    assert (last["bytes_done"], last["bytes_total"], last["files_done"], last["files_total"]) == (total, total, 20, 20)
    assert last["committed_bytes"] == total
    assert all(reply["bytes_total"] in (None, total) for reply in seen)


def test_cancel_leaves_nothing(room: Path) -> None:
    held = HeldDaemon(str(room))
    try:
        held.start()
        source = directory(room, files={f"part{number}.bin": os.urandom(5 << 20) for number in range(4)})
        with held.connect() as wire:
            number = wire.request("model.add", path=str(source))
            wait_until(lambda: leftovers(held), what="a file on its way")
            assert wire.ask("cancel", target=number)["type"] == "result"
            assert wire.terminal(number)["code"] == "cancelled"
        wait_until(lambda: not leftovers(held), what="the end of the work")
        assert_nothing_there(held)
        held.release()
        assert held.ask("model.add", path=str(source))["type"] == "result"
    finally:
        held.close()


def test_a_directory_that_changes_meanwhile_is_refused(room: Path) -> None:
    held = HeldDaemon(str(room))
    try:
        held.start()
        source = directory(room, files={"a.bin": os.urandom(5 << 20), "b.bin": b"x"})
        with held.connect() as wire:
            number = wire.request("model.add", path=str(source))
            wait_until(lambda: leftovers(held), what="a file on its way")
            (source / "late.bin").write_bytes(b"late")
            held.release()
            reply = wire.terminal(number)
        assert (reply["code"], "late.bin" in reply["message"]) == ("source_unavailable", True)
        assert_nothing_there(held)
    finally:
        held.close()


def test_a_thousand_small_files(room: Path, ctl: Ctl) -> None:
    files = {f"{number % 10}/f{number:04d}.bin": b"%06d" % number * 100 for number in range(1000)}
    added = ctl.json("add", str(directory(room, files=files)))
    assert len(added["files"]) == 1000
    assert tree_of(ctl.path("gemma")) == files
    (view,) = ctl.json("list")
    assert view["state"] == "ready"
    (job,) = ctl.json("jobs")
    assert job["value"]["name"] == "gemma"
    assert ctl("rm", "gemma").returncode == 0
