"""A lock for life: whoever comes second learns at once, and from the holder's own words, who came first."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from modeld.platform.posix import locks

HOLDER = """
import sys
from modeld.platform.posix import locks
descriptor = locks.take(sys.argv[1], mode=0o600, max_content=100)
locks.write(descriptor, b"the child")
print("held", flush=True)
sys.stdin.read()
"""


def take(path: Path) -> int:
    return locks.take(str(path), mode=0o600, max_content=100)


def test_the_second_learns_who_is_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = take(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    locks.write(held, b"the first, with more words")
    locks.write(held, b"the first")
    with pytest.raises(locks.Held) as fault:
        take(path)
    assert fault.value.content == b"the first"
    if sys.platform == "linux":
        assert locks.owner(fault.value.status) == locks.Owner(os.getpid(), Path("/proc/self/comm").read_text().strip())
    locks.release(held)
    assert path.read_bytes() == b"", "nobody's words stay"
    os.close(take(path))
    assert locks.owner(path.stat()) is None


def test_the_lock_falls_with_its_holder_and_the_words_do_not(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(locks.Held) as fault:
            take(path)
        assert fault.value.content == b"the child"
        child.kill()
    held = take(path)
    assert locks.read(held, 100) == b"the child"
    locks.clear(held)
    assert locks.read(held, 100) == b""
    os.close(held)


def test_words_are_read_up_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = take(path)
    locks.write(held, b"x" * 1000)
    with pytest.raises(locks.Held) as fault:
        take(path)
    assert fault.value.content == b"x" * 100
    os.close(held)


@pytest.mark.parametrize("kind", ["directory", "link", "dangling link", "FIFO", "socket"])
def test_what_is_no_file_is_neither_opened_nor_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has to be short
    path = tmp_path / "lock"
    (tmp_path / "other").write_bytes(b"precious")
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("other")
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path.name)
    with pytest.raises(locks.NotAFile):
        take(path)
    assert (tmp_path / "other").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_lock_in_a_directory_that_is_held_open(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.close(locks.take("lock", mode=0o600, max_content=0, directory=directory))
    finally:
        os.close(directory)
    assert (tmp_path / "lock").is_file()


def test_a_directory_may_be_locked_by_many(tmp_path: Path) -> None:
    descriptors = [os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2)]
    for descriptor in descriptors:
        locks.share(descriptor)
    if sys.platform == "linux":
        assert locks.owner(tmp_path.stat()) is not None
    for descriptor in descriptors:
        os.close(descriptor)
