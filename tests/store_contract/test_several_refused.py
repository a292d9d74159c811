"""What cannot be a model of several files is refused by its path, and leaves nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from rigs.real_daemon import RealDaemon
from rigs.several_files import WEIGHTS, assert_nothing_there, directory, shards
from store_contract.conftest import Ctl


def _symlink(source: Path) -> None:
    (source / "sub").mkdir()
    (source / "sub" / "alias").symlink_to("../m.gguf")


def _pipe(source: Path) -> None:
    os.mkfifo(source / "pipe")


def _socket(source: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(source / "socket"))


def _case(source: Path) -> None:
    (source / "M.GGUF").write_bytes(b"x")


def _case_of_directories(source: Path) -> None:
    for name in ("Sub", "sub"):
        (source / name).mkdir()
        (source / name / name).write_bytes(b"x")


def _backslash(source: Path) -> None:
    (source / "a\\b").write_bytes(b"x")


def _control(source: Path) -> None:
    (source / "a\nb").write_bytes(b"x")


def _not_utf8(source: Path) -> None:
    Path(os.fsdecode(os.fsencode(source) + b"/\xff")).write_bytes(b"x")


def _missing_shard(source: Path) -> None:
    (source / "w-00001-of-00002.safetensors").write_bytes(b"x")


def _unreadable_number(source: Path) -> None:
    deep = source.joinpath(*("d" for _ in range(40)))
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_symlink, "sub/alias is a symbolic link"),
        (_pipe, "pipe is a named pipe"),
        (_socket, "socket is a socket"),
        (_case, "where case does not count"),
        (_case_of_directories, "where case does not count"),
        (_backslash, "backslash"),
        (_control, "control character"),
        (_not_utf8, "no UTF-8"),
        (_missing_shard, "w-00002-of-00002.safetensors is not there"),
        (_unreadable_number, "directories deep"),
    ],
)
def test_what_cannot_be_in_a_model_is_refused_by_its_path(room: Path, ctl: Ctl, spoil: Any, says: str) -> None:
    source = directory(room, files={"m.gguf": WEIGHTS})
    spoil(source)
    done = ctl("add", str(source))
    assert done.returncode in (1, 2, 3, 10), done.stderr
    assert says in done.stderr
    assert_nothing_there(ctl.daemon)


@pytest.mark.parametrize("content", [{}, {".hidden": b"x"}])
def test_a_directory_without_files_is_refused(room: Path, ctl: Ctl, content: dict[str, bytes]) -> None:
    (room / "gemma").mkdir()
    for name, data in content.items():
        (room / "gemma" / name).write_bytes(data)
    done = ctl("add", str(room / "gemma"))
    assert done.returncode != 0
    assert "has no files in it" in done.stderr
    assert_nothing_there(ctl.daemon)


def test_the_store_cannot_be_added_to_itself(room: Path, stopped: RealDaemon) -> None:
    stopped.root = stopped.environ["MODELS_HOME"] = str(room / "outer" / "models")
    ctl = Ctl(stopped.start())
    ctl.json("add", stopped.file("m.gguf", WEIGHTS))
    for path in (stopped.root, f"{stopped.root}/blobs", str(room / "outer")):
        done = ctl("add", path, "--name", "itself")
        assert done.returncode != 0
        assert "the store" in done.stderr
    assert len(os.listdir(f"{stopped.root}/manifests")) == 1


def test_a_digest_is_of_one_file(room: Path, ctl: Ctl) -> None:
    done = ctl("add", str(directory(room)), "--sha256", "0" * 64)
    assert done.returncode != 0
    assert "a digest is of one" in done.stderr
    assert_nothing_there(ctl.daemon)


def test_a_missing_part_is_an_error_that_names_it(room: Path, ctl: Ctl) -> None:
    parts = shards(room)
    parts[1].unlink()
    done = ctl("add", str(parts[2]))
    assert done.returncode == 10 or done.returncode == 3, done.returncode
    assert f"{parts[1]} is not there" in done.stderr
    assert_nothing_there(ctl.daemon)
