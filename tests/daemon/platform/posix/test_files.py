"""A file that is open stays the one that was looked at, whatever happens to its name."""

from __future__ import annotations

import os
import sys
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


def test_what_was_only_looked_at_can_be_opened_for_reading(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"looked at")
    looked = os.open(path, os.O_PATH)
    os.unlink(path)
    reader = files.reopen(looked, os.O_RDONLY)
    try:
        assert os.read(reader, 100) == b"looked at"
        assert files.access_list(looked) is None
    finally:
        os.close(reader)
        os.close(looked)


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
