"""A file far larger than memory: the resources that it takes, its progress reports, and how fast it stops.

20 GB, of which four are real data; `MODELD_TORTURE=short` makes it 2, with a quarter of real data.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon, Wire
from rigs.rough_peers import scaled
from rigs.several_files import assert_nothing_there
from rigs.waiting import wait_until

pytestmark = pytest.mark.torture

MIB = 1 << 20
SIZE = scaled(20_000, 2_000) * 10**6
REAL = scaled(4_000, 250) * 10**6
PIECE = 10**6
MEMORY = 80 * MIB
COUNTERS = ("bytes_done", "verified_bytes", "reused_bytes", "committed_bytes", "files_done")


@pytest.fixture
def big(room: Path, stopped: RealDaemon) -> Iterator[str]:
    """Real data in pieces all over the file, holes between them. Nothing of it stays when the test has ended."""
    path = room / "big.gguf"
    pieces = REAL // PIECE
    with path.open("wb") as file:
        file.write(b"GGUF")
        for number in range(pieces):
            file.seek(number * (SIZE // pieces) + 4)
            file.write(os.urandom(PIECE))
        file.truncate(SIZE)
    yield str(path)
    stopped.close()
    path.unlink(missing_ok=True)
    shutil.rmtree(stopped.root)


def peak_memory(daemon: RealDaemon) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{daemon.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def followed(wire: Wire, number: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The terminal reply, and the progress before it."""
    seen: list[dict[str, Any]] = []
    wire.socket.settimeout(300)
    while (reply := wire.read())["type"] not in ("result", "error"):
        if reply["type"] == "progress" and reply["id"] == number:
            seen.append(reply)
    return reply, seen


def assert_steady(seen: list[dict[str, Any]]) -> None:
    for counter in COUNTERS:
        counts = [reply[counter] for reply in seen]
        assert counts == sorted(counts), counter
    assert len({reply["bytes_done"] for reply in seen}) > 3, "progress is reported during the work, not only at the end"
    assert seen[-1]["bytes_done"] == seen[-1]["bytes_total"] == SIZE


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_a_big_file_takes_little_memory_and_tells_how_far_it_is(daemon: RealDaemon, big: str, how: str) -> None:
    with open(big, "rb") as file:
        expected = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    with daemon.connect() as wire:
        options = {} if how == "copy" else {how: True}
        reply, seen = followed(wire, wire.request("model.add", path=big, name="big", **options))
    assert reply["type"] == "result", reply
    assert_steady(seen)
    assert reply["value"]["size_bytes"] == os.stat(reply["value"]["path"]).st_size == SIZE
    assert os.path.exists(big) == (how != "move")
    assert reply["value"]["blob"] == expected
    assert peak_memory(daemon) < MEMORY
    with daemon.connect() as wire:
        reply, _ = followed(wire, wire.request("model.verify", names=["big"]))
    assert (reply["type"], reply["value"]["ok"]) == ("result", True)
    assert peak_memory(daemon) < MEMORY
    print(f"{how}: {len(seen)} steps of progress, at most {peak_memory(daemon) / MIB:.1f} MiB of memory")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_a_big_file_is_let_go_at_once_and_leaves_no_byte(daemon: RealDaemon, big: str, how: str) -> None:
    before = os.stat(big)
    waits = []
    for _round in range(3):
        with daemon.connect() as wire:
            options = {} if how == "copy" else {how: True}
            number = wire.request("model.add", path=big, name="big", **options)
            while True:
                reply = wire.read()
                assert reply["type"] in ("accepted", "progress"), reply
                if reply["type"] == "progress" and reply["bytes_done"] > SIZE // 20:
                    break
            started = time.monotonic()
            wire.request("cancel", target=number)
            assert wire.terminal(number)["code"] == "cancelled"
            waits.append(time.monotonic() - started)
        wait_until(lambda: not os.listdir(f"{daemon.root}/.modeld/staging"), what="the end of the work")
        assert_nothing_there(daemon)
    # Asked of the median, and generously: the machine has other things to do. 0.2 s is the promise.
    assert sorted(waits)[1] < 1.0, waits
    after = os.stat(big)
    assert (after.st_mode, after.st_nlink, after.st_size) == (before.st_mode, before.st_nlink, SIZE)
    print(f"{how}: cancel answered after", [round(wait, 3) for wait in waits])
