"""The child by itself: the parts that it reads, what it tells of faults, and that it never outlives who wants it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from modeld.download.xet.body import COMMAND
from modeld.download.xet.child import LARGEST, SLOW_SECONDS, SMALLEST, Windows, fault_of
from modeld.download.xet.frames import DATA, END, HEADER, Order
from rigs.waiting import wait_until
from rigs.xet_rig import fake_hf_xet
from rigs.xet_server import put

MIB = 1 << 20
SECRET = "s3cr3tS3cr3tS3cr3t"


def order(**changed: object) -> bytes:
    made: Order = {
        "hash": "0" * 64,
        "size": 5 * MIB,
        "start": 0,
        "end": 5 * MIB,
        "endpoint": "http://127.0.0.1:9",
        "token": SECRET,
        "agent": "test",
        "proxies": {},
        "memory": 64 * MIB,
        "stall_seconds": 20,
    }
    return json.dumps(made | changed).encode() + b"\n"


def started(**environ: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"HF_XET_LOG_DEST": "/dev/null"} | environ
    )


def frames(output: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at < len(output):
        kind, length = HEADER.unpack_from(output, at)
        at += HEADER.size
        found.append((kind, output[at : at + length]))
        at += length
    return found


def test_a_real_local_store_is_read_in_order(tmp_path: Path) -> None:
    content = os.urandom(5 * MIB)
    xet_hash = put(tmp_path / "store", content)
    child = started(HOME=str(tmp_path / "home"))
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(order(hash=xet_hash, start=77, endpoint=f"local://{tmp_path / 'store'}"))
    child.stdin.flush()
    output = child.stdout.read()
    assert child.wait(20) == 0
    *given_out, last = frames(output)
    assert last == (END, b"")
    assert {kind for kind, _ in given_out} == {DATA}
    assert b"".join(payload for _, payload in given_out) == content[77:]
    assert not (tmp_path / "home").exists(), "it writes nothing into a home"
    child.stdin.close()
    child.stdout.close()


def test_it_ends_when_nobody_holds_the_other_end(tmp_path: Path) -> None:
    child = started(PYTHONPATH=fake_hf_xet(tmp_path / "fake", f"open({str(tmp_path / 'in')!r}, 'w'); time.sleep(600)"))
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(order())
    child.stdin.flush()
    wait_until(lambda: (tmp_path / "in").exists(), what="hf-xet being asked")
    child.stdin.close()
    assert child.wait(20) == 0
    child.stdout.close()


def test_it_ends_without_an_order() -> None:
    child = started()
    output, _ = child.communicate(timeout=20)
    assert (child.returncode, output) == (0, b"")


# -- faults


def test_a_fault_is_told_without_addresses_and_without_the_token() -> None:
    text = f"HTTP status client error (403 Forbidden), domain: https://x/y?X-Amz-Signature={SECRET} token {SECRET}"
    fault = fault_of(ConnectionError(text), SECRET)
    assert (fault["kind"], fault["status"]) == ("failed", 403)
    assert SECRET not in fault["message"]
    assert "https://" not in fault["message"]
    assert fault_of(ConnectionError("Auth error: Refresh function"), "")["status"] == 401
    assert fault_of(ModuleNotFoundError("No module named 'hf_xet'"), SECRET)["kind"] == "unusable"
    assert len(fault_of(ValueError("x" * 10_000), SECRET)["message"]) <= 300


# -- parts


@given(st.integers(0, 1 << 40), st.integers(0, 200 * MIB), st.lists(st.floats(0, 100)))
def test_the_parts_are_the_range_without_gaps(start: int, length: int, took: list[float]) -> None:
    windows = Windows(start, start + length)
    at, pace = start, iter(took)
    while (window := windows.next()) is not None:
        assert window[0] == at
        assert 0 < window[1] - at <= LARGEST
        windows.adapt(window[1] - at, next(pace, 0.0))
        at = window[1]
    assert at == start + length


def test_parts_grow_on_a_fast_network_and_shrink_on_a_slow_one() -> None:
    windows = Windows(0, 1 << 40)
    for _ in range(8):
        windows.adapt(_size(windows), 0.1)
    assert _size(windows) == LARGEST
    for _ in range(8):
        windows.adapt(_size(windows), SLOW_SECONDS + 1)
    assert _size(windows) == SMALLEST


def _size(windows: Windows) -> int:
    window = windows.next()
    assert window is not None
    return window[1] - window[0]
