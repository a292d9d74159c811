"""Files of this machine as a source."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeld.transfer.references.types import LocalReference
from modeld.transfer.source import Body
from modeld.transfer.sources.local import LocalSource
from modelwire.errors import Cancelled, InvalidRequest, PermissionDenied, SourceNotFound, SourceUnavailable
from transfer.reading import read_all


def reference(path: Path) -> LocalReference:
    return LocalReference(path=str(path))


def drain(body: Body, buffer: memoryview) -> None:
    while body.readinto(buffer):
        pass


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF0123456789")
    source = LocalSource()
    found = source.describe(reference(tmp_path / "m.gguf"))
    (file,) = found.files
    assert (file.path, file.size, file.digest, file.origin) == ("m.gguf", 14, None, None)
    assert (found.registry, found.repo, found.revision) == ("file", str(tmp_path), None)
    assert source.origin(reference(tmp_path)) is None
    assert read_all(source, file) == b"GGUF0123456789"
    assert read_all(source, file, 4, 6, file.validator) == b"01"
    assert read_all(source, file, 4, 6, '"another"') == b"GGUF0123456789"


def test_a_set_of_shards_by_any_of_its_parts(tmp_path: Path) -> None:
    names = [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    source = LocalSource()
    found = source.describe(reference(tmp_path / names[1]))
    assert [file.path for file in found.files] == names
    assert [read_all(source, file) for file in found.files] == [name.encode() for name in names]
    (tmp_path / names[2]).unlink()
    with pytest.raises(SourceNotFound, match=r"m-00003-of-00003\.gguf is not there.*not complete"):
        source.describe(reference(tmp_path / names[0]))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    source = LocalSource()
    with pytest.raises(SourceNotFound):
        source.describe(reference(tmp_path / "none"))
    with pytest.raises(InvalidRequest, match="not a regular file"):
        source.describe(reference(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match="named pipe"):
        source.describe(reference(tmp_path / "pipe"))


def test_the_rights_are_those_of_the_opener(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")

    def refuse(path: str) -> int:
        raise PermissionDenied(f"{path} cannot be read by this peer")

    with pytest.raises(PermissionDenied):
        LocalSource(refuse).describe(reference(tmp_path / "m.gguf"))


@pytest.mark.parametrize("change", ["longer", "shorter", "touched"])
def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"x" * 1000)
    source = LocalSource()
    file = source.describe(reference(path)).files[0]
    body = source.open(file, 0, None, None)
    try:
        buffer = memoryview(bytearray(400))
        assert body.readinto(buffer) == 400
        if change == "longer":
            with path.open("ab") as more:
                more.write(b"y")
        elif change == "shorter":
            os.truncate(path, 500)
        else:
            os.utime(path, ns=(1, 1))
        with pytest.raises(SourceUnavailable, match="changed while it was read"):
            drain(body, buffer)
    finally:
        body.close()


def test_an_aborted_or_closed_body_gives_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"x" * 1000)
    source = LocalSource()
    file = source.describe(reference(tmp_path / "m.gguf")).files[0]
    for end in ("abort", "close"):
        body = source.open(file, 0, None, None)
        getattr(body, end)()
        with pytest.raises(Cancelled):
            body.readinto(memoryview(bytearray(10)))
        body.close()
        body.close()
