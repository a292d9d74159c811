"""Which files become readable for others by an add, and that the command says so before it sends anything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelclient.ctl.sharing import newly_readable


@pytest.fixture
def open_room() -> Iterator[Path]:
    """One that everybody may enter: those of pytest are for their owner only."""
    with tempfile.TemporaryDirectory(prefix="modeld-", dir="/tmp") as made:
        os.chmod(made, 0o755)
        yield Path(made)


def store_of(room: Path, mode: int = 0o755) -> str:
    blobs = room / "models" / "blobs"
    blobs.mkdir(parents=True)
    os.chmod(blobs.parent, mode)
    os.chmod(blobs, mode)
    return str(blobs.parent)


def file(path: Path, mode: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    os.chmod(path, mode)
    return str(path)


@pytest.mark.parametrize(("mode", "said"), [(0o600, True), (0o640, True), (0o644, False), (0o604, False)])
def test_a_private_file_is_named_where_all_may_enter_the_store(open_room: Path, mode: int, said: bool) -> None:
    path = file(open_room / "m.gguf", mode)
    sentence = (
        f"others on this machine will be able to read {path} in the store, although its mode does not let them now"
    )
    assert newly_readable(path, store_of(open_room)) == (sentence if said else None)


def test_a_store_that_only_its_owner_may_enter_shares_nothing(open_room: Path, tmp_path: Path) -> None:
    path = file(open_room / "m.gguf", 0o600)
    assert newly_readable(path, store_of(open_room, 0o700)) is None
    above = tmp_path / "closed"
    above.mkdir()
    above.chmod(0o700)
    assert newly_readable(path, store_of(above)) is None, "a directory above it is closed"


def test_the_store_of_a_group_is_read_by_the_group(open_room: Path) -> None:
    store = store_of(open_room, 0o2750)
    group = os.stat(store).st_gid
    assert f"users of the group {group} will" in (newly_readable(file(open_room / "m.gguf", 0o600), store) or "")
    assert newly_readable(file(open_room / "n.gguf", 0o640), store) is None


def test_a_directory_is_searched_but_for_what_is_hidden(open_room: Path) -> None:
    store, model = store_of(open_room), open_room / "model"
    file(model / ".env", 0o600)
    file(model / ".git" / "config", 0o600)
    file(model / "a.safetensors", 0o644)
    assert newly_readable(str(model), store) is None
    inner = file(model / "inner" / "b.safetensors", 0o600)
    assert inner in (newly_readable(str(model), store) or "")


def test_all_parts_of_a_set_of_shards_count(open_room: Path) -> None:
    first = file(open_room / "m[1]-00001-of-00002.gguf", 0o644)
    other = file(open_room / "m[1]-00002-of-00002.gguf", 0o600)
    assert other in (newly_readable(first, store_of(open_room)) or "")


def test_what_is_not_there_is_left_to_the_daemon(open_room: Path) -> None:
    assert newly_readable(str(open_room / "nothing"), store_of(open_room)) is None
    assert newly_readable(file(open_room / "m.gguf", 0o600), str(open_room / "no-store")) is None
