"""The async client under asyncio's own cancellation, which respects no shield."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path

import pytest

import modelclient
from modelwire import replies
from modelwire.encoding import encode
from rigs.scripted_peer import STATUS, hello_of


class Deaf:
    """A daemon that reads nothing until the test lets it; then it answers `daemon.status`."""

    def __init__(self, path: str) -> None:
        self.may_read = threading.Event()
        self.operations: list[str] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(path)
        self._door.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._door, self._door.accept()[0] as peer:
            peer.sendall(encode(hello_of()))
            self.may_read.wait(30)
            for line in peer.makefile("rb"):
                request = json.loads(line)
                self.operations.append(request["op"])
                if request["op"] == "daemon.status":
                    peer.sendall(encode(replies.Result(id=request["id"], value=STATUS)))

    def close(self) -> None:
        self.may_read.set()
        self._thread.join(30)


async def test_a_sender_that_is_cancelled_leaves_no_half_frame(room: Path) -> None:
    daemon = Deaf(str(room / "s"))
    try:
        async with modelclient.connect(str(room / "s")) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.verify(*["n" * 100] * 9000).result(), 0.1)  # more than a socket holds
            waiting = asyncio.ensure_future(client.status())
            daemon.may_read.set()
            assert await asyncio.wait_for(waiting, 20) == STATUS
        assert daemon.operations == ["model.verify", "daemon.status"]
    finally:
        daemon.close()
