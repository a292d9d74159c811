"""Each step that copying, moving, removing, sweeping and verifying take on the disk fails once, and is the last once.

Whatever fails: an error of the wire or success, no model without its bytes, no temporary left, and the same request
succeeds afterwards. `python test_faults.py DIRECTORY VERB N` dies at the N-th step.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.platform import durable as calls
from modeld.store.disk import durable, removal
from modelwire.errors import WireError
from modelwire.values import Moved
from rigs.forked import forked
from rigs.maintain_rig import Bench
from rigs.publication_rig import COUNTED, Faults, FaultyLibc

STEPS = COUNTED | {"rmdir", "listdir"}
CODES = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}


class FaultyOs:
    """Stands where the modules that change the disk see the module os."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in STEPS:
            return real

        def call(*arguments: object, **named: object) -> object:
            if name == "close":  # a close that fails has closed the descriptor nonetheless
                real(*arguments)
                self._faults(name)
                return None
            self._faults(name)
            return real(*arguments, **named)

        return call


def plant(faults: Faults, put: Callable[[Any, str, Any], None]) -> None:
    put(durable, "os", FaultyOs(faults))
    put(calls, "os", FaultyOs(faults))
    put(removal, "os", FaultyOs(faults))
    put(calls, "_LIBC", FaultyLibc(calls._LIBC, faults))


# -- what is done, and what has to be so in between and at the end


@dataclass(frozen=True)
class Case:
    prepare: Callable[[Bench], Awaitable[None]]
    act: Callable[[Bench], Awaitable[object]]
    holds: Callable[[Bench], None]
    """After the fault."""
    done: Callable[[Bench], None]
    """After the same request again."""
    goes_on: Callable[[Bench], Awaitable[object]]
    """What a restart does about work that was cut short."""


def whole(bench: Bench, *names: str) -> None:
    for name in names:
        assert Path(bench.store.index.resolve(name).path).read_bytes() == CONTENT


def some(bench: Bench, *names: str) -> None:
    there = [name for name in names if name in bench.names()]
    assert there
    whole(bench, *there)


CONTENT = b"GGUF weights"


async def one_model(bench: Bench) -> None:
    await bench.add("a", CONTENT)


async def much_to_sweep(bench: Bench) -> None:
    await bench.add("a", CONTENT)
    bench.plant(b"loose 1")
    bench.plant(b"loose 2")
    (Path(bench.layout.quarantine_dir) / "20200101T000000Z-x.bin").write_bytes(b"old")


async def a_corrupt_model(bench: Bench) -> None:
    added = await bench.add("a", CONTENT)
    await bench.add("b", b"good")
    bench.spoil(added.path)


def nothing_bad_in_use(bench: Bench) -> None:
    """The bad bytes are somewhere, once; the good model is good."""
    lying = [path for path in bench.blobs() if Path(path).read_bytes().startswith(b"XXXX")]
    assert len(lying) + len(bench.quarantined()) == 1
    assert Path(bench.store.index.resolve("b").path).read_bytes() == b"good"


def set_aside(bench: Bench) -> None:
    nothing_bad_in_use(bench)
    assert bench.quarantined() == [b"XXXX weights"]
    assert "corrupt" in str(bench.store.models.view("a").reason)


def swept(bench: Bench) -> None:
    whole(bench, "a")
    assert len(bench.blobs()) == 1
    assert bench.quarantined() == []


async def goes_on_moving(bench: Bench) -> None:
    size = len(CONTENT)
    value = Moved(name="b", source="a", blob=bench.plant(CONTENT).text, size_bytes=size)
    if not bench.store.renaming.moved(value):
        await bench.store.renaming.move("a", "b", earlier=value)


async def goes_on_copying(bench: Bench) -> None:
    if "b" not in bench.names():
        await bench.store.renaming.copy("a", "b")


async def goes_on_removing(bench: Bench) -> None:
    if "a" in bench.names():
        await bench.store.renaming.remove("a")


def names_are(*names: str) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        assert bench.names() == [*names]
        whole(bench, *names)
        assert bench.staged() == []

    return check


CASES = {
    "cp": Case(
        one_model,
        lambda bench: bench.store.renaming.copy("a", "b"),
        lambda bench: whole(bench, *bench.names()),
        names_are("a", "b"),
        goes_on_copying,
    ),
    "mv": Case(
        one_model,
        lambda bench: bench.store.renaming.move("a", "b"),
        lambda bench: some(bench, "a", "b"),
        names_are("b"),
        goes_on_moving,
    ),
    "rm": Case(
        one_model,
        lambda bench: bench.store.renaming.remove("a"),
        lambda bench: whole(bench, *bench.names()),
        names_are(),
        goes_on_removing,
    ),
    "sweep": Case(
        much_to_sweep,
        lambda bench: bench.store.sweeper.sweep(),
        lambda bench: whole(bench, "a"),
        swept,
        lambda bench: bench.store.sweeper.sweep(),
    ),
    "verify": Case(
        a_corrupt_model,
        lambda bench: bench.store.verifier.verify(),
        nothing_bad_in_use,
        set_aside,
        lambda bench: bench.store.verifier.verify(),
    ),
}


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Callable[[int], Bench]]:
    made: list[Bench] = []

    def make(nth: int) -> Bench:
        directory = tmp_path / str(nth)
        directory.mkdir(exist_ok=True)
        made.append(Bench(directory))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("verb", CASES)
async def test_each_step_fails_once(
    benches: Callable[[int], Bench], monkeypatch: pytest.MonkeyPatch, verb: str, code: str
) -> None:
    def strike(_name: str) -> None:
        raise OSError(CODES[code], os.strerror(CODES[code]))

    case = CASES[verb]
    for nth in range(1, 200):
        bench, faults = benches(nth), Faults(nth, strike)
        await case.prepare(bench)
        descriptors = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patched:
            plant(faults, patched.setattr)
            failed = False
            try:
                await case.act(bench)
            except WireError:
                failed = True
        case.holds(bench)
        assert len(os.listdir("/proc/self/fd")) == descriptors, faults.struck
        if not faults.struck:
            assert not failed
            assert nth > 2
            case.done(bench)
            return
        if failed or verb in ("sweep", "verify"):
            await case.act(bench)
        if faults.struck == ["unlink"] and bench.staged():
            continue  # the temporary that could not be removed waits for the next start
        case.done(bench)
    pytest.fail("the sweep has no end")


@pytest.mark.parametrize("verb", CASES)
async def test_killed_at_each_step(benches: Callable[[int], Bench], verb: str) -> None:
    """What a start finds afterwards is whole, and work that goes on ends where it should."""
    case = CASES[verb]
    with forked(__file__, "act_and_die") as run:
        for nth in range(1, 200):
            bench = benches(nth)
            await case.prepare(bench)
            bench.close()
            outcome = await anyio.to_thread.run_sync(run, str(bench.directory), verb, str(nth))
            assert outcome.returncode in (0, 137), outcome.stderr
            bench.open()
            case.holds(bench)
            await case.goes_on(bench)
            case.done(bench)
            if outcome.returncode == 0:
                assert nth > 2
                return
    pytest.fail("the sweep has no end")


def act_and_die(directory: str, verb: str, nth: str) -> None:
    """In a process of its own."""
    anyio.run(_die, directory, verb, int(nth))


async def _die(directory: str, verb: str, nth: int) -> None:
    bench = Bench(Path(directory))
    plant(Faults(nth, lambda _name: os._exit(137)), setattr)
    await CASES[verb].act(bench)
    bench.close()
