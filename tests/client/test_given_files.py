"""Files that a user names on the command line, and what each verb says when it cannot read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelclient import given_files
from modelclient.ctl import command
from modelwire.errors import Internal, InvalidRequest, NotFound, PermissionDenied, WireError
from rigs.command import Ctl
from rigs.real_daemon import RealDaemon

VERBS = {
    "register": ["register", "FILE"],
    "provision": ["provision", "FILE"],
    "the signature": ["verify", "m", "--signature", "FILE", "--key", "k"],
    "the credentials": ["pull", "https://localhost/m.gguf", "--credentials-file", "FILE"],
}


@pytest.mark.parametrize(
    ("error", "kind", "exit_code"),
    [
        (FileNotFoundError(2, "No such file or directory"), NotFound, 3),
        (NotADirectoryError(20, "Not a directory"), NotFound, 3),
        (PermissionError(13, "Permission denied"), PermissionDenied, 13),
        (PermissionError(1, "Operation not permitted"), PermissionDenied, 13),
        (IsADirectoryError(21, "Is a directory"), InvalidRequest, 2),
        (OSError(5, "Input/output error"), Internal, 1),
        (ValueError("embedded null byte"), InvalidRequest, 2),
    ],
)
def test_why_a_file_cannot_be_read(
    error: Exception, kind: type[WireError], exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(given_files, "open", refusing, raising=False)
    with pytest.raises(kind) as fault:
        given_files.read("/x", "manifest", 10)
    assert (fault.value.exit_code, fault.value.hint is not None) == (exit_code, True)
    assert "/x" in fault.value.message


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_without_the_right_to_read_it_ends_with_13(
    verb: str, daemon: RealDaemon, room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELD_SOCKET", daemon.socket)
    file = room / "secret"
    file.write_text("x")

    def refusing(path: object, *_arguments: object, **_options: object) -> None:
        raise PermissionError(13, os.strerror(13), path)

    monkeypatch.setattr(given_files, "open", refusing, raising=False)
    assert command.main([str(file) if word == "FILE" else word for word in VERBS[verb]]) == 13
    assert f"{file} cannot be read: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_that_is_not_there_ends_with_3(verb: str, ctl: Ctl) -> None:
    done = ctl(*("missing" if word == "FILE" else word for word in VERBS[verb]))
    assert (done.returncode, done.stdout) == (3, "")
    assert "missing\nhint: Check the path." in done.stderr


def test_the_standard_input(ctl: Ctl) -> None:
    done = ctl.open("register", "-")
    assert done.communicate()[0] == ""
    assert done.returncode == 2, "it is empty"
