"""How much of a directory is looked at: no more than a model can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeld.store import parts
from modelwire.errors import InvalidRequest
from rigs.directory_rig import AddedDirectory


@pytest.mark.parametrize("name", ["{}.bin", ".{}", "sub{}/"])
def test_a_directory_of_very_many_entries_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also of hidden ones and of directories, which no limit of files would ever reach."""
    monkeypatch.setattr(parts, "MAX_ENTRIES", 100)
    added = AddedDirectory(tmp_path)
    for number in range(120):
        path = added.source / name.format(number)
        path.mkdir() if name.endswith("/") else path.touch()
    with added.open() as store, pytest.raises(InvalidRequest, match="more than 100 entries") as caught:
        added.add(store, "copy")
    assert caught.value.hint
    assert "4000 files" in caught.value.message
