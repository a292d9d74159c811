"""Files of which nothing tells the version: no digest, no ETag, no date. Bytes of two versions must never be mixed."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from daemon.conftest import MakeRig
from modelwire.errors import SourceUnavailable
from rigs.chaos_server import Chaos, Fault, Request
from rigs.download_rig import SIZE, content_of, digest_of, quick

CONTENT, OTHER = content_of(), content_of(seed=2)


class Unmarked(Chaos):
    """Tells no version, and has another one from the given request for bytes on."""

    def __init__(self, *faults: Fault, replaced_at: int = 1_000_000, ranges: bool = True) -> None:
        super().__init__(CONTENT, *faults, ranges=ranges)
        self.etag = None
        self.replaced_at = replaced_at
        self.starts: list[str | None] = []

    def _send_file(self, sock: socket.socket, request: Request) -> bool:
        self.starts.append(request.headers.get("range"))
        if len(self.starts) >= self.replaced_at:
            self.content = OTHER
        return super()._send_file(sock, request)


@pytest.mark.parametrize("connections", [1, 8])
def test_it_comes_in_one_answer(make_rig: MakeRig, connections: int) -> None:
    rig = make_rig(quick(connections))
    with Unmarked(replaced_at=2) as server:
        fetched = rig.fetch(replace(rig.info(server.url), size=SIZE))
        rig.commit(fetched)
    assert fetched.digest == digest_of(CONTENT)
    assert server.starts == [None]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("connections", [1, 8])
def test_what_broke_off_begins_anew(make_rig: MakeRig, connections: int, size: int | None, ranges: bool) -> None:
    rig = make_rig(quick(connections))
    with Unmarked(Fault("drop", 0.5), replaced_at=2, ranges=ranges) as server:
        fetched = rig.fetch(replace(rig.info(server.url), size=size))
        rig.commit(fetched)
    assert fetched.digest == digest_of(OTHER)
    assert "transfer.restarted" in rig.kinds()
    assert rig.leftovers() == []


def test_what_breaks_off_each_time_says_why_it_cannot_go_on(make_rig: MakeRig) -> None:
    class Fragile(Unmarked):
        def _send_file(self, sock: socket.socket, request: Request) -> bool:
            self.sent = 0  # each answer for itself comes as far as the fault
            return super()._send_file(sock, request)

    rig = make_rig()
    with Fragile(Fault("drop", 0.1, times=1_000_000)) as server:
        with pytest.raises(SourceUnavailable, match="breaks off, and without a digest, an ETag or a date the rest"):
            rig.fetch(replace(rig.info(server.url), size=SIZE))
    assert rig.kinds().count("transfer.restarted") == 3
    assert rig.space.promised == 0
    assert rig.leftovers() == []


def test_a_version_that_the_answer_tells_is_enough_to_go_on(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(CONTENT, Fault("drop", 0.5)) as server:
        fetched = rig.fetch(replace(rig.info(server.url), size=SIZE))
        rig.commit(fetched)
    assert fetched.digest == digest_of(CONTENT)
    assert "transfer.restarted" not in rig.kinds()
