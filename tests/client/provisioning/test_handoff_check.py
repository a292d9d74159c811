"""Whether handoffs can be written is known before their models are fetched, and finding out leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelclient.platform import posix_files
from modelclient.provisioning import replacing
from modelclient.provisioning.handoff import check_all, write_all
from modelwire.errors import InvalidRequest, NotFound, PermissionDenied, WireError

OLD = b"an engine reads this"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.json"
    path.write_bytes(OLD)
    return path


def entries(room: Path) -> list[str]:
    return sorted(str(path.relative_to(room)) for path in room.rglob("*"))


def test_good_targets_stay_as_they_are(tmp_path: Path, old: Path) -> None:
    (tmp_path / "link.json").symlink_to("linked.json")
    before, status = entries(tmp_path), old.stat()
    check_all([str(old), str(tmp_path / "made" / "for" / "it.json"), str(tmp_path / "link.json")])
    assert entries(tmp_path) == before
    assert old.read_bytes() == OLD
    now = old.stat()
    assert (now.st_ino, now.st_mtime_ns, now.st_ctime_ns) == (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        ("old.json", InvalidRequest),
        ("same.json", InvalidRequest),
        ("old.json/below.json", InvalidRequest),
        ("directory", InvalidRequest),
        ("new/..", InvalidRequest),
        ("dangling.json", NotFound),
    ],
)
def test_what_could_not_be_written_is_refused_alike(
    tmp_path: Path, old: Path, second: str, kind: type[WireError]
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "same.json").symlink_to("old.json")
    (tmp_path / "dangling.json").symlink_to("missing/file.json")
    before = entries(tmp_path)
    targets = [str(old), str(tmp_path / second)]
    with pytest.raises(kind) as checked:
        check_all(targets)
    with pytest.raises(kind) as written:
        write_all([(target, "m", "/srv/m") for target in targets])
    assert (checked.value.message, checked.value.hint) == (written.value.message, written.value.hint)
    assert entries(tmp_path) == before
    assert old.read_bytes() == OLD


@pytest.mark.parametrize("call", ["mkdir", "open", "write"])
def test_a_directory_that_cannot_be_made_or_written(
    tmp_path: Path, old: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Denying:
        def __getattr__(self, name: str) -> object:
            return deny if name == call else getattr(os, name)

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    before = entries(tmp_path)
    with monkeypatch.context() as patched:
        for module in (replacing, posix_files):
            patched.setattr(module, "os", Denying())
        with pytest.raises(PermissionDenied, match="Permission denied"):
            check_all([str(old), str(tmp_path / "made" / "for" / "it.json")])
    assert entries(tmp_path) == before
