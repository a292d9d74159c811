"""Handoffs: what is in them, where they are, and that a failure at any call leaves each target as it was."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelclient.platform import posix_files
from modelclient.provisioning import replacing
from modelclient.provisioning.handoff import DEFAULT, targets, write_all
from modelclient.provisioning.replacing import MAX_OLD_BYTES, replace_all
from modelwire import errors
from modelwire.errors import WireError
from rigs.forked import forked

Strike = Callable[[str], None]

COUNTED = {
    "open",
    "write",
    "fsync",
    "fstat",
    "lstat",
    "readlink",
    "close",
    "mkdir",
    "link",
    "replace",
    "unlink",
    "rmdir",
}
OLD = b'{"model": {"id": "old", "path": "/old"}}\n'


def content(number: int) -> bytes:
    return b'{"model": {"id": "m%d", "path": "/srv/models/%d"}}\n' % (number, number)


class Calls:
    """Stands where the modules see the module os: strikes at the n-th counted call, before or after it is made, and
    with `lasting` at all that follow."""

    def __init__(self, nth: int, strike: Strike, *, after: bool = False, lasting: bool = False) -> None:
        self.nth, self.strike, self.after, self.lasting = nth, strike, after, lasting
        self.made: list[tuple[str, tuple[object, ...], object]] = []
        self.count = 0
        self.struck: str | None = None

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in COUNTED:
            return real

        def call(*arguments: object, **named: object) -> object:
            self.count += 1
            due = self.count == self.nth or (self.lasting and self.count > self.nth)
            # A close that reports an error has closed nonetheless.
            before = due and not self.after and name != "close"
            if before:
                self._strike(name)
            try:
                result = real(*arguments, **named)
            except OSError:
                self.struck = self.struck or (name if due else None)
                raise
            if due and not before:
                self._strike(name)
            self.made.append((name, arguments, result))
            return result

        return call

    def _strike(self, name: str) -> None:
        self.struck = self.struck or name
        self.strike(name)


@contextmanager
def planted(calls: Calls) -> Iterator[Calls]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (replacing, posix_files):
            patch.setattr(module, "os", calls)
        yield calls


def failing(number: int) -> Strike:
    def strike(name: str) -> None:
        raise OSError(number, os.strerror(number))

    return strike


class Site:
    """Three targets: one that is there, one whose directories are missing, and a link to one that is there."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.paths = tuple(str(base / name) for name in ("a/one.json", "b/c/two.json", "link.json"))
        self.handoffs = [(path, f"m{number}", f"/srv/models/{number}") for number, path in enumerate(self.paths)]
        for name in ("a", "d"):
            (base / name).mkdir(parents=True)
        (base / "a" / "one.json").write_bytes(OLD)
        (base / "d" / "three.json").write_bytes(OLD)
        (base / "link.json").symlink_to("d/three.json")
        self.before = self.entries()

    def entries(self) -> dict[str, bytes | str | None]:
        """What is below, by path: the bytes of a file, where a link leads to, None for a directory."""
        return {
            str(path.relative_to(self.base)): os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None
            for path in self.base.rglob("*")
        }

    def after(self) -> dict[str, bytes | str | None]:
        new = {"a/one.json": content(0), "b": None, "b/c": None, "b/c/two.json": content(1), "d/three.json": content(2)}
        return {**self.before, **new}

    def hidden(self) -> list[Path]:
        return list(self.base.rglob(".modelctl-*.tmp"))

    def assert_each_whole(self) -> None:
        found = self.entries()
        assert found["a/one.json"] in (OLD, content(0))
        assert found["d/three.json"] in (OLD, content(2))
        assert found.get("b/c/two.json", content(1)) == content(1)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def sites(tmp_path: Path) -> Iterator[tuple[int, Site]]:
    """With the number of the call that is struck, for as many as there are."""
    for nth in range(1, 200):
        yield nth, Site(tmp_path / str(nth))


# -- what and where


def test_the_content(tmp_path: Path) -> None:
    target = tmp_path / "handoff.json"
    write_all([(str(target), "hf:org/répo", '/srv/"models"/data')])
    assert target.read_bytes().endswith(b'"}}\n')
    assert json.loads(target.read_bytes()) == {"model": {"id": "hf:org/répo", "path": '/srv/"models"/data'}}


def test_the_targets_of_several_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = f"{tmp_path}/.runtime/engines/llamacpp"
    assert targets(0) == ()
    assert targets(1) == (f"{here}.json",)
    assert targets(3) == (f"{here}.json", f"{here}-2.json", f"{here}-3.json")
    assert targets(2, base="/srv") == ("/srv/.runtime/engines/llamacpp.json", "/srv/.runtime/engines/llamacpp-2.json")
    assert targets(1, base="sub") == (f"{tmp_path}/sub/{DEFAULT}",)
    assert targets(2, base="/srv", handoff="x.y.json") == (f"{tmp_path}/x.y.json", f"{tmp_path}/x.y-2.json")
    assert targets(2, handoff="/srv/.hidden") == ("/srv/.hidden", "/srv/.hidden-2")


def test_targets_need_a_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(errors.NotFound, match="the working directory is not there"):
        targets(1)


def test_all_are_written(site: Site) -> None:
    write_all(site.handoffs)
    assert site.entries() == site.after()
    write_all(site.handoffs)
    assert site.entries() == site.after()


def test_none_is_fine(site: Site) -> None:
    write_all([])
    assert site.entries() == site.before


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o000, 0o644)])
def test_the_mode_is_that_of_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    (tmp_path / "old.json").write_bytes(OLD)
    (tmp_path / "old.json").chmod(0o400)
    before = os.umask(mask)
    try:
        write_all([(str(tmp_path / name), "m", "/m") for name in ("old.json", "new/one.json")])
    finally:
        os.umask(before)
    for name in ("old.json", "new/one.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize(
    ("target", "model", "path", "what"),
    [
        ("/t.json", "m", "relative", "the model's path 'relative' of a handoff is not absolute"),
        ("/t.json", "m", "", "the model's path '' of a handoff is not absolute"),
        ("/t.json", "m", "/a\0b", "is not a path"),
        ("/t.json", "m", "/a\udcff", "JSON holds Unicode only"),
        ("/t.json", "m\ud800", "/a", "JSON holds Unicode only"),
        ("/t.json", "", "/a", "needs the id of its model"),
        ("t.json", "m", "/a", "the target 't.json' of a handoff is not absolute"),
        ("/t\0.json", "m", "/a", "is not a path"),
        ("/t\ud800.json", "m", "/a", "is not a path"),
    ],
)
def test_what_no_handoff_can_say(site: Site, target: str, model: str, path: str, what: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=what):
        write_all([*site.handoffs, (target, model, path)])
    assert site.entries() == site.before


# -- targets that are not as they should be


def test_a_target_that_is_no_file(site: Site) -> None:
    os.mkfifo(site.base / "pipe")
    (site.base / "huge").write_bytes(bytes(MAX_OLD_BYTES + 1))
    (site.base / "loop").symlink_to("loop")
    (site.base / "dangling").symlink_to("missing/file.json")
    (site.base / "to_directory").symlink_to("a")
    before = site.entries()
    for name, kind, what in [
        ("a", errors.InvalidRequest, "is a directory"),
        ("to_directory", errors.InvalidRequest, "is a directory"),
        ("a/", errors.InvalidRequest, "names a directory"),
        ("new/", errors.InvalidRequest, "names a directory"),
        ("a/..", errors.InvalidRequest, "names a directory"),
        ("pipe", errors.InvalidRequest, "is not a regular file"),
        ("huge", errors.InvalidRequest, f"has {MAX_OLD_BYTES + 1} bytes"),
        ("loop", errors.InvalidRequest, "leads to no end"),
        ("dangling", errors.NotFound, "is a symbolic link to .*/missing/file.json"),
        ("a/one.json/below.json", errors.InvalidRequest, "Not a directory"),
        ("a/one.json/below/it.json", errors.InvalidRequest, "Not a directory"),
        ("dangling/below.json", errors.NotFound, "No such file or directory"),
        ("x" * 256, errors.InvalidRequest, "File name too long"),
    ]:
        with pytest.raises(WireError, match=what) as caught:
            write_all([*site.handoffs, (f"{site.base}/{name}", "m", "/m")])
        assert type(caught.value) is kind
        assert caught.value.hint
        assert site.entries() == before


def test_a_dangling_link_into_a_directory_that_is_there(site: Site) -> None:
    (site.base / "dangling").symlink_to("d/new.json")
    write_all([(str(site.base / "dangling"), "m0", "/srv/models/0")])
    assert os.readlink(site.base / "dangling") == "d/new.json"
    assert (site.base / "d" / "new.json").read_bytes() == content(0)


def test_the_link_of_another_user_is_not_followed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix_files, "is_trusted", lambda status: not stat.S_ISLNK(status.st_mode))
    with pytest.raises(errors.PermissionDenied, match=r"link\.json is a symbolic link that another user made"):
        write_all(site.handoffs)
    assert site.entries() == site.before


def test_who_is_trusted() -> None:
    def owned(uid: int) -> os.stat_result:
        return os.stat_result((stat.S_IFLNK, 1, 1, 1, uid, 1, 1, 1, 1, 1))

    me = os.geteuid()
    assert [posix_files.is_trusted(owned(uid)) for uid in (0, me, me + 1)] == [True, True, False]


def test_two_handoffs_with_one_target(site: Site) -> None:
    (site.base / "alias").symlink_to("a")
    before = site.entries()
    for second in ("a/one.json", "alias/one.json"):
        with pytest.raises(errors.InvalidRequest, match="two contents have the same target"):
            write_all([(site.paths[0], "m", "/m"), (f"{site.base}/{second}", "n", "/n")])
        assert site.entries() == before


# -- in which order


def test_what_is_synced_before_and_after_the_names(site: Site) -> None:
    """Every content before the first name, every directory after the last one, and each new directory in its parent."""
    with planted(Calls(0, failing(errno.EIO))) as calls:
        write_all(site.handoffs)
    opened: dict[object, str] = {}
    steps: list[tuple[str, str]] = []
    for name, arguments, result in calls.made:
        if name == "open":
            opened[result] = str(arguments[0])
        elif name == "fsync":
            steps.append(("sync", opened[arguments[0]]))
        elif name in ("replace", "mkdir"):
            steps.append((name, str(arguments[-1])))
    base = str(site.base)
    named = [number for number, (name, _) in enumerate(steps) if name == "replace"]
    assert [steps[number][1] for number in named] == [*site.paths[:2], f"{base}/d/three.json"]
    before, after = steps[: named[0]], steps[named[-1] + 1 :]
    assert before[:4] == [("mkdir", f"{base}/b"), ("sync", base), ("mkdir", f"{base}/b/c"), ("sync", f"{base}/b")]
    assert [(name, os.path.dirname(path)) for name, path in before[4:]] == [
        ("sync", f"{base}/{directory}") for directory in ("a", "b/c", "d")
    ]
    assert after == [("sync", f"{base}/{directory}") for directory in ("a", "b/c", "d")]


def test_a_directory_whose_filesystem_cannot_sync_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(posix_files, "sync_file", refusing)
    posix_files.sync_directory(str(tmp_path))
    with pytest.raises(WireError, match="Invalid argument"):
        write_all([(str(tmp_path / "x.json"), "m", "/m")])
    assert os.listdir(tmp_path) == []


# -- failures


def fault_of(site: Site) -> WireError | None:
    try:
        write_all(site.handoffs)
    except WireError as error:
        return error
    return None


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_each_call_fails_once(tmp_path: Path, number: int, links: bool) -> None:
    struck = set()
    for nth, site in sites(tmp_path):
        with planted(Calls(nth, failing(number))) as calls, no_links(links):
            fault = fault_of(site)
        struck.add(calls.struck)
        if calls.struck is None:
            assert fault is None
            break
        if fault is not None:
            assert fault.details["errno"] == errno.errorcode[number]
            assert "kept" not in fault.details
        else:
            # The new contents last already: what could not be removed is all that stays.
            assert calls.struck == "unlink"
            for left in site.hidden():
                left.unlink()
        assert site.entries() == (site.before if fault else site.after()), (nth, calls.struck)
    assert struck >= {"open", "write", "fsync", "close", "mkdir", "replace", "unlink", "lstat", None}


@contextmanager
def no_links(links: bool) -> Iterator[None]:
    """A filesystem without hard links, unless there are."""

    def refusing(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with pytest.MonkeyPatch.context() as patch:
        if not links:
            patch.setattr(os, "link", refusing)
        yield


def test_each_call_and_all_that_follow_fail(tmp_path: Path) -> None:
    """Then nothing can be put back: the error says so, and where the old contents are."""
    kept_at_all = False
    for nth, site in sites(tmp_path):
        with planted(Calls(nth, failing(errno.EROFS), lasting=True)) as calls:
            fault = fault_of(site)
        if calls.struck is None:
            break
        site.assert_each_whole()
        if fault is None:
            assert calls.struck == "unlink"
            continue
        kept: dict[str, str | None] = fault.details.get("kept", {})
        kept_at_all |= bool(kept)
        for target, where in kept.items():
            if where is None:
                assert f"{target} could not be removed again" in fault.message
                assert target == site.paths[1]
            else:
                assert f"{target} could not be put back from {where}" in fault.message
                assert Path(where).read_bytes() == OLD
        found = site.entries()
        named = {"a/one.json": content(0), "b/c/two.json": content(1), "d/three.json": content(2)}
        assert {str(site.base / name) for name, new in named.items() if found.get(name) == new} <= kept.keys()
    assert kept_at_all
    assert nth > 20


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_interrupted_at_each_call(tmp_path: Path, after: bool) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    for nth, site in sites(tmp_path):
        with planted(Calls(nth, interrupt, after=after)) as calls:
            try:
                write_all(site.handoffs)
                done = True
            except KeyboardInterrupt:
                done = False
        if calls.struck is None:
            assert done
            break
        if calls.struck == "unlink":
            # The new contents last already: the interrupt comes while what is hidden is removed.
            done = True
            for left in site.hidden():
                left.unlink()
        assert site.entries() == (site.after() if done else site.before), (nth, calls.struck)
    assert nth > 20


def test_a_content_that_another_program_wrote_meanwhile_stays(tmp_path: Path) -> None:
    other = b"written by another program\n"
    with planted(Calls(0, failing(errno.EIO))) as calls:
        write_all(Site(tmp_path / "measured").handoffs)
    last_sync = max(number for number, (name, *_) in enumerate(calls.made, 1) if name == "fsync")
    site = Site(tmp_path / "site")

    def strike(name: str) -> None:
        (site.base / "other").write_bytes(other)
        (site.base / "other").rename(site.paths[0])
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with planted(Calls(last_sync, strike)), pytest.raises(errors.Internal):
        write_all(site.handoffs)
    assert site.entries() == {**site.before, "a/one.json": other}


def test_a_directory_that_another_program_makes_meanwhile(site: Site) -> None:
    def make(name: str) -> None:
        if name == "mkdir":
            (site.base / "b").mkdir(exist_ok=True)
            (site.base / "b" / "theirs").touch()

    with planted(Calls(1, make, lasting=True)):
        write_all(site.handoffs)
    assert site.entries() == {**site.after(), "b/theirs": b""}


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, errors.NoSpace),
        (errno.EDQUOT, errors.QuotaExceeded),
        (errno.EROFS, errors.PermissionDenied),
        (errno.EACCES, errors.PermissionDenied),
        (errno.ENOENT, errors.NotFound),
        (errno.EISDIR, errors.InvalidRequest),
        (errno.EIO, errors.Internal),
    ],
)
def test_what_a_failure_means(site: Site, number: int, kind: type[WireError], monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(temporary: str, name: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(WireError, match=f"cannot replace {site.paths[0]}: {os.strerror(number)}") as caught:
        write_all(site.handoffs)
    assert type(caught.value) is kind
    assert caught.value.details == {"path": site.paths[0], "errno": errno.errorcode[number]}
    assert (caught.value.hint or "").endswith(".")
    assert site.entries() == site.before


def test_a_write_takes_as_many_calls_as_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    replace_all([(str(tmp_path / "x"), OLD)])
    assert (tmp_path / "x").read_bytes() == OLD


# -- kills, and others at the same time


def write_and_die(base: str, nth: str) -> None:
    """Is killed before the n-th call."""
    calls = Calls(int(nth), lambda _: os.kill(os.getpid(), signal.SIGKILL))
    setattr(replacing, "os", calls)  # noqa: B010
    setattr(posix_files, "os", calls)  # noqa: B010
    paths = [f"{base}/{name}" for name in ("a/one.json", "b/c/two.json", "link.json")]
    write_all([(path, f"m{number}", f"/srv/models/{number}") for number, path in enumerate(paths)])


def test_killed_at_each_call(tmp_path: Path) -> None:
    """Each target has its old content or its new one, and the same call again replaces all."""
    seen = set()
    with forked(__file__, "write_and_die") as run:
        for nth, site in sites(tmp_path):
            outcome = run(str(site.base), str(nth))
            assert outcome.returncode in (0, -signal.SIGKILL), outcome.stdout
            site.assert_each_whole()
            seen.add(tuple(site.entries().get(name) for name in ("a/one.json", "b/c/two.json", "d/three.json")))
            write_all(site.handoffs)
            for left in site.hidden():
                left.unlink()
            assert site.entries() == site.after()
            if outcome.returncode == 0:
                break
    assert (OLD, None, OLD) in seen
    assert (content(0), content(1), content(2)) in seen
    assert nth > 20


def test_a_reader_never_sees_a_part(site: Site) -> None:
    target = Path(site.paths[0])
    wrong: list[bytes] = []
    reading, ended = threading.Event(), threading.Event()

    def read() -> None:
        while not ended.is_set():
            if (found := target.read_bytes()) not in (OLD, *map(content, range(3))):
                wrong.append(found)
            reading.set()

    def write(number: int) -> None:
        for _ in range(30):
            write_all([(str(target), f"m{number}", f"/srv/models/{number}")])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert reading.wait(20)
        writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    finally:
        ended.set()
        reader.join()
    assert wrong == []
    assert target.read_bytes() in map(content, range(3))
    assert site.hidden() == []


@pytest.mark.parametrize(("number", "made"), [(0, ["full"]), (errno.ENOTSUP, ["full", "fsync"]), (errno.EIO, ["full"])])
def test_macos_flushes_the_drives_cache_too(number: int, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def full(descriptor: int, command: int) -> None:
        calls.append("full")
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("modelclient.platform.posix_files.sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr("modelclient.platform.posix_files.fcntl", SimpleNamespace(F_FULLFSYNC=51, fcntl=full))
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    with pytest.raises(OSError, match="error") if number == errno.EIO else nullcontext():
        posix_files.sync_file(1)
    assert calls == made
