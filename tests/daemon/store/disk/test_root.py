"""Which directory the store is in, and what a root that cannot be one says."""

from __future__ import annotations

import errno
import grp
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from modeld.config import ConfigError
from modeld.platform.posix import durable as calls
from modeld.store.disk import durable
from modeld.store.disk.layout import LAYOUT_VERSION, Layout
from modeld.store.disk.root import RootUnusable, prepare_root, resolve_root
from modelwire.errors import PermissionDenied

HOME = {"HOME": "/home/ada"}
WINDOWS = {"USERPROFILE": "C:\\Users\\ada", "LOCALAPPDATA": "C:\\Users\\ada\\AppData\\Local", "APPDATA": "D:\\Roam"}


@pytest.mark.parametrize(
    ("configured", "environ", "platform", "root"),
    [
        ("/conf", {"MODELS_HOME": "/env", **HOME}, "linux", "/conf"),
        ("  /conf/ \n", HOME, "linux", "/conf"),
        ("   ", {"MODELS_HOME": "/env", **HOME}, "linux", "/env"),
        (None, {"MODELS_HOME": "  /env  "}, "linux", "/env"),
        (None, {"MODELS_HOME": "/env"}, "linux", "/env"),
        (None, {"MODELS_HOME": "\t", **HOME}, "linux", "/home/ada/.local/share/models"),
        (None, {"XDG_DATA_HOME": "/data", **HOME}, "linux", "/data/models"),
        (None, {"XDG_DATA_HOME": "/data"}, "freebsd14", "/data/models"),
        (None, {"XDG_DATA_HOME": " ", **HOME}, "linux", "/home/ada/.local/share/models"),
        (None, {"XDG_DATA_HOME": "relative", **HOME}, "linux", "/home/ada/.local/share/models"),
        (None, HOME, "openbsd7", "/home/ada/.local/share/models"),
        (None, {"XDG_DATA_HOME": "/data", **HOME}, "darwin", "/home/ada/Library/Application Support/models"),
        (None, WINDOWS, "win32", "C:\\Users\\ada\\AppData\\Local\\models"),
        (None, WINDOWS | {"LOCALAPPDATA": " "}, "win32", "C:\\Users\\ada\\AppData\\Local\\models"),
        (None, {"USERPROFILE": "D:\\ada"}, "win32", "D:\\ada\\AppData\\Local\\models"),
        ("~/m", HOME, "linux", "/home/ada/m"),
        ("~\\m", HOME, "linux", "/home/ada/m"),
        (None, {"MODELS_HOME": "~/m", **HOME}, "darwin", "/home/ada/m"),
        ("~\\m", WINDOWS, "win32", "C:\\Users\\ada\\m"),
        ("~/m", WINDOWS, "win32", "C:\\Users\\ada\\m"),
    ],
)
def test_the_first_hit_wins(configured: str | None, environ: Mapping[str, str], platform: str, root: str) -> None:
    assert resolve_root(configured, environ, platform) == root


@pytest.mark.parametrize(
    ("configured", "environ", "platform", "named"),
    [
        (None, {}, "linux", "HOME"),
        (None, {"HOME": " "}, "linux", "HOME"),
        (None, {"HOME": "relative"}, "linux", "HOME"),
        (None, {}, "darwin", "HOME"),
        (None, {"APPDATA": "D:\\Roam"}, "win32", "LOCALAPPDATA"),
        (None, {"APPDATA": "D:\\Roam", "USERPROFILE": "ada"}, "win32", "LOCALAPPDATA"),
        ("~/m", {}, "linux", "models_home"),
        (None, {"MODELS_HOME": "~/m"}, "linux", "MODELS_HOME"),
        ("models", HOME, "linux", "models_home"),
        (None, {"MODELS_HOME": "./models", **HOME}, "linux", "MODELS_HOME"),
        (None, {"MODELS_HOME": "~", **HOME}, "linux", "MODELS_HOME"),
        ("/a\0b", HOME, "linux", "models_home"),
    ],
)
def test_nothing_usable_is_a_configuration_error(
    configured: str | None, environ: Mapping[str, str], platform: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        resolve_root(configured, environ, platform)


def test_the_skeleton_is_made_once_and_kept(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "er" / "models"
    layout = prepare_root(str(root) + "/")
    assert layout.root == str(root)
    assert all(os.path.isdir(path) for path in layout.skeleton)
    assert Path(layout.version_file).read_text() == f"{LAYOUT_VERSION}\n"
    (root / "manifests" / "keep.json").write_text("{}")
    before = sorted(str(path) for path in root.rglob("*"))
    prepare_root(str(root))
    assert sorted(str(path) for path in root.rglob("*")) == before


def test_what_is_made_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that goes with the power takes its synced blobs along; an empty version file locks the store."""
    synced: list[str] = []
    named: list[tuple[str, set[str]]] = []
    real_sync, real_name = durable.sync_file, durable.name_replacing

    def sync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_sync(descriptor)

    def name(temporary: str, target: str) -> None:
        named.append((target, {temporary} & set(synced)))
        synced.append(f"named {target}")
        real_name(temporary, target)

    monkeypatch.setattr(durable, "sync_file", sync)
    monkeypatch.setattr(durable, "name_replacing", name)
    layout = prepare_root(str(tmp_path / "new" / "er" / "models"))
    made = {str(path) for path in tmp_path.rglob("*") if path.is_dir()}
    assert {os.path.dirname(path) for path in made} <= set(synced)
    ((version, bytes_synced),) = named
    assert version == layout.version_file
    assert bytes_synced, "its bytes before its name"
    assert layout.private in synced[synced.index(f"named {version}") :], "its name after that"
    synced.clear()
    prepare_root(layout.root)
    inside = {os.path.dirname(path) for path in made if path.startswith(f"{layout.root}/")}
    assert inside <= set(synced), "the start before may have been killed before it came to that"


def test_a_link_to_a_directory_is_a_fine_root(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "models").symlink_to("disk")
    prepare_root(str(tmp_path / "models"))
    assert (tmp_path / "disk" / "blobs" / "sha256").is_dir()


def test_a_dangling_link_names_its_target(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(tmp_path / "gone")
    with pytest.raises(RootUnusable, match=r"symbolic link to .*gone, which does not exist"):
        prepare_root(str(tmp_path / "models"))
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("place", ["models", "models/blobs", "models/.modeld", "models/locks/quarantine"])
def test_a_file_in_the_way_is_named_and_nothing_is_left(tmp_path: Path, place: str) -> None:
    blocked = tmp_path / place
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(RootUnusable, match=f"{blocked}: a file") as caught:
        prepare_root(str(tmp_path / "models"))
    assert caught.value.hint is not None
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_a_parent_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RootUnusable, match="Not a directory"):
        prepare_root(str(tmp_path / "file" / "models"))


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_filesystem_that_takes_nothing_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    root = tmp_path / "models"
    made = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        if path.endswith("locks"):
            raise OSError(code, os.strerror(code), path)
        made(path, mode)

    with monkeypatch.context() as patched:
        patched.setattr(os, "mkdir", mkdir)
        with pytest.raises(RootUnusable, match=os.strerror(code)) as caught:
            prepare_root(str(root))
    assert caught.value.hint is not None
    assert not root.exists()


def test_a_full_filesystem_that_still_takes_directories_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(durable, "sync_file", full)
        with pytest.raises(RootUnusable, match="No space"):
            prepare_root(str(tmp_path / "models"))
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("step", ["os.open", "durable.sync_file"])
def test_whoever_was_quicker_and_swept_staging_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Daemons that start at once on a new store: the owner clears staging while the others still look."""
    layout = Layout(str(tmp_path / "models"))
    module, _, name = step.partition(".")
    stepped = getattr({"os": os, "durable": durable}[module], name)

    def quicker(*arguments: object, **options: object) -> object:
        done = stepped(*arguments, **options)
        staged = os.listdir(layout.staging) if os.path.isdir(layout.staging) else []
        for left in staged:
            os.unlink(f"{layout.staging}/{left}")
        if staged:
            Path(layout.version_file).write_text(f"{LAYOUT_VERSION}\n")
        return done

    with monkeypatch.context() as patched:
        patched.setattr(step if module == "os" else f"modeld.store.disk.{step}", quicker)
        assert prepare_root(layout.root) == layout
    assert os.listdir(layout.staging) == []


def test_a_newer_layout_is_refused_with_both_versions(tmp_path: Path) -> None:
    layout = prepare_root(str(tmp_path / "models"))
    Path(layout.version_file).write_text(f"{LAYOUT_VERSION + 1}\n")
    with pytest.raises(RootUnusable, match=f"version {LAYOUT_VERSION + 1}.*up to {LAYOUT_VERSION}"):
        prepare_root(layout.root)


@pytest.mark.parametrize("text", ["", "two", "\0\0\0\0"])
def test_a_damaged_version_is_named(tmp_path: Path, text: str) -> None:
    layout = prepare_root(str(tmp_path / "models"))
    Path(layout.version_file).write_text(text)
    with pytest.raises(RootUnusable, match="version does not hold a layout version"):
        prepare_root(layout.root)


def test_a_part_on_another_filesystem_is_refused(tmp_path: Path, elsewhere: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    (root / "manifests").symlink_to(elsewhere)
    with pytest.raises(RootUnusable, match="two filesystems"):
        prepare_root(str(root))


def test_a_shared_store_belongs_to_its_group(tmp_path: Path) -> None:
    group = next((entry for entry in grp.getgrall() if entry.gr_gid != os.getgid()), None)
    if os.getuid() != 0 or group is None:
        pytest.skip("only root may give a directory to another group")
    old_mask = os.umask(0o077)
    try:
        layout = prepare_root(str(tmp_path / "models"), group=group.gr_name)
    finally:
        os.umask(old_mask)
    for path in layout.skeleton:
        info = os.stat(path)
        assert info.st_gid == group.gr_gid
        assert stat.S_IMODE(info.st_mode) == 0o2750
    assert os.stat(tmp_path).st_gid != group.gr_gid


def test_an_existing_store_is_given_to_the_group_later(tmp_path: Path) -> None:
    prepare_root(str(tmp_path / "models"))
    layout = prepare_root(str(tmp_path / "models"), group=str(os.getgid()))
    assert all(os.stat(path).st_mode & stat.S_ISGID for path in layout.skeleton)


def test_an_unknown_group_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-group"):
        prepare_root(str(tmp_path / "models"), group="no-such-group")
    assert not (tmp_path / "models").exists()


AS_NOBODY = """
    import os, sys
    from modeld.store.disk.root import prepare_root
    from modelwire.errors import PermissionDenied
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    try:
        prepare_root(sys.argv[1])
    except PermissionDenied as fault:
        print(fault.message); print(fault.hint)
"""


@pytest.mark.parametrize("existing", [False, True])
def test_a_refused_permission_says_so_and_what_to_do(existing: bool) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    # Not below tmp_path: others cannot even get there.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        root = Path(directory, "models")
        if existing:
            prepare_root(str(root))
        before = sorted(str(path) for path in Path(directory).rglob("*"))
        outcome = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(AS_NOBODY), str(root)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        message, hint = outcome.stdout.splitlines()
        assert message.startswith("permission denied on ")
        assert str(root) in message
        assert "Run modeld as the user" in hint
        place = Path(directory, "models/.modeld/staging") if existing else Path(directory)
        assert message.startswith(f"permission denied on {place}, ")
        assert hint.endswith(f"change the owner or mode of {place}.")
        assert sorted(str(path) for path in Path(directory).rglob("*")) == before


def test_permission_denied_is_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, _mode: int = 0o777) -> None:
        raise PermissionError(errno.EACCES, "no", path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(PermissionDenied) as caught:
        prepare_root(str(tmp_path / "models"))
    assert caught.value.details["path"] == str(tmp_path / "models")
    assert Layout(str(tmp_path / "models")).root in caught.value.message


# -- what the filesystem can


def refusing(code: int) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> Any:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        (["os.fchmod"], "make files read-only"),
        (["os.link", "_rename_exclusive"], "rename a file without replacing another, nor link to it"),
        (["os.link", "os.symlink"], "give a file a second name, by a hard or by a symbolic link"),
    ],
)
def test_a_filesystem_that_lacks_what_each_add_needs_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: list[str], said: str, code: int
) -> None:
    """exFAT takes directories and files, and refuses to make a file read-only: after all bytes were copied."""
    with monkeypatch.context() as patched:
        for call in lacks:
            if call.startswith("os."):
                patched.setattr(call, refusing(code))
            else:
                patched.setattr(calls, call, lambda *_: None)
        with pytest.raises(RootUnusable, match=f"its filesystem cannot {said}") as caught:
            prepare_root(str(tmp_path / "models"))
    assert caught.value.hint is not None
    assert "another filesystem" in caught.value.hint
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("lacks", ["os.link", "os.symlink", "_rename_exclusive"])
def test_one_way_of_two_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    if lacks.startswith("os."):
        monkeypatch.setattr(lacks, refusing(errno.EPERM))
    else:
        monkeypatch.setattr(calls, lacks, lambda *_: None)
    layout = prepare_root(str(tmp_path / "models"))
    assert os.listdir(layout.staging) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_store_on_a_filesystem_that_takes_no_file_any_more_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Its models are served, and removing some makes room."""
    layout = prepare_root(str(tmp_path / "models"))
    monkeypatch.setattr(durable, "create_file", refusing(code))
    assert prepare_root(layout.root) == layout
