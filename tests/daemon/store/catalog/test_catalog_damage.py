"""Faults of the file and the disk are typed, and a damaged catalogue is set aside instead of stopping the daemon."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.catalog_file import COMPANIONS, translated
from modelwire.errors import (
    Corrupt,
    Internal,
    Interrupted,
    InUse,
    NoSpace,
    NotFound,
    PermissionDenied,
    Unsupported,
    WireError,
)

STEPS = ("CREATE TABLE things (id INTEGER PRIMARY KEY, text TEXT);",)


def ids(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT id FROM things ORDER BY id")]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.sqlite")


def make(path: str, rows: int) -> None:
    catalog = Catalog.open(path)
    catalog.migrate("things", STEPS)
    catalog.call(lambda c: c.executemany("INSERT INTO things VALUES (?, ?)", ((n, "t" * 300) for n in range(rows))))
    catalog.close()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_set_aside_as_it_was(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    Path(path + "-wal").write_bytes(b"foreign log")
    catalog = Catalog.open(path)
    catalog.migrate("things", STEPS)
    assert catalog.call(ids) == []
    catalog.close()
    assert catalog.set_aside is not None
    assert catalog.set_aside.startswith(path + ".damaged-2")
    assert Path(catalog.set_aside).read_bytes() == content
    if b"SQLite" not in content:
        assert Path(catalog.set_aside + "-wal").read_bytes() == b"foreign log"


def test_two_damaged_files_within_a_second_are_both_kept(path: str) -> None:
    aside = set()
    for content in (b"first" * 100, b"second" * 100, b"third" * 100):
        Path(path).write_bytes(content)
        catalog = Catalog.open(path)
        catalog.close()
        assert catalog.set_aside is not None
        assert Path(catalog.set_aside).read_bytes() == content
        aside.add(catalog.set_aside)
    assert len(aside) == 3


def test_what_is_no_regular_file_is_set_aside_and_never_followed(path: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"someone else's")
    Path(path).symlink_to(victim)
    catalog = Catalog.open(path)
    catalog.close()
    assert catalog.set_aside is not None
    assert Path(catalog.set_aside).is_symlink()
    assert victim.read_bytes() == b"someone else's"
    Path(path).unlink()
    Path(path).mkdir()
    catalog = Catalog.open(path)
    catalog.close()
    assert catalog.set_aside is not None
    assert Path(catalog.set_aside).is_dir()


def test_random_damage_never_escapes_as_anything_but_a_typed_error(path: str) -> None:
    make(path, 400)
    sound = Path(path).read_bytes()
    rng = random.Random(20)
    outcomes = {"kept": 0, "aside": 0, "aside later": 0}
    for _ in range(60):
        bad = bytearray(sound[: rng.randrange(1, len(sound))] if rng.random() < 0.3 else sound)
        for _ in range(rng.choice((0, 1, 8, 4000))):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        Path(path).write_bytes(bad)
        catalog = Catalog.open(path)
        outcome = "aside" if catalog.set_aside else "kept"
        try:
            catalog.migrate("things", STEPS)
            catalog.call(ids)
        except Corrupt:
            catalog.close()
            catalog = Catalog.open(path)
            assert catalog.set_aside is not None
            catalog.migrate("things", STEPS)
            outcome = "aside later"
        except (sqlite3.Error, Unsupported):
            outcome = "kept"  # a sound file whose content was changed into another schema
        finally:
            catalog.close()
        outcomes[outcome] += 1
    assert outcomes["kept"]
    assert outcomes["aside"]


def test_damage_found_in_use_condemns_the_file_for_the_next_start(path: str) -> None:
    make(path, 400)
    catalog = Catalog.open(path)
    garbage = bytearray(Path(path).read_bytes())
    garbage[4096:] = b"\xff" * (len(garbage) - 4096)
    Path(path).write_bytes(garbage)
    catalog.call(lambda c: c.execute("PRAGMA shrink_memory").fetchall())
    with pytest.raises(Corrupt, match="catalogue") as found:
        catalog.call(ids)
    assert "Restart" in (found.value.hint or "")
    catalog.close()
    Path(path).write_bytes(b"")  # even if the check at the start would see nothing
    again = Catalog.open(path)
    again.close()
    assert again.set_aside is not None
    third = Catalog.open(path)
    third.close()
    assert third.set_aside is None


@pytest.mark.parametrize(
    ("code", "typed"),
    [
        (sqlite3.SQLITE_FULL, NoSpace),
        (sqlite3.SQLITE_READONLY, PermissionDenied),
        (sqlite3.SQLITE_IOERR | (4 << 8), Internal),
        (sqlite3.SQLITE_CORRUPT, Corrupt),
        (sqlite3.SQLITE_NOTADB, Corrupt),
        (sqlite3.SQLITE_BUSY, InUse),
        (sqlite3.SQLITE_CANTOPEN, PermissionDenied),
        (sqlite3.SQLITE_INTERRUPT, Interrupted),
    ],
)
def test_faults_of_the_disk_are_typed(code: int, typed: type[WireError], path: str) -> None:
    error = sqlite3.OperationalError("it happened")
    error.sqlite_errorcode = code
    error.sqlite_errorname = "SQLITE_SOMETHING"
    fault = translated(error, path)
    assert type(fault) is typed
    assert path in str(fault)
    assert "SQLITE_SOMETHING" in str(fault)


@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_acknowledged_that_is_written_to_a_file_without_a_name(path: str, replaced: bool) -> None:
    """SQLite does not notice: it goes on with the file that it has open, and the next start finds nothing of that."""
    make(path, 3)
    catalog = Catalog.open(path)
    try:
        for suffix in COMPANIONS:
            Path(path + suffix).unlink(missing_ok=True)
        if replaced:
            Path(path).touch()
        with pytest.raises(Internal, match="removed or replaced"):
            catalog.call(lambda c: c.execute("INSERT INTO things VALUES (7, 'x')").close())
        assert ids(catalog._connection) == [0, 1, 2], "what was refused is not in it either: it may come back"
    finally:
        catalog.close()
    again = Catalog.open(path)
    again.migrate("things", STEPS)
    assert again.call(ids) == []
    again.close()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"catalog\.sqlite"):
        Catalog.open(str(tmp_path / "gone" / "catalog.sqlite"))
