"""Adding a directory with each of its system calls failing once, and killed at each: all of it or nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from modeld.store.disk.listing import times_of
from modeld.store.ingest.adopt import How
from modelwire.errors import WireError
from rigs import directory_rig
from rigs.directory_rig import FILES, AddedDirectory, plant
from rigs.forked import forked
from rigs.publication_rig import Faults

HOWS = ("copy", "move", "link")


def sweep(tmp_path: Path, step: int) -> Iterator[tuple[int, AddedDirectory]]:
    for nth in range(1, 1000, step):
        directory = tmp_path / str(nth)
        directory.mkdir()
        yield nth, AddedDirectory(directory)
    pytest.fail("the sweep has no end")


def blobs(added: AddedDirectory) -> set[bytes]:
    return {path.read_bytes() for path in Path(added.root, "blobs").glob("*/*/*/data")}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("code", "step"), [(errno.EIO, 4), (errno.ENOSPC, 11)])
def test_each_call_fails_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: How, code: int, step: int) -> None:
    def strike(_name: str) -> None:
        raise OSError(code, os.strerror(code))

    kinds: set[str] = set()
    for nth, added in sweep(tmp_path, step):
        faults = Faults(nth, strike)
        with added.open() as store:
            descriptors = len(os.listdir("/proc/self/fd"))
            failed = False
            with monkeypatch.context() as patched:
                plant(patched, faults)
                try:
                    added.add(store, how)
                except WireError:
                    failed = True
            kinds.update(faults.struck)
            if not faults.struck:
                break
            assert store.reserved_bytes == 0, faults.struck
            assert len(os.listdir("/proc/self/fd")) <= descriptors, faults.struck
            assert blobs(added) <= set(FILES.values()), "no blob is torn"
            if not {"unlink", "rename"} & set(faults.struck):
                assert added.temporaries() == [], faults.struck
            shown = added.shown(store)
            assert shown in (None, FILES), "no set is torn"
            if not failed:
                assert shown == FILES
            if how != "move" or shown is None:
                assert added.left_at_source() == FILES, "no source is lost"
            # The same request succeeds without a restart.
            if shown is None or added.left_at_source() == FILES:
                added.add(store, how)
            assert added.shown(store) == FILES
    assert len(kinds) > 4, kinds


@pytest.mark.parametrize("how", HOWS)
def test_killed_at_a_call(tmp_path: Path, how: How) -> None:
    with forked(directory_rig.__file__, "main") as run:
        for nth, added in sweep(tmp_path, 17):
            done = run(str(added.source.parent), how, str(nth))
            assert done.returncode in (0, 137), done.stderr
            with added.open() as store:
                assert added.temporaries() == [], "the start has swept what the dead run left"
                shown = added.shown(store)
                assert shown in (None, FILES)
                assert blobs(added) <= set(FILES.values())
                left = added.left_at_source()
                assert shown == FILES or left == FILES, "every byte is in one of the two places"
                added.make_source()
                added.add(store, how)
                assert added.shown(store) == FILES
            if done.returncode == 0:
                assert nth > 17
                return


@pytest.mark.parametrize("how", HOWS)
def test_the_same_again_changes_nothing(tmp_path: Path, how: str) -> None:
    added = AddedDirectory(tmp_path)
    with added.open() as store:
        first = added.add(store, cast("How", how))
        manifest = Path(added.root, "manifests", "m.json")
        before = times_of(manifest.stat())
        added.make_source()
        again = added.add(store, cast("How", how))
        assert (again.path, again.files, again.reused) == (first.path, first.files, True)
        assert times_of(manifest.stat()) == before
        assert store.models.stands_for(again)
        assert added.shown(store) == FILES
