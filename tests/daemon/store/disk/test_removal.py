"""Removal beside others that remove the same: what disappears meanwhile is no error, and what came anew stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modeld.store.disk.removal import Identity, remove_entry


def tree(root: Path) -> Path:
    made = root / "partials" / "one"
    (made / "deep" / "er").mkdir(parents=True)
    for name in ("data.tmp", "journal", "deep/file", "deep/er/file"):
        (made / name).write_bytes(b"x")
    return made


@pytest.mark.parametrize("call", ["open", "stat", "listdir", "unlink", "rmdir"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_another_removes_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    made = tree(tmp_path)
    info, calls = os.lstat(made), 0
    real: Callable[..., object] = getattr(os, call)
    other = shutil.rmtree

    def meanwhile(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            monkeypatch.undo()
            other(made, ignore_errors=True)
        return real(*arguments, **named)

    monkeypatch.setattr(os, call, meanwhile)
    remove_entry(str(tmp_path), ("partials", "one"), Identity.of(info))
    monkeypatch.undo()
    assert not made.exists()


def test_what_has_changed_since_it_was_looked_at_stays(tmp_path: Path) -> None:
    made = tree(tmp_path)
    info = os.lstat(made)
    os.utime(made, ns=(1, 1))
    assert not remove_entry(str(tmp_path), ("partials", "one"), Identity.of(info))
    assert (made / "data.tmp").exists()
