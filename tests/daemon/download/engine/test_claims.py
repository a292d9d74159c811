"""A server that claims a huge file and sends little of it: its space is reserved, and the disk stays free."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from daemon.conftest import MakeRig
from modeld.download.source import FileInfo
from modeld.download.tuning import MIB, SHORT
from modeld.progress import Stopped
from modeld.store.disk import durable
from rigs.chaos_server import Chaos
from rigs.download_rig import QUICK, Rig, content_of, digest_of, quick
from rigs.hostile_server import Hostile, slowly
from rigs.scripted_server import Scripted
from rigs.waiting import wait_until
from rigs.watcher import Watcher

CLAIMED = 1 << 36
AHEAD = 2 * MIB


class Stoppable(Watcher):
    ends = False

    def stopped(self) -> bool:
        return self.ends


@contextmanager
def fetching(rig: Rig, file: FileInfo) -> Iterator[None]:
    """The download runs until the end of the block, and is stopped then."""
    watcher, ended = Stoppable(), list[type[BaseException]]()

    def fetch() -> None:
        try:
            rig.fetch(file, watcher=watcher)
        except BaseException as fault:
            ended.append(type(fault))

    thread = threading.Thread(target=fetch)
    thread.start()
    try:
        yield
    finally:
        watcher.ends = True
        thread.join(20)
    assert ended == [Stopped]


def claimed(rig: Rig, sent: bytes, begun: Callable[[Path], object]) -> Path:
    """The partial of a download that was left once `begun` came true of it."""
    head = f'HTTP/1.1 200 OK\r\nETag: "one"\r\nContent-Length: {CLAIMED}\r\n\r\n'.encode()
    data = Path(rig.layout.partial(digest_of(b"")))
    with Hostile(lambda _: slowly(server.pause, head + sent, b"x")) as server:
        file = replace(rig.info(server.url, ranges=False), size=CLAIMED, digest=digest_of(b""))
        with fetching(rig, file):
            wait_until(lambda: server.asked, what="the request")
            wait_until(lambda: begun(data), what="the beginning")
            assert data.stat().st_blocks * 512 <= len(sent) + 2 * AHEAD
            assert rig.space.promised == CLAIMED
    assert rig.space.promised == 0
    return data


def test_a_claim_reserves_space_and_does_not_take_it(make_rig: MakeRig) -> None:
    rig = make_rig(replace(QUICK, allocated_ahead_bytes=AHEAD, stall_seconds=20.0))
    claimed(rig, b"GGUF", lambda data: data.exists() and rig.space.promised)


def test_what_is_left_of_a_claim_holds_the_bytes_that_came_and_no_more(make_rig: MakeRig) -> None:
    """Otherwise a user who leaves one pull after the other fills the disk with nothing."""
    rig = make_rig(replace(QUICK, allocated_ahead_bytes=AHEAD, stall_seconds=20.0))
    data = claimed(rig, b"GGUF" * MIB, lambda data: data.exists() and data.read_bytes().startswith(b"GGUF"))
    assert MIB <= data.stat().st_size <= 5 * MIB
    assert data.stat().st_blocks * 512 <= 5 * MIB
    assert data.read_bytes().rstrip(b"x") == (b"GGUF" * MIB)[: data.stat().st_size]


@pytest.mark.parametrize("preallocates", [True, False])
def test_a_file_is_allocated_in_few_steps_and_settled_exactly(make_rig: MakeRig, preallocates: bool) -> None:
    rig, content = make_rig(replace(QUICK, allocated_ahead_bytes=MIB)), content_of(24 * MIB + 7)
    asked, real = list[int](), durable.preallocate

    def preallocate(descriptor: int, size: int) -> bool:
        asked.append(size)
        return preallocates and real(descriptor, size)

    with Chaos(content) as chaos, mock.patch.object(durable, "preallocate", preallocate):
        fetched = rig.fetch(rig.info(chaos.url, content))
        assert rig.space._unwritten == 0, "every byte is on the disk"
        assert rig.space.promised == len(content)
        rig.commit(fetched)
    if preallocates:
        assert asked == sorted(asked)
        assert len(asked) <= 8
        assert asked[-1] == len(content)
    else:
        assert asked == [MIB]


def slices(content: bytes, length: int) -> Callable[[str, dict[str, str]], str]:
    """Answers with so many bytes, whatever the request asks for."""

    def answer(_target: str, headers: dict[str, str]) -> str:
        start, end = map(int, headers["range"].removeprefix("bytes=").split("-"))
        given = content[start : min(end + 1, start + length)].decode("latin-1")
        told = f"Content-Range: bytes {start}-{start + len(given) - 1}/{len(content)}\r\nContent-Length: {len(given)}"
        return f'HTTP/1.1 206 Partial Content\r\nETag: "one"\r\n{told}\r\n\r\n{given}'

    return answer


def test_a_server_that_gives_a_byte_at_a_time_is_asked_now_and_then(make_rig: MakeRig) -> None:
    """Each answer costs a request, and would cost a line of the journal that is longer than what came."""
    content, pause = content_of(MIB), 0.05
    rig = make_rig(replace(quick(2), short_answer_seconds=pause))
    with Scripted(slices(content, 1)) as server:
        file = replace(rig.info(f"{server.url}/m.gguf"), size=MIB, digest=digest_of(content))
        began = time.monotonic()
        with fetching(rig, file):
            wait_until(lambda: len(server.seen) >= 60, what="sixty requests")
        assert len(server.seen) <= 2 * (2 + (time.monotonic() - began) / pause)
    journal = Path(rig.layout.partial(digest_of(content))).with_name("journal").read_text()
    assert journal.count('"piece"') == 2, "one for each connection"


@pytest.mark.parametrize("length", [SHORT, SHORT + 1])
def test_a_server_with_slices_of_a_fixed_size_is_asked_at_once(make_rig: MakeRig, length: int) -> None:
    content = content_of(MIB)
    rig = make_rig(replace(quick(1), short_answer_seconds=60.0))
    with Scripted(slices(content, length)) as server:
        file = replace(rig.info(f"{server.url}/m.gguf"), size=MIB, digest=digest_of(content))
        assert rig.fetch(file).digest == digest_of(content)
