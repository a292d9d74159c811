"""What hangs holds only those who need it: a log that nobody reads, a disk that takes seconds or never answers."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rigs.held_daemon import HeldDaemon
from rigs.real_daemon import RealDaemon, Wire
from rigs.real_jobs import add
from rigs.slow_disk import DaemonOnSlowDisk

SECONDS = 3_000
FOR_EVER = 600_000


@contextmanager
def unread_log(daemon: RealDaemon) -> Iterator[int]:
    """Standard error is a pipe that is full from `fill` on; nobody reads it."""
    os.mkfifo(daemon.log_path)
    reader = os.open(daemon.log_path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield reader
    finally:
        os.close(reader)


def fill(daemon: RealDaemon) -> None:
    writer = os.open(daemon.log_path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, b"\n" * size)
    finally:
        os.close(writer)


def signalled(daemon: RealDaemon) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)


def test_a_log_that_nobody_reads_delays_neither_answers_nor_a_stop(stopped: RealDaemon) -> None:
    with unread_log(stopped):
        stopped.start()
        fill(stopped)
        with stopped.connect() as wire:
            for _ in range(3):
                assert wire.ask("daemon.status")["type"] == "result"
            signalled(stopped)
            assert wire.closed()
        assert stopped.wait() == 0
    assert not os.path.lexists(stopped.socket)


def test_a_log_that_nobody_reads_does_not_delay_a_second_signal(held: HeldDaemon) -> None:
    with unread_log(held):
        held.start()
        fill(held)
        with held.connect() as wire:
            add(wire, held.file("a", b"GGUF weights"), "a")
            signalled(held)
            while wire.ask("daemon.status")["value"]["state"] != "draining":
                pass
            signalled(held)
        assert held.wait() == 128 + signal.SIGTERM


def test_a_start_that_fails_ends_though_nobody_reads_its_log(stopped: RealDaemon) -> None:
    stopped.configure("[log]\nlevel = 'none'\n")
    with unread_log(stopped):
        fill(stopped)
        assert stopped.spawn().startswith("ERROR")
        assert stopped.wait() == 2


# -- a slow disk


@pytest.fixture
def on_slow_disk(room: Path) -> Iterator[DaemonOnSlowDisk]:
    made = DaemonOnSlowDisk(str(room))
    made.start()
    for name in ("known", "other"):
        assert made.ask("model.add", path=made.file(name, b"GGUF" + name.encode()), name=name)["type"] == "result"
    Path(made.root, "locks/quarantine/20260101T000000Z-a-test.bin").write_bytes(b"bad")
    yield made
    made.close()


def unanswered(wire: Wire) -> bool:
    return not select.select([wire.socket], [], [], 0)[0]


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("model.resolve", {"name": "other"}),
        ("model.resolve", {"name": "nothing"}),
        ("model.show", {"name": "other"}),
        ("model.fit", {"name": "other"}),
        ("model.list", {}),
        ("model.copy", {"source": "other", "destination": "copy", "dry_run": True}),
        ("model.copy", {"source": "other", "destination": "copy"}),
        ("model.remove", {"name": "other"}),
        ("model.verify", {"names": ["other"]}),
        ("model.verify_signature", {"name": "other", "signature": "{}", "key": "k"}),
        ("model.pull", {"ref": "other"}),
        ("store.usage", {}),
        ("store.quarantine", {}),
        ("store.sweep", {}),
    ],
)
def test_a_slow_disk_holds_no_other_client(on_slow_disk: DaemonOnSlowDisk, op: str, fields: dict[str, object]) -> None:
    """The others are answered while the disk is still looked at."""
    with on_slow_disk.connect() as waiting, on_slow_disk.connect() as other, on_slow_disk.slow(SECONDS):
        number = waiting.request(op, **fields)
        if op == "model.remove":
            waiting.until(number, "accepted")
        status = other.ask("daemon.status")
        assert status["value"]["models"] == 2
        assert other.ask("job.list")["type"] == "result"
        assert unanswered(waiting) or waiting.read()["type"] in ("accepted", "progress")
    with on_slow_disk.connect() as wire:
        assert wire.ask("daemon.status")["type"] == "result"


def test_a_model_in_use_is_resolved_while_the_disk_hangs(on_slow_disk: DaemonOnSlowDisk) -> None:
    """What was looked at, and has not changed since, needs no look."""
    with on_slow_disk.connect() as wire, on_slow_disk.connect() as waiting:
        for _ in range(100):
            wire.ask("model.resolve", name="known")
        known = wire.ask("model.resolve", name="known", id="x")
        with on_slow_disk.slow(FOR_EVER):
            waiting.request("model.resolve", name="other")
            assert wire.ask("model.resolve", name="known", id="x") == known
            assert unanswered(waiting)


def test_a_request_that_hangs_holds_no_other_of_its_connection(on_slow_disk: DaemonOnSlowDisk) -> None:
    with on_slow_disk.connect() as wire, on_slow_disk.slow(FOR_EVER):
        hanging = [wire.request("model.show", name="other", id=f"hanging-{number}") for number in range(5)]
        assert wire.ask("daemon.status")["type"] == "result"
        for number in hanging:
            assert wire.ask("cancel", target=number)["type"] == "result"
            assert wire.terminal(number)["code"] == "cancelled"


def test_a_disk_that_never_answers_does_not_keep_the_daemon_from_ending(on_slow_disk: DaemonOnSlowDisk) -> None:
    with on_slow_disk.connect() as wire, on_slow_disk.slow(FOR_EVER):
        wire.request("model.resolve", name="other")
        with on_slow_disk.connect() as other:
            assert other.ask("daemon.status")["type"] == "result"
        signalled(on_slow_disk)
        assert on_slow_disk.wait() == 0
