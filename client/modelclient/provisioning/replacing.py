"""Small files replaced together: all of them, or none.

`replace_all` stages every new content first, as a synced temporary beside its target, and keeps every old content under
a second name. Then it renames, and syncs the directories. A failure up to there, Ctrl-C included, puts the old contents
back and removes what is new. A reader sees an old file or a new one, never a part.

A kill or a power cut can come between two renames: then some targets have the new content and the others the old one,
each whole, and hidden files `.modelctl-*.tmp` may be left beside them. The same call again replaces all.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from modelclient.platform import files
from modelwire.errors import Internal, InvalidRequest, NoSpace, NotFound, PermissionDenied, QuotaExceeded, WireError

MODE: Final = 0o644
"""Less the umask: a path is no secret, and the engine may run as another user."""

MAX_OLD_BYTES: Final = 1 << 20
"""What is larger was never a small file: a model's path, say, that was given for a target."""

_PROBE: Final = b"\n"
"""What a check writes: a full filesystem still makes empty files."""

_MAX_LINKS: Final = 40
"""As many as Linux follows in a path."""

_NO_LINK: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""A filesystem without hard links, or a file of another user, which Linux lets nobody else link."""


def replace_all(contents: Sequence[tuple[str, bytes]]) -> None:
    """Gives each target, an absolute path, its content. Makes missing directories. Blocks.

    A target that is a symbolic link of this user or of root is followed: the link stays, and the file that it leads to
    is replaced. Raises a WireError; its `details.kept` says, by target, where an old content is that could not be put
    back, null for a target that was not there before.
    """
    change = _Change([(_followed(target), data) for target, data in contents])
    try:
        change.stage()
        change.name()
    except BaseException as error:
        kept = change.undo()
        if kept and isinstance(error, WireError):
            raise _with_kept(error, kept) from error
        raise
    change.forget_old()


def check_all(targets: Sequence[str]) -> None:
    """Raises what `replace_all` would raise for these targets now: a directory that cannot be made or written, a target
    that is none. It makes what it needs and removes it again, and touches no target. Blocks."""
    change = _Change([(_followed(target), _PROBE) for target in targets])
    try:
        change.stage_new()
    finally:
        change.undo()


class _Target:
    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.directory = os.path.dirname(path)
        self._data = data
        self._temporary = self._hidden()
        self._kept = self._hidden()
        self._identity: tuple[int, int] | None = None
        """Of the new content, once its name is about to change."""

    def _hidden(self) -> str:
        return os.path.join(self.directory, f".modelctl-{os.urandom(8).hex()}.tmp")

    def stage(self) -> None:
        with _faults("write", self.path):
            _write(self._temporary, self._data, MODE)

    def keep_old(self) -> None:
        with _faults("keep the old content of", self.path):
            try:
                os.link(self.path, self._kept, follow_symlinks=False)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                self._copy_old()

    def _copy_old(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        with open(descriptor, "rb") as old:
            _write(self._kept, old.read(), stat.S_IMODE(os.fstat(descriptor).st_mode))

    def name(self) -> None:
        with _faults("replace", self.path):
            self._identity = _identity(self._temporary)
            os.replace(self._temporary, self.path)

    def forget_old(self) -> None:
        _remove(self._kept)

    def undo(self) -> bool:
        """Puts the old content back when the target has the new one, not when another program has replaced it since.
        Returns False when that fails: then `kept` has the old content."""
        try:
            if self._identity is not None and _identity(self.path) == self._identity:
                if self.kept is not None:
                    os.replace(self._kept, self.path)
                else:
                    os.unlink(self.path)
        except OSError:
            return False
        for path in (self._temporary, self._kept):
            _remove(path)
        return True

    @property
    def kept(self) -> str | None:
        """Where the old content is; None when there was none."""
        return self._kept if os.path.lexists(self._kept) else None


class _Change:
    def __init__(self, contents: Sequence[tuple[str, bytes]]) -> None:
        self._targets = [_Target(path, data) for path, data in contents]
        self._directories = dict.fromkeys(target.directory for target in self._targets)
        self._made: list[str] = []
        places = {(os.path.realpath(each.directory), os.path.basename(each.path)) for each in self._targets}
        if len(places) < len(self._targets):
            listed = ", ".join(sorted(target.path for target in self._targets))
            raise InvalidRequest(
                f"two contents have the same target, of {listed}", hint="Give each a target of its own."
            )

    def stage(self) -> None:
        self.stage_new()
        for target in self._targets:
            target.keep_old()

    def stage_new(self) -> None:
        for directory in self._directories:
            self._make_directories(directory)
        for target in self._targets:
            target.stage()

    def _make_directories(self, path: str) -> None:
        missing: list[str] = []
        while not os.path.lexists(path):
            missing.append(path)
            path = os.path.dirname(path)
        for each in reversed(missing):
            with _faults("make the directory", each):
                self._made.append(each)  # before it is made: Ctrl-C must not come between
                try:
                    os.mkdir(each)
                except FileExistsError:  # another program has made it
                    self._made.pop()
                files().sync_directory(os.path.dirname(each))

    def name(self) -> None:
        for target in self._targets:
            target.name()
        for directory in self._directories:
            with _faults("sync the directory", directory):
                files().sync_directory(directory)

    def undo(self) -> dict[str, str | None]:
        """Returns, by target, where the old content is that could not be put back; None when there was none."""
        kept = {target.path: target.kept for target in self._targets if not target.undo()}
        for directory in self._directories:
            with suppress(OSError):
                files().sync_directory(directory)
        for directory in reversed(self._made):
            with suppress(OSError):
                os.rmdir(directory)
        return kept

    def forget_old(self) -> None:
        """The new contents last: a file that stays hidden beside one changes nothing of that."""
        for target in self._targets:
            target.forget_old()


def _followed(target: str) -> str:
    """The path that the target leads to when it is a link; there is a small file, or nothing."""
    if os.path.basename(target) in ("", ".", ".."):
        raise _unfit(target, "names a directory, and the target is a file", "Give the path of a file.")
    path = target
    with _faults("look at", target):
        for _ in range(_MAX_LINKS):
            try:
                status = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                break
            if not stat.S_ISLNK(status.st_mode):
                _check_old(path, status)
                break
            if not files().is_trusted(status):
                raise PermissionDenied(
                    f"{path} is a symbolic link that another user made, and is not followed",
                    hint="Remove the link, or give the file that it leads to as the target.",
                    details={"path": path},
                )
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        else:
            raise _unfit(target, "is a symbolic link that leads to no end", "Remove the link.")
    if path != target and not os.path.isdir(os.path.dirname(path)):
        raise NotFound(
            f"{target} is a symbolic link to {path}, and the directory of that is not there",
            hint="Make the directory, mount its filesystem, or remove the link.",
            details={"path": path},
        )
    return path


def _check_old(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _unfit(path, "is a directory, and the target is a file", "Give the path of a file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise _unfit(path, "is not a regular file", "Give another target.")
    if status.st_size > MAX_OLD_BYTES:
        why = f"has {status.st_size} bytes, and a file of more than {MAX_OLD_BYTES} is not replaced"
        raise _unfit(path, why, "Give another target, or remove that file.")


def _unfit(path: str, why: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {why}", hint=hint, details={"path": path})


def _write(path: str, data: bytes, mode: int) -> None:
    """Makes a synced file. The caller removes what a failure leaves."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        files().sync_file(descriptor)
    finally:
        os.close(descriptor)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _with_kept(fault: WireError, kept: dict[str, str | None]) -> WireError:
    listed = "; ".join(
        f"{target} could not be removed again" if where is None else f"{target} could not be put back from {where}"
        for target, where in kept.items()
    )
    return type(fault)(
        f"{fault.message}; {listed}",
        hint="Put them back by hand, or run the same command again.",
        details={**fault.details, "kept": kept},
    )


@contextmanager
def _faults(doing: str, path: str) -> Iterator[None]:
    """Raises what a failed system call means."""
    try:
        yield
    except OSError as error:
        raise _fault(error, f"cannot {doing} {path}: {error.strerror or error}", path) from error


def _fault(error: OSError, what: str, path: str) -> WireError:
    details = {"path": path, "errno": errno.errorcode.get(error.errno or 0, str(error.errno))}
    match error.errno:
        case errno.ENOSPC:
            return NoSpace(what, hint="Free space on the filesystem of that file.", details=details)
        case errno.EDQUOT:
            return QuotaExceeded(what, hint="Remove files there, or ask for a larger quota.", details=details)
        case errno.EROFS:
            return PermissionDenied(what, hint="The filesystem is read-only: give another target.", details=details)
        case errno.EACCES | errno.EPERM:
            hint = "Ask for the right to write to that directory, or give another target."
            return PermissionDenied(what, hint=hint, details=details)
        case errno.ENOTDIR | errno.EISDIR | errno.ELOOP | errno.ENAMETOOLONG:
            return InvalidRequest(what, hint="Correct the path, or give another target.", details=details)
        case errno.ENOENT:
            return NotFound(what, hint="Something removed a directory of that path: make it again.", details=details)
    return Internal(what, hint="Look at the kernel's log and the health of the disk.", details=details)
