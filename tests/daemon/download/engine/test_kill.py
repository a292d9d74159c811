"""Killed in mid-transfer, it goes on: what the journal vouched for is not fetched again, counted at the server."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.conftest import MakeRig
from modeld.download.partials import journal
from modeld.store.disk.layout import Layout
from rigs import download_rig as rig_module
from rigs.chaos_server import PIECE, Chaos
from rigs.download_rig import QUICK, SIZE, content_of, digest_of, leave, quick
from rigs.rough_peers import scaled
from rigs.waiting import wait_until
from rigs.watcher import Watcher

CONTENT = content_of()
DIGEST = digest_of(CONTENT)


def start(root: Path, chaos: Chaos, digest: str, connections: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, rig_module.__file__, str(root), chaos.url, str(SIZE), digest, str(connections)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def kill_when(worker: subprocess.Popen[bytes], chaos: Chaos, sent: int) -> None:
    wait_until(lambda: chaos.sent >= sent or worker.poll() is not None, 30, "the bytes")
    worker.send_signal(signal.SIGKILL)
    worker.wait(30)
    assert worker.stdout is not None
    worker.stdout.close()


def killed_again_and_again(tmp_path: Path, chaos: Chaos, digest: str, connections: int, kills: int) -> str:
    chosen = random.Random(kills + connections)
    for number in range(kills):
        worker = start(tmp_path, chaos, digest, connections)
        kill_when(worker, chaos, SIZE * (number + 1) // (kills + 1) + chosen.randrange(SIZE // (kills + 2)))
    chaos.rate = None
    worker = start(tmp_path, chaos, digest, connections)
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0
    return output.decode().strip()


@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("known", [True, False])
def test_killed_it_goes_on(tmp_path: Path, connections: int, known: bool) -> None:
    kills = 3
    with Chaos(CONTENT, rate=(6 << 20) // connections) as chaos:
        found = killed_again_and_again(tmp_path, chaos, DIGEST.hex if known else "-", connections, kills)
        assert found == DIGEST.hex
        allowed = (QUICK.segment_bytes + QUICK.unjournalled_bytes) * connections * kills
        # The server counts in its own pieces, of which the first and last of a request may be shared.
        assert chaos.sent_twice() <= allowed + PIECE * connections * kills
        assert chaos.sent <= SIZE + allowed + PIECE * connections * kills
    with open(Layout(str(tmp_path)).blob(DIGEST), "rb") as file:
        assert file.read() == CONTENT


@pytest.mark.torture
def test_two_hundred_kills(tmp_path: Path) -> None:
    """Fifty in the short form."""
    for number in range(scaled(20, 2)):
        root = tmp_path / str(number)
        with Chaos(CONTENT, rate=4 << 20) as chaos:
            assert killed_again_and_again(root, chaos, DIGEST.hex, 1 + number % 8, 10) == DIGEST.hex


def test_resumed_bytes_are_at_least_those_that_were_journalled(tmp_path: Path, make_rig: MakeRig) -> None:
    with Chaos(CONTENT, rate=2 << 20) as chaos:
        worker = start(tmp_path / "root", chaos, DIGEST.hex, 4)
        kill_when(worker, chaos, SIZE // 2)
        path = f"{Layout(str(tmp_path / 'root')).partial_dir(DIGEST)}/journal"
        descriptor = os.open(path, os.O_RDONLY)
        told = journal.read(descriptor)
        os.close(descriptor)
        assert told is not None
        journalled = sum(piece.end - piece.start for piece in told.pieces)
        assert journalled > 0
        rig = make_rig(quick(4))
        chaos.rate = None
        watcher = Watcher()
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT), watcher=watcher))
    assert watcher.reused >= journalled
    assert watcher.network <= SIZE - journalled


def test_killed_between_sealing_and_naming(tmp_path: Path, make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(CONTENT) as chaos:
        file = rig.info(chaos.url, CONTENT)
        sealed = rig.fetch(file)
        assert os.stat(sealed.path).st_mode & 0o222 == 0
        leave(sealed)
        with open(sealed.path, "rb") as content:
            assert content.read() == CONTENT
        sent = chaos.sent
        rig.commit(rig.fetch(replace(file)))
        assert chaos.sent == sent
