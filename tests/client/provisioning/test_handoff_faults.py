"""Handoffs whose writing fails, is interrupted or is killed at each call: in which order they are made durable, that
each target stays as it was or is new, and what the error says of it."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelclient.platform import posix_files
from modelclient.provisioning import replacing
from modelclient.provisioning.handoff import write_all
from modelclient.provisioning.replacing import replace_all
from modelwire import errors
from modelwire.errors import WireError
from rigs.forked import forked
from rigs.handoff_rig import OLD, Calls, Site, content, failing, planted, sites


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


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
