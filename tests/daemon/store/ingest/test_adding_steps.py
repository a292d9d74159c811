"""Adding, step by step: the order of the notes to the job, and each step that fails or is cancelled."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.progress import JobProgress, Stopped
from modeld.store.disk import durable
from modelwire.errors import (
    Internal,
    WireError,
)
from modelwire.values import Added
from rigs.adding_rig import Bench, Notes
from rigs.watcher import Watcher


async def test_the_blob_is_there_before_and_the_manifest_after_the_note(bench: Bench) -> None:
    notes = Notes(bench)
    await bench.store.add(bench.file(), name="a", notes=notes)
    assert notes.calls == [("about", True, False), ("published", True, True)]
    await bench.store.add(bench.file(), name="a", notes=notes)
    assert len(notes.calls) == 2


@pytest.mark.parametrize("standing", [False, True], ids=["new", "the same again"])
async def test_a_move_that_is_noted_as_done_has_taken_its_source_away(bench: Bench, standing: bool) -> None:
    """A job that is done is not run again: a crash after the note would leave the source for ever, and one before it,
    with the source gone and nothing announced, would make a failure of what was done."""
    seen: list[tuple[str, bool]] = []

    class Looking(Notes):
        async def _note(self, what: str, added: Added) -> None:
            seen.append((what, os.path.exists(moved)))

    if standing:
        await bench.store.add(bench.file("other"), name="a")
    moved = bench.file("moved")
    await bench.store.add(moved, name="a", how="move", notes=Looking(bench))
    assert seen == [("about", True), ("published", False)]


async def test_a_note_that_fails_prevents_the_publication(bench: Bench) -> None:
    notes = Notes(bench)
    notes.fail_at = "about"
    with pytest.raises(Internal):
        await bench.store.add(bench.file(), name="a", notes=notes)
    assert bench.names() == []
    notes.fail_at = "published"
    with pytest.raises(Internal):
        await bench.store.add(bench.file(), name="a", notes=notes)
    assert bench.names() == ["a"]


async def test_a_restart_can_ask_whether_it_happened(bench: Bench) -> None:
    added = await bench.store.add(bench.file(), name="a")
    assert bench.store.models.stands_for(added)
    await bench.store.add(bench.file("x", b"other"), name="a", replace=True)
    assert not bench.store.models.stands_for(added)
    assert not bench.store.models.stands_for(Added(name="b", blob=added.blob, size_bytes=1, format="", path=""))
    os.unlink(bench.store.index.resolve("a").path)
    assert not bench.store.models.stands_for(added)


def counts(progress: JobProgress) -> dict[str, int]:
    return {name: getattr(progress, name) for name in ("done", "verified", "reused", "committed")}


async def test_progress_tells_new_bytes_and_reused_ones_apart(bench: Bench) -> None:
    new, same = Watcher(), Watcher()
    await bench.store.add(bench.file(), name="a", progress=new)
    assert counts(new) == {"done": 12, "verified": 12, "reused": 0, "committed": 12}
    assert new.phases == ["checking_local", "reserving", "copy", "publish"]
    assert new.totals == [12]
    added = bench.store.index.resolve("a")
    await bench.store.add(bench.file(), name="b", sha256=added.blob, progress=same)
    assert counts(same) == {"done": 12, "verified": 0, "reused": 12, "committed": 0}


async def test_work_that_is_not_wanted_any_more_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(Stopped):
        await bench.store.add(bench.file(), name="a", progress=Watcher(stop_at="copy"))
    bench.assert_nothing_happened()


# -- cancellation and faults


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_cancelled_at_each_hop_it_is_there_or_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    outcomes: set[str] = set()
    real = anyio.to_thread.run_sync
    for nth in range(1, 50):
        name, path = f"m{nth}", bench.file(f"m{nth}", b"content %d" % nth)
        hops = 0
        with monkeypatch.context() as patched, anyio.CancelScope() as scope:

            async def hop(*arguments: Any, nth: int = nth, scope: anyio.CancelScope = scope, **named: Any) -> Any:
                nonlocal hops
                hops += 1
                if hops == nth and moment == "before":
                    scope.cancel()
                try:
                    return await real(*arguments, **named)
                finally:
                    if hops == nth and moment == "after":
                        scope.cancel()

            patched.setattr(anyio.to_thread, "run_sync", hop)
            await bench.store.add(path, name=name)
        assert bench.staged() == []
        assert bench.store.reserved_bytes == 0
        there = name in bench.names()
        if there:
            assert bench.store.index.resolve(name).state == "ready"
        outcomes.add(f"{'cancelled' if scope.cancelled_caught else 'answered'}, {'there' if there else 'absent'}")
        with anyio.fail_after(30):  # no lock, turn or slot is held by what was cancelled
            await bench.store.add(path, name=name)
        if hops < nth:
            break
    else:
        pytest.fail("the hops have no end")
    assert outcomes >= {"cancelled, absent", "answered, there"}
    assert "answered, absent" not in outcomes


CHANGING = [
    "create_file",
    "write_at",
    "make_read_only",
    "share_with_group_of",
    "sync_file",
    "sync_directory",
    "make_directories",
    "name_without_replacing",
    "name_replacing",
    "close",
]


class Fault:
    """Fails the n-th call of all those that change the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int, code: int) -> None:
        self.count = 0
        self.struck = ""
        for name in CHANGING:
            self._wrap(monkeypatch, name, getattr(durable, name), nth, code)

    def _wrap(
        self, monkeypatch: pytest.MonkeyPatch, name: str, real: Callable[..., object], nth: int, code: int
    ) -> None:
        def step(*arguments: Any, **named: Any) -> object:
            self.count += 1
            if self.count != nth:
                return real(*arguments, **named)
            self.struck = name
            if name == "close":
                real(*arguments, **named)
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(durable, name, step)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("replace", [False, True])
async def test_each_step_of_an_add_fails_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int, replace: bool
) -> None:
    struck: set[str] = set()
    for nth in range(1, 100):
        name = f"m{nth}"
        old = b"old %d" % nth
        if replace:
            await bench.store.add(bench.file("old", old), name=name)
        content = b"new %d" % nth  # not random: a directory that is there already makes fewer steps
        path = bench.file(content=content)
        with monkeypatch.context() as patched:
            fault = Fault(patched, nth, code)
            failed = False
            try:
                await bench.store.add(path, name=name, replace=replace)
            except WireError:
                failed = True
        struck.add(fault.struck)
        assert bench.staged() == [], fault.struck
        assert bench.store.reserved_bytes == 0
        if name in bench.names():
            resolved = bench.store.index.resolve(name)
            assert Path(resolved.path).read_bytes() in ((old, content) if replace else (content,))
        else:
            assert failed
            assert not replace
        added = await bench.store.add(path, name=name, replace=replace)
        assert Path(added.path).read_bytes() == content
        if not fault.struck:
            assert not failed
            break
    else:
        pytest.fail("the sweep has no end")
    assert struck == {*CHANGING, ""}


# -- many at once
