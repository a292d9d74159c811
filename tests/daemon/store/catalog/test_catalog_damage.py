"""Faults of the file and the disk are typed, and a damaged catalogue is set aside instead of stopping the daemon."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.catalog_file import COMPANIONS, CONDEMNED, translated
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


class FlakyConnection(sqlite3.Connection):
    """Fails as a disk does that cannot read a page: SQLite calls both kinds of that damage."""

    faults: list[Callable[[], list[tuple[str]]]]

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self.faults and ("quick_check" in sql or "integrity_check" in sql or "SELECT" in sql):
            return cast("sqlite3.Cursor", _Rows(self.faults.pop(0)()))
        return super().execute(sql, *values)


class _Rows:
    def __init__(self, rows: list[tuple[str]]) -> None:
        self._rows = rows

    def fetchone(self) -> tuple[str]:
        return self._rows[0]


def unreadable_page() -> list[tuple[str]]:
    return [("*** in database main ***\nPage 377: unable to get the page. error code=8458",)]


def malformed() -> list[tuple[str]]:
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"
    raise error


def protocol() -> list[tuple[str]]:
    error = sqlite3.OperationalError("locking protocol")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_PROTOCOL, "SQLITE_PROTOCOL"
    raise error


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], list[tuple[str]]]]:
    """What the next checks and queries of new connections do."""
    faults = FlakyConnection.faults = []
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **terms: connect(path, factory=FlakyConnection, **terms))
    return faults


@pytest.mark.parametrize("fault", [unreadable_page, malformed])
def test_a_read_that_fails_once_at_the_start_sets_no_sound_file_aside(
    path: str, faults: list[Callable[[], list[tuple[str]]]], fault: Callable[[], list[tuple[str]]]
) -> None:
    make(path, 5)
    faults.append(fault)
    catalog = Catalog.open(path)
    assert catalog.set_aside is None
    assert catalog.call(ids) == [0, 1, 2, 3, 4]
    catalog.close()
    assert faults == []


def test_a_read_that_fails_once_in_use_costs_nothing_at_the_next_start(
    path: str, faults: list[Callable[[], list[tuple[str]]]]
) -> None:
    make(path, 5)
    catalog = Catalog.open(path)
    faults.append(malformed)
    with pytest.raises(Corrupt):
        catalog.call(ids)
    catalog.close()
    for _ in range(2):
        again = Catalog.open(path)
        assert again.set_aside is None
        assert again.call(ids) == [0, 1, 2, 3, 4]
        again.close()
        assert not Path(path + CONDEMNED).exists()


READER = """
import sys
from modeld.store.catalog.catalog import Catalog
from modelwire.errors import WireError

try:
    catalog = Catalog.open(sys.argv[1])
    print("aside", catalog.set_aside)
    catalog.call(lambda db: db.execute("SELECT sum(length(text)) FROM things").fetchall())
    catalog.call(lambda db: db.execute("INSERT INTO things VALUES (?, 'more')", (int(sys.argv[2]),)).rowcount)
    catalog.close()
except WireError as fault:
    print(type(fault).__name__)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace here")
@pytest.mark.parametrize("call", ["pread64", "pwrite64", "fdatasync"])
@pytest.mark.parametrize("lasting", ["", "+"])
def test_no_error_of_the_disk_at_any_call_costs_a_row(path: str, call: str, lasting: str) -> None:
    """SQLite reports a page that could not be read as damage. The last start is on a sound disk again."""
    make(path, 100)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    for number in (1, 2, 3, 5, 9, 14):
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={number}{lasting}"]
        traced = ["strace", "-f", "-qq", "-o", os.devnull, "-P", path, "-P", path + "-wal", *inject]
        child = [sys.executable, "-c", READER, path, str(1000 + number)]
        ended = subprocess.run([*traced, *child], env=environment, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        assert "damaged" not in ended.stdout
        catalog = Catalog.open(path)
        assert catalog.set_aside is None
        assert catalog.call(ids)[:100] == list(range(100))
        catalog.close()


def test_a_file_that_cannot_be_read_is_no_damaged_file_and_refuses_the_start(
    path: str, faults: list[Callable[[], list[tuple[str]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path, 5)
    read = os.read

    def failing(descriptor: int, size: int) -> bytes:
        if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
            raise OSError(errno.EIO, "Input/output error")
        return read(descriptor, size)

    faults.extend([unreadable_page, unreadable_page])
    with monkeypatch.context() as disk:
        disk.setattr(os, "read", failing)
        with pytest.raises(Internal, match="Input/output error") as refusal:
            Catalog.open(path)
    assert "move the catalogue away" in (refusal.value.hint or "")
    catalog = Catalog.open(path)
    assert catalog.set_aside is None
    assert catalog.call(ids) == [0, 1, 2, 3, 4]
    catalog.close()


def test_an_error_that_proves_no_damage_sets_nothing_aside(
    path: str, faults: list[Callable[[], list[tuple[str]]]]
) -> None:
    make(path, 5)
    faults.append(protocol)
    with pytest.raises(Internal, match="locking protocol"):
        Catalog.open(path)
    assert sorted(each.name for each in Path(path).parent.iterdir()) == ["catalog.sqlite"]


def test_what_only_the_full_check_finds_in_a_condemned_file_sets_it_aside(path: str) -> None:
    """An index that lacks an entry: the quick check at each start does not compare indexes with their tables."""
    catalog = Catalog.open(path)
    catalog.migrate("things", (*STEPS, "CREATE INDEX things_text ON things (text);"))
    catalog.call(lambda c: c.executemany("INSERT INTO things VALUES (?, ?)", ((n, f"t{n}") for n in range(9))))
    catalog.close()
    spoiled = sqlite3.connect(path, isolation_level=None)
    (row,) = spoiled.execute("SELECT * FROM sqlite_schema WHERE name = 'things_text'").fetchall()
    spoiled.execute("PRAGMA writable_schema = ON")
    spoiled.execute("DELETE FROM sqlite_schema WHERE name = 'things_text'")
    spoiled.execute("PRAGMA writable_schema = RESET")
    spoiled.execute("INSERT INTO things VALUES (100, 't100')")
    spoiled.execute("PRAGMA writable_schema = ON")
    spoiled.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)
    spoiled.execute("PRAGMA writable_schema = RESET")
    assert spoiled.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    spoiled.close()
    Path(path + CONDEMNED).touch()
    catalog = Catalog.open(path)
    catalog.close()
    assert catalog.set_aside is not None


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
