"""A file that is open stays the one that was looked at, whatever happens to its name."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from modeld.platform.posix import files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")


def test_a_second_name_is_for_the_file_that_is_open(tmp_path: Path) -> None:
    path, name = tmp_path / "file", tmp_path / "name"
    path.write_bytes(b"looked at")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        (tmp_path / "other").write_bytes(b"exchanged")
        os.link(path, tmp_path / "kept")  # a file without any name cannot get one
        os.replace(tmp_path / "other", path)
        files.link_open_file(descriptor, str(path), str(name))
    finally:
        os.close(descriptor)
    assert name.read_bytes() == b"looked at"


@pytest.mark.parametrize(
    ("flags", "readable"), [(os.O_RDONLY, True), (os.O_RDWR, True), (os.O_WRONLY, False), (os.O_PATH, False)]
)
def test_whether_a_file_was_opened_for_reading(tmp_path: Path, flags: int, readable: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    with files.closing(os.open(path, flags)) as descriptor:
        assert files.is_readable(descriptor) is readable


def test_a_disk_is_not_served_by_a_program(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    with files.closing(os.open(path, os.O_RDONLY)) as descriptor:
        assert not files.served_by_program(descriptor)


@pytest.mark.parametrize(("kind", "served"), [("fuse", True), ("overlay", True)])
def test_what_a_program_may_serve_is_known_by_its_filesystem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, served: bool
) -> None:
    """An overlay that is not among this process's mounts is one that a user has made, perhaps over such files."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    with files.closing(os.open(path, os.O_RDONLY)) as descriptor:
        own = ctypes.create_string_buffer(256)
        ctypes.CDLL(None).fstatfs(descriptor, own)
        monkeypatch.setattr(files, f"_{kind.upper()}", ctypes.c_ulong.from_buffer(own).value & 0xFFFFFFFF)
        monkeypatch.setattr(files, "_is_mounted_here", lambda _: False)
        assert files.served_by_program(descriptor) is served
        monkeypatch.setattr(files, "_is_mounted_here", lambda _: True)
        assert files.served_by_program(descriptor) is (kind == "fuse")


def test_a_mount_of_this_process_is_known_by_its_device() -> None:
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        major, minor = next(iter(mounts)).split()[2].split(":")
    assert files._is_mounted_here(os.makedev(int(major), int(minor)))
    assert not files._is_mounted_here(os.makedev(4000, 4000))


def test_a_process_may_have_as_many_files_open_as_it_is_allowed() -> None:
    code = (
        "import resource; from modeld.platform import files; resource.setrlimit(resource.RLIMIT_NOFILE, (99, 333));"
        "files.allow_as_many_as_possible(); print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["333", "333"]


def test_writers_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert files.has_writer(descriptor) is False
        with open(path, "ab"):
            assert files.has_writer(descriptor) is True
        assert files.has_writer(descriptor) is False
    finally:
        os.close(descriptor)


def test_the_directories_of_a_link_and_of_its_target_may_be_private() -> None:
    with tempfile.TemporaryDirectory() as made:  # the tests' own directory is below a private one
        top = Path(made)
        top.chmod(0o755)
        for directory in (top / "links", top / "real", top / "real/inner"):
            directory.mkdir()
            directory.chmod(0o755)
        link = top / "links/link"
        link.symlink_to("../real/inner")
        if files.private_directory(made) is not None:
            pytest.skip("the temporary directory is for its owner alone")
        assert files.private_directory(str(link)) is None
        (top / "real").chmod(0o700)
        assert files.private_directory(str(link)) == str(top / "real")
        (top / "links").chmod(0o700)
        assert files.private_directory(str(link)) == str(top / "links")


def test_the_path_of_an_open_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("m")
    for name, gone in (("m", False), ("m", True), ("m (deleted)", False)):
        (tmp_path / name).write_bytes(b"")
        with open(tmp_path / ("link" if name == "m" else name), "rb") as file:
            if gone:
                (tmp_path / name).unlink()
            assert files.path_of(file.fileno(), file.name) == str(tmp_path / name)
