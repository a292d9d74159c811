"""What a connection hands over belongs to the lines that announce it, and to nobody when they do not come."""

from __future__ import annotations

import os
from collections import deque

import anyio
import pytest

from modeld.access.handed import Descriptors, HandedFiles
from modeld.operations.operation import Caller
from modeld.platform import endpoint
from modeld.server.handing_over import HandingOver
from modelwire.errors import InvalidRequest, QueueFull
from modelwire.requests import FilesOffer
from rigs.waiting import eventually

UID = 2001


class Peer:
    """One connection without its socket."""

    def __init__(self, *, limit: int = 100, own: bool = False, same: bool = True) -> None:
        self.arrived = deque[endpoint.Arrived]()
        self.looks = 0
        self.sent: list[int] = []
        self._same = same
        self.files = HandingOver(self, Caller(UID, UID, "write"), Descriptors(limit), own=own)

    def sees_same_files(self) -> bool:
        self.looks += 1
        return self._same

    def send(self, count: int, *, lost: bool = False) -> None:
        descriptors = tuple(os.open("/dev/null", os.O_RDONLY) for _ in range(count))
        self.sent += descriptors
        self.arrived.append(endpoint.Arrived(descriptors, lost))
        self.files.count_arrived()

    def offer(self, *paths: str, transfer: str = "t", directory: bool = False) -> int:
        return self.files.offer(FilesOffer(id="1", transfer=transfer, paths=paths, directory=directory)).files

    def open(self) -> int:
        return sum(os.path.exists(f"/proc/self/fd/{descriptor}") for descriptor in self.sent)

    async def until_closed(self) -> None:
        await eventually(lambda: self.open() == 0)


async def test_offers_of_one_transfer_add_up_and_serve_one_request() -> None:
    peer = Peer()
    peer.send(2)
    assert peer.offer("a", "sub/b", directory=True) == 2
    peer.send(1)
    assert peer.offer("c", directory=True) == 3
    taken = peer.files.take("t")
    assert (sorted(taken.paths), taken.directory, taken.uid) == (["a", "c", "sub/b"], True, UID)
    with pytest.raises(InvalidRequest, match="no files were offered as 't'"):
        peer.files.take("t")
    peer.files.close()
    assert peer.open() == 3, "they belong to the request that took them"
    taken.close()
    await peer.until_closed()


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_another_number_than_that_of_the_paths_ends_the_connection(count: int) -> None:
    peer = Peer()
    if count:
        peer.send(count)
    with pytest.raises(InvalidRequest, match=f"2 paths, and {count} descriptors"):
        peer.offer("a", "b")
    assert peer.files.broken
    await peer.until_closed()


@pytest.mark.parametrize("path", ["/abs", "a/../b", "", "a\nb", "a\\b", "x" * 300, "a"])
async def test_a_path_that_no_model_has_closes_its_line_alone(path: str) -> None:
    peer = Peer()
    peer.send(1)
    assert peer.offer("a") == 1
    peer.send(2)
    with pytest.raises(InvalidRequest, match=r"^\$\.paths: the path"):
        peer.offer("b", path)
    assert not peer.files.broken
    await eventually(lambda: peer.open() == 1)
    peer.send(1)
    assert peer.offer("b") == 2
    peer.files.close()
    await peer.until_closed()


async def test_a_transfer_is_a_directory_or_not() -> None:
    peer = Peer()
    peer.send(1)
    peer.offer("a")
    peer.send(1)
    with pytest.raises(InvalidRequest, match=r"^\$\.directory"):
        peer.offer("b", directory=True)
    peer.files.close()
    await peer.until_closed()


async def test_too_many_files_of_a_user_are_an_error_of_their_line() -> None:
    peer = Peer(limit=3)
    peer.send(2)
    peer.offer("a", "b")
    peer.send(2)
    with pytest.raises(QueueFull):
        peer.offer("c", "d")
    assert not peer.files.broken
    peer.files.close()
    await peer.until_closed()


async def test_a_line_whose_descriptors_the_kernel_has_closed_ends_the_connection() -> None:
    peer = Peer()
    peer.send(2, lost=True)
    with pytest.raises(InvalidRequest, match="were lost"):
        peer.offer("a", "b")
    assert peer.files.broken
    await peer.until_closed()


async def test_descriptors_may_wait_for_the_rest_of_one_line() -> None:
    peer = Peer()
    assert peer.files.stray(more_to_come=False) is None
    peer.send(1)
    assert peer.files.stray(more_to_come=True) is None
    assert isinstance(peer.files.stray(more_to_come=False), InvalidRequest)
    peer.send(1)
    assert isinstance(peer.files.stray(more_to_come=True), InvalidRequest), "two lines cannot both have begun"
    peer.files.close()
    await peer.until_closed()


async def test_what_arrives_when_the_connection_is_lost_is_closed() -> None:
    peer = Peer()
    peer.send(1)
    descriptor = os.open("/dev/null", os.O_RDONLY)
    peer.sent.append(descriptor)
    peer.arrived.append(endpoint.Arrived((descriptor,), lost=False))
    peer.files.close()
    await peer.until_closed()


@pytest.mark.parametrize(("own", "same", "may"), [(True, True, True), (True, False, False), (False, True, False)])
async def test_whose_paths_are_opened_is_found_out_once(own: bool, same: bool, may: bool) -> None:
    peer = Peer(own=own, same=same)
    assert peer.looks == 0, "most connections name no path"
    assert [await peer.files.may_name_paths() for _ in range(2)] == [may, may]
    assert peer.looks == int(own)


def test_no_two_transfers_have_the_same_id() -> None:
    """Not even of two runs of the daemon: a job of an earlier run must not find the files of another."""
    made = {HandedFiles(Descriptors(), UID, directory=False).id for _ in range(100)}
    assert len(made) == 100


@pytest.mark.parametrize("fails", [False, True])
async def test_requests_that_wait_for_the_answer_go_on_in_their_order(fails: bool) -> None:
    """Jobs are admitted in the order in which they were asked for, also on a connection's first paths."""
    peer, order = Peer(own=True), list[int]()
    if fails:
        look, faults = peer.sees_same_files, [OSError("no descriptor is left")]

        def look_later() -> bool:
            if faults:
                raise faults.pop()
            return look()

        peer.sees_same_files = look_later  # type: ignore[method-assign]

    async def ask(number: int) -> None:
        try:
            assert await peer.files.may_name_paths()
        except OSError:
            assert number == 0
        order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ask, number)
    assert order == list(range(20))
    assert peer.looks == 1
