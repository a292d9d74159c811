"""The log on the disk: whole lines, rising numbers, bounded files, and a daemon that goes on without it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeld.activity import Activity, Item
from modeld.activity.generations import LINE_BYTES, Replay, last_record, start_of
from rigs.activity_log import lines


def all_lines(path: str) -> list[dict[str, Any]]:
    files = [f"{path}.{n}" for n in range(99, 0, -1)] + [path]
    return [line for file in files if Path(file).exists() for line in lines(file)]


async def test_a_line_says_what_happened_in_a_fixed_order(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened(clock=lambda: 1763629200.0625)
    recorded = activity.record(
        "job.done", seconds=1.5, outcome="ok", peer=1000, model="llama", job="j1", digest=None, note=None
    )
    assert recorded.line == (
        b'{"seq":1,"time":"2025-11-20T09:00:00.062Z","event":"job.done","job":"j1","model":"llama",'
        b'"peer":1000,"outcome":"ok","seconds":1.5}'
    )
    assert (recorded.seq, recorded.event, recorded.job, recorded.model) == (1, "job.done", "j1", "llama")
    assert await activity.settled()
    assert Path(path).read_bytes() == recorded.line + b"\n"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    view = activity.view()
    assert (view.path, view.last_seq, view.lost, view.last_error) == (path, 1, 0, None)


async def test_the_times_are_of_the_moment(path: str, opened: Callable[..., Activity]) -> None:
    moments = iter([0.0, 0.999, 59.9999, 86399.5, 1763629200.0])
    activity = opened(clock=lambda: next(moments))
    times = [json.loads(activity.record("x").line)["time"] for _ in range(5)]
    assert times == [
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:00.999Z",
        "1970-01-01T00:00:59.999Z",
        "1970-01-01T23:59:59.500Z",
        "2025-11-20T09:00:00.000Z",
    ]


async def test_no_secret_reaches_the_disk_and_fields_cannot_forge_the_head(
    path: str, opened: Callable[..., Activity]
) -> None:
    activity = opened()
    activity.record("x", message="token=abc123 in\nline", nested={"password": ["p4ss"]}, seq=99, time="never")
    await activity.flush()
    raw = Path(path).read_text()
    assert "abc123" not in raw
    assert "p4ss" not in raw
    (line,) = lines(path)
    assert line["seq"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


async def test_a_record_too_long_for_a_line_keeps_its_head(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened()
    activity.record("x", job="j", outcome="o" * 5000, big=["word " * 1000] * 100)
    await activity.flush()
    (line,) = lines(path)
    assert line["event"] == "x"
    assert line["job"] == "j"
    assert line["outcome"] == "o" * 256
    assert line["cut_bytes"] > LINE_BYTES
    assert "big" not in line


async def test_it_rotates_before_a_write_that_would_pass_the_size(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened(max_bytes=2000)
    for number in range(200):
        activity.record("x", filler="y" * (number % 50))
        if number % 7 == 0:
            await activity.flush()
    await activity.settled()
    names = sorted(os.listdir(os.path.dirname(path)))
    assert names == [os.path.basename(path) + suffix for suffix in ("", ".1", ".2", ".3")]
    sizes = [os.path.getsize(path + suffix) for suffix in (".1", ".2", ".3")]
    assert all(1800 < size <= 2000 for size in sizes)
    assert os.path.getsize(path) <= 2000
    kept = [line["seq"] for line in all_lines(path)]
    assert kept == list(range(kept[0], 201))
    assert {os.stat(path + suffix).st_mode & 0o777 for suffix in ("", ".1", ".2", ".3")} == {0o600}


async def test_numbers_go_on_after_a_restart(path: str, opened: Callable[..., Activity]) -> None:
    for round_ in range(3):
        activity = opened(max_bytes=1000)
        assert activity.last_seq == round_ * 20
        for _ in range(20):
            activity.record("x")
        activity.close()
    os.truncate(path, 0)
    last_of_older = lines(path + ".1")[-1]["seq"]
    assert opened().last_seq == last_of_older


@pytest.mark.parametrize(
    ("tail", "last"),
    [
        (b"", 3),
        (b'{"seq":4,"time":"2025', 3),
        (b'{"seq":4,"time":"t","event":"whole but for its newline"}', 4),
        (b"\x00" * 5000, 3),
        (b'{"seq":4}\n', 3),
        (b"[1,2]\nnonsense\n\n\xff\xfe\n", 3),
        (b"x" * 400_000, 3),
        (b"x" * 400_000 + b"\n", 3),
        (b'{"seq":4,"event":' + b"[" * 9000 + b"]" * 9000 + b"}\n", 3),
    ],
)
async def test_a_damaged_tail_is_passed_over_and_merged_with_nothing(
    path: str, opened: Callable[..., Activity], tail: bytes, last: int
) -> None:
    first = opened()
    for _ in range(3):
        first.record("x")
    first.close()
    with open(path, "ab") as file:
        file.write(tail)
    activity = opened()
    assert activity.last_seq == last
    assert activity.record("after").seq == last + 1
    await activity.flush()
    assert json.loads(Path(path).read_bytes().splitlines()[-1])["event"] == "after"
    with activity.subscribe(0) as subscription:
        seen: list[Item] = []
        while items := await subscription.stored():
            seen.extend(items)
    assert [getattr(item, "seq", item) for item in seen] == list(range(1, last + 2))


async def test_close_writes_everything_and_what_comes_later_is_counted(
    path: str, opened: Callable[..., Activity]
) -> None:
    activity = opened()
    for _ in range(1000):
        activity.record("x")
    activity.close()
    activity.close()
    assert len(lines(path)) == 1000
    activity.record("late")
    assert activity.view().lost == 1
    assert await activity.settled() is False


async def test_no_generations_means_one_file(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened(max_bytes=500, generations=0)
    for _ in range(50):
        activity.record("x")
    await activity.flush()
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert os.path.getsize(path) <= 500


def test_the_place_after_a_number_is_found_among_many(tmp_path: Path) -> None:
    file = tmp_path / "log"
    rows = [b'{"seq":%d,"event":"%s"}\n' % (seq * 2, b"e" * (seq % 90)) for seq in range(1, 20_000)]
    rows[7000] = b"damaged " * 40_000 + b"\n"
    file.write_bytes(b"".join(rows))
    descriptor = os.open(file, os.O_RDONLY)
    try:
        for since in (0, 1, 2, 777, 13_999, 14_003, 14_010, 30_000, 39_998, 50_000):
            rest = os.pread(descriptor, 1 << 30, start_of(descriptor, since)).splitlines()
            numbers = [json.loads(row)["seq"] for row in rest if row.startswith(b"{")]
            assert [n for n in numbers if n > since] == [n for n in range(2, 40_000, 2) if n > since and n != 14_002]
            assert len(rest) < 20_000 - since / 2 + 10_000
        found = last_record(descriptor)
    finally:
        os.close(descriptor)
    assert found is not None
    assert found.seq == 39_998


def test_a_replay_closed_while_a_thread_reads_is_closed_by_that_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log"
    file.write_bytes(b'{"seq":1,"event":"x"}\n')
    descriptor = os.open(file, os.O_RDONLY)
    replay = Replay([descriptor], 0)
    real = os.pread

    def close_meanwhile(fd: int, size: int, offset: int) -> bytes:
        replay.close()
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", close_meanwhile)
    assert [record.seq for record in replay.batch()] == [1]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert replay.batch() == []


async def test_reading_during_rotations_finds_every_file_once(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened(max_bytes=300, generations=40)
    for _ in range(600):
        activity.record("x")
    await activity.flush()
    reading = True

    def read() -> list[list[int]]:
        """Until twenty rotations were met."""
        seen: list[list[int]] = []
        deadline = time.monotonic() + 60
        while len({numbers[0] for numbers in seen}) < 20:
            assert time.monotonic() < deadline
            with activity._log.replay(0) as replay:
                numbers: list[int] = []
                while batch := replay.batch():
                    numbers.extend(record.seq for record in batch)
                seen.append(numbers)
        return seen

    async def write() -> None:
        while reading:
            activity.record("x")
            await activity.flush()

    writer = asyncio.ensure_future(write())
    seen = await asyncio.to_thread(read)
    reading = False
    await writer
    for numbers in seen:
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
