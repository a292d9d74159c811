"""The error names the holder of a store; a dead holder releases its lock; only a regular file is a lock."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from modeld.store.disk.layout import Layout
from modeld.store.disk.locks import StoreLock
from modeld.store.disk.root import RootUnusable, prepare_root
from modelwire.errors import Internal, InUse, WireError
from rigs.lock_holder import HOLD_FILE, other_process


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return prepare_root(str(tmp_path / "models"))


HOLD_STORE = """
    import sys
    from modeld.store.disk.layout import Layout
    from modeld.store.disk.locks import StoreLock
    lock = StoreLock.take(Layout(sys.argv[1]), endpoint="/run/other.sock")
    print("held", flush=True)
    sys.stdin.read()
"""

# -- the store


def test_a_second_daemon_reports_the_holder_of_the_store(layout: Layout) -> None:
    with other_process(HOLD_STORE, layout.root) as holder:
        with pytest.raises(InUse, match=re.escape(layout.root)) as caught:
            StoreLock.take(layout)
        assert f"pid {holder.pid}" in caught.value.message
        assert "/run/other.sock" in caught.value.message
        assert ", for " in caught.value.message
        assert caught.value.details["pid"] == holder.pid
        holder.kill()
        holder.wait()
    StoreLock.take(layout).close()


def test_also_within_one_process(layout: Layout) -> None:
    lock = StoreLock.take(layout, endpoint="/run/a.sock")
    with pytest.raises(InUse, match=r"/run/a\.sock"):
        StoreLock.take(layout)
    lock.close()
    lock.close()
    assert os.path.exists(layout.lock)
    StoreLock.take(layout).close()


def test_a_holder_that_has_not_said_its_name_yet_is_found_all_the_same(layout: Layout) -> None:
    Path(layout.lock).write_text('{"pid": 1, "endpoint": "/run/dead.sock", "since": 5}')
    with other_process(HOLD_FILE, layout.lock) as holder:
        with pytest.raises(InUse) as caught:
            StoreLock.take(layout)
        if os.path.exists("/proc/locks"):
            assert f"pid {holder.pid}" in caught.value.message
            assert "dead.sock" not in caught.value.message


@pytest.mark.parametrize("words", ["", "no json", '{"pid": "x"}', "[" * 4000, "\0" * 5000])
def test_nonsense_in_the_lock_file_is_no_obstacle(layout: Layout, words: str) -> None:
    Path(layout.lock).write_text(words)
    lock = StoreLock.take(layout)
    with pytest.raises(InUse, match=f"pid {os.getpid()}"):
        StoreLock.take(layout)
    lock.close()


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "directory"])
def test_only_a_regular_file_is_a_lock(layout: Layout, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "link":
        target.write_text("precious")
        os.symlink(target, layout.lock)
    elif kind == "dangling":
        os.symlink(target, layout.lock)
    elif kind == "pipe":
        os.mkfifo(layout.lock)
    else:
        os.mkdir(layout.lock)
    with pytest.raises(RootUnusable, match="not a regular file"):
        StoreLock.take(layout)
    assert kind == "link" or not target.exists()
    assert kind != "link" or target.read_text() == "precious"


def test_a_root_that_was_replaced_is_noticed(layout: Layout) -> None:
    lock = StoreLock.take(layout)
    lock.check()
    os.rename(layout.root, layout.root + ".away")
    with pytest.raises(WireError, match="cannot look at"):
        lock.check()
    prepare_root(layout.root)
    StoreLock.take(layout).close()
    with pytest.raises(Internal, match="is not the store that this daemon has locked"):
        lock.check()
    lock.close()
