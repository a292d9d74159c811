"""A file that is replaced within the second of its date, which then proves nothing: two versions are never mixed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from daemon.conftest import MakeRig
from modeld.download.source import FileInfo
from modeld.sources.parse import parse
from modeld.sources.web import WebReference, WebSource
from modelwire.errors import SourceUnavailable
from rigs.chaos_server import Chaos, Fault, Request
from rigs.download_rig import Rig, content_of, digest_of, quick

OLD, NEW = content_of(), content_of(seed=2)
AT, LATER = "Sat, 21 Nov 2026 10:00:00 GMT", "Sat, 21 Nov 2026 10:00:01 GMT"
MUCH_LATER = "Sat, 21 Nov 2026 10:05:00 GMT"


class Replaced(Chaos):
    """Runs `replacing` before its answer to request number `at` for bytes; it has no ETag but what that sets."""

    def __init__(self, replacing: Callable[[Replaced], None], *faults: Fault, at: int = 2) -> None:
        super().__init__(OLD, *faults)
        self.etag, self.modified, self.date = None, AT, AT
        self.gets = 0
        self._at = at
        self._replacing = replacing

    def _send_file(self, sock: socket.socket, request: Request) -> bool:
        if request.method == "GET":
            with self.lock:
                self.gets += 1
                if self.gets == self._at:
                    self._replacing(self)
        return super()._send_file(sock, request)


def described(rig: Rig, server: Chaos) -> FileInfo:
    reference = parse(f"{server.url}/model.gguf")
    assert isinstance(reference, WebReference)
    (file,) = WebSource(rig.client, {}).describe(reference).files
    return file


def within_the_second(server: Replaced) -> None:
    server.content = NEW


def a_second_later(server: Replaced) -> None:
    server.content, server.modified, server.date = NEW, LATER, LATER


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("faults", [[], [Fault("drop", 0.5)]])
def test_a_date_of_this_second_joins_no_two_answers(
    make_rig: MakeRig, connections: int, conditions: bool, faults: list[Fault]
) -> None:
    rig = make_rig(quick(connections))
    with Replaced(within_the_second, *(replace(fault) for fault in faults)) as server:
        server.conditions = conditions
        fetched = rig.fetch(described(rig, server))
        rig.commit(fetched)
    assert fetched.digest == digest_of(NEW if faults else OLD)


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("connections", [1, 8])
def test_a_new_version_of_this_second_is_seen_though_its_date_proves_nothing(
    make_rig: MakeRig, connections: int, conditions: bool
) -> None:
    rig = make_rig(quick(connections))
    with Replaced(a_second_later) as server:
        server.conditions, server.date = conditions, MUCH_LATER
        file = described(rig, server)
        assert file.validator == AT
        fetched = rig.fetch(file)
        rig.commit(fetched)
    assert fetched.digest == digest_of(NEW)
    assert "transfer.restarted" in rig.kinds()


def weak_tag(server: Replaced) -> None:
    server.content, server.etag, server.modified, server.date = NEW, 'W/"two"', None, None


def no_version(server: Replaced) -> None:
    server.content, server.etag, server.modified, server.date = NEW, None, None, None


@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("replacing", [weak_tag, no_version])
def test_a_whole_answer_that_does_not_show_the_version_is_not_joined(
    make_rig: MakeRig, connections: int, replacing: Callable[[Replaced], None]
) -> None:
    rig = make_rig(quick(connections))
    with Replaced(replacing, at=3) as server:
        server.etag, server.modified, server.date = '"one"', None, None
        fetched = rig.fetch(described(rig, server))
        rig.commit(fetched)
    assert fetched.digest == digest_of(NEW)


def test_an_earlier_run_that_had_a_date_of_its_second_is_not_resumed(make_rig: MakeRig) -> None:
    rig = make_rig(quick(1))
    with Replaced(within_the_second, at=1_000) as server:
        file = described(rig, server)
        assert file.validator is None
        server.faults = [Fault("drop", 0.3, times=1_000_000)]
        with pytest.raises(SourceUnavailable):
            rig.fetch(file)
        assert rig.leftovers() == []
        server.faults, server.content, server.date = [], NEW, MUCH_LATER
        fetched = rig.fetch(described(rig, server))
        rig.commit(fetched)
    assert fetched.digest == digest_of(NEW)


def test_two_tags_behind_one_date_are_two_versions(make_rig: MakeRig) -> None:
    """The description has a date alone; the answers have tags as well, and the server does not know If-Range."""

    def retag(server: Replaced) -> None:
        server.content, server.etag = NEW, '"two"'

    rig = make_rig(quick(1))
    with Replaced(retag, at=4) as server:
        server.date, server.conditions = LATER, False
        file = described(rig, server)
        server.etag = '"one"'
        fetched = rig.fetch(file)
        rig.commit(fetched)
    assert file.validator == AT
    assert fetched.digest == digest_of(NEW)
