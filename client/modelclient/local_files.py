"""Files of this machine that are added: listed and opened here, with the rights of this user, and handed over.

The rules are those by which the daemon collects the files of a path: what is hidden does not count, a shard stands for
its whole set, and a directory has no links and no special files in it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from glob import escape, iglob
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from modelclient.calls import Call
from modelwire.errors import InvalidRequest, ModeldError, PermissionDenied, SourceNotFound, SourceUnavailable
from modelwire.limits import FILES_OFFERED
from modelwire.requests import FilesOffer, ModelAdd, ModelProvision, ModelPull, ModelRepair
from modelwire.values import Offered

_MAX_DEPTH = 32
_MAX_ENTRIES = 10_000
"""The daemon's own bounds of a directory. What it checks once more is not checked here."""

_SHARD = re.compile(r"(.*-)\d{5}(-of-\d{5}\.gguf)", re.DOTALL)

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class LocalFile(NamedTuple):
    name: str
    """Its path in the model."""

    path: str


def files_at(path: str) -> Iterator[LocalFile]:
    """The files that an add of the path is about. Blocks; raises an OSError, or InvalidRequest for what no model has
    in it."""
    if os.path.isdir(path):
        yield from _below(path.rstrip("/"), "", [])
        return
    shard = _SHARD.fullmatch(path)
    paths = [path]
    if shard is not None:
        paths = sorted(iglob(f"{escape(shard[1])}[0-9][0-9][0-9][0-9][0-9]{escape(shard[2])}")) or paths
    yield from (LocalFile(os.path.basename(each), each) for each in paths)


def _below(root: str, prefix: str, seen: list[None]) -> Iterator[LocalFile]:
    with os.scandir(f"{root}/{prefix}") as entries:
        listed = []
        for entry in entries:
            seen.append(None)
            if len(seen) > _MAX_ENTRIES:
                raise _unfit(root, f"{root} has more than {_MAX_ENTRIES} entries, too many for a model")
            if not entry.name.startswith("."):
                listed.append((entry.name, entry.stat(follow_symlinks=False).st_mode))
    for name, mode in sorted(listed):
        where = f"{root}/{prefix}{name}"
        if stat.S_ISREG(mode):
            yield LocalFile(f"{prefix}{name}", where)
        elif not stat.S_ISDIR(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
            raise _unfit(where, f"{where} is {kind}: a model has regular files only")
        elif prefix.count("/") + 1 == _MAX_DEPTH:
            raise _unfit(where, f"{where} is more than {_MAX_DEPTH} directories deep")
        else:
            yield from _below(root, f"{prefix}{name}/", seen)


def _unfit(path: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        why, hint="Make a copy that has only the model's files (`cp -rL` resolves links).", details={"path": path}
    )


def path_of_reference(ref: str, directory: str | None) -> str | None:
    """The absolute path of a reference to files of this machine, None for any other. `directory` is where relative ones
    start."""
    path = ref.removeprefix("local:")
    if (address := ref.removeprefix("file:")) != ref:
        host, slash, rest = address[2:].partition("/") if address.startswith("//") else ("", "", "")
        if host not in ("", "localhost"):
            return None
        path = unquote(slash + rest, errors="surrogateescape") if slash else address
    relative = path in (".", "..") or ("/" in path and ":" not in path)
    if path == ref and not relative and not path.startswith(("/", "./", "../")):
        return None
    if not path.startswith("/") and directory is None:
        return None
    return os.path.join(directory or "/", path)


def file_first(ref: str, directory: str | None) -> str:
    """The reference, as one to a file where it could mean a name and there is such a file."""
    bare = directory is not None and ref and ":" not in ref and "/" not in ref
    return f"./{ref}" if bare and os.path.isfile(os.path.join(directory or "", ref)) else ref


def working_directory() -> str | None:
    """Where relative paths start; None when that place is gone or cannot be written in UTF-8."""
    try:
        directory = os.getcwd()
        directory.encode()
    except (OSError, UnicodeEncodeError):
        return None
    return directory


class HandOver:
    """The files of one request, handed over to a daemon that does not open their path."""

    def __init__(self, request: ModelAdd | ModelProvision | ModelPull | ModelRepair, path: str) -> None:
        self._path = path
        self._move = isinstance(request, ModelAdd) and request.move
        self._continues = request.on_disconnect == "continue"
        self._transfer = os.urandom(8).hex()
        self._handed: list[tuple[str, tuple[int, ...]]] = []
        """For a move, with what each file was when it was opened."""
        changes = {"move": False} if isinstance(request, ModelAdd) else {}
        self.request = msgspec.structs.replace(request, transfer=self._transfer, **changes)
        """The request once more, to send after the offers."""

    def offers(self) -> Generator[Call[Offered], None, None]:
        """Opens the files and makes the requests that hand them over, one to be answered before the next. Blocks."""
        if self._move:
            self._check_move()
        directory = os.path.isdir(self._path)
        files = _sourced(self._path, files_at(self._path))
        while some := list(islice(files, FILES_OFFERED)):
            with ExitStack() as held:
                descriptors = [self._open(file, held, directory=directory) for file in some]
                request = FilesOffer(
                    transfer=self._transfer, paths=tuple(file.name for file in some), directory=directory
                )
                yield Call(request, Offered, descriptors=tuple(descriptors))

    def _open(self, file: LocalFile, held: ExitStack, *, directory: bool) -> int:
        try:
            # Before the open: to open a device or a pipe has an effect on it.
            _check_regular(file.path, os.stat(file.path, follow_symlinks=not directory).st_mode)
            descriptor = os.open(file.path, _OPEN | (os.O_NOFOLLOW if directory else 0))
        except OSError as error:
            raise _fault(file.path, error) from None
        held.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        _check_regular(file.path, status.st_mode)
        if self._move:
            self._check_removable(file.path)
            self._handed.append((file.path, _identity(status)))
        return descriptor

    def _check_move(self) -> None:
        if self._continues:
            raise InvalidRequest(
                f"{self._path} cannot be moved by a client that leaves: it removes the file when the model is there",
                hint="Leave out --detach, or add it without --move.",
            )
        if os.path.islink(self._path):
            raise InvalidRequest(
                f"{self._path} is a symbolic link, so it cannot be moved into the store",
                hint="Move the file that it points to, or add it without --move.",
                details={"path": self._path},
            )

    def _check_removable(self, path: str) -> None:
        if not os.access(os.path.dirname(path) or "/", os.W_OK | os.X_OK):
            raise PermissionDenied(
                f"{path} cannot be moved: you may not remove it from its directory",
                hint="Ask for the right to write to that directory, or add it without --move.",
                details={"path": path},
            )

    def finish(self) -> ModeldError | None:
        """After success: removes what was moved, each file only while its path is that very file, unchanged, then the
        directories that are empty. Blocks. Returns what kept it from that."""
        for path, identity in self._handed:
            try:
                if _identity(os.lstat(path)) == identity:
                    os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                return PermissionDenied(
                    f"the model is in the store, but {path} cannot be removed: {error.strerror or error}",
                    hint="Remove it by hand.",
                    details={"path": path},
                )
        if self._handed and os.path.isdir(self._path):
            for where, _, _ in os.walk(self._path, topdown=False):
                with suppress(OSError):
                    os.rmdir(where)
        return None


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_regular(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InvalidRequest(f"{path} is not a regular file", details={"path": path})


def _sourced(path: str, files: Iterator[LocalFile]) -> Iterator[LocalFile]:
    try:
        yield from files
    except OSError as error:
        raise _fault(error.filename or path, error) from None


def _fault(path: str, error: OSError) -> ModeldError:
    details = {"path": path}
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return SourceNotFound(f"{path} is not there", hint="Check the path.", details=details)
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(
            f"{path} cannot be read: {error.strerror}",
            hint="Ask its owner for the right to read it.",
            details=details,
        )
    return SourceUnavailable(f"{path} cannot be read: {error.strerror or error}", details=details)
