"""Files that a client hands over are those that the daemon would collect, and a move takes no other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelclient.local_files import HandOver, files_at, path_of_reference
from modelwire import errors, operations, requests, values
from modelwire.encoding import encode
from modelwire.requests import Request
from rigs.scripted_peer import ADDED, Conversation, ScriptedPeer, hello_of

Peer = Callable[..., ScriptedPeer]
Open = Callable[..., Any]


def write(path: Path, content: bytes = b"GGUF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(path: Path) -> list[str]:
    return [file.name for file in files_at(str(path))]


def test_a_file_a_set_of_shards_and_a_directory(tmp_path: Path) -> None:
    for name in ("a.gguf", "d/x.bin", "d/sub/y.bin", "d/.hidden/z", "d/.z", "s-00001-of-00002.gguf"):
        write(tmp_path / name)
    write(tmp_path / "s-00002-of-00002.gguf")
    write(tmp_path / "s-00001-of-00003.gguf")
    assert names(tmp_path / "a.gguf") == ["a.gguf"]
    assert names(tmp_path / "d") == ["sub/y.bin", "x.bin"]
    assert names(tmp_path / "s-00002-of-00002.gguf") == ["s-00001-of-00002.gguf", "s-00002-of-00002.gguf"]


@pytest.mark.parametrize("kind", ["a symbolic link", "a special file"])
def test_a_directory_has_regular_files_only(tmp_path: Path, kind: str) -> None:
    if kind == "a symbolic link":
        os.symlink("/etc/hostname", tmp_path / "x")
    else:
        os.mkfifo(tmp_path / "x")
    with pytest.raises(errors.InvalidRequest, match=f"x is {kind}"):
        names(tmp_path)


def test_a_directory_of_too_many_entries_or_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a" / "b" / "c")
    monkeypatch.setattr("modelclient.local_files._MAX_DEPTH", 2)
    assert names(tmp_path / "a") == ["b/c"]
    with pytest.raises(errors.InvalidRequest, match="directories deep"):
        names(tmp_path)
    monkeypatch.setattr("modelclient.local_files._MAX_ENTRIES", 1)
    with pytest.raises(errors.InvalidRequest, match="more than 1 entries"):
        names(tmp_path / "a")


@pytest.mark.parametrize(
    ("ref", "path"),
    [
        ("/m.gguf", "/m.gguf"),
        ("./m.gguf", "/here/./m.gguf"),
        ("sub/m.gguf", "/here/sub/m.gguf"),
        ("local:/m.gguf", "/m.gguf"),
        ("file:///a%20b.gguf", "/a b.gguf"),
        ("file://localhost/m.gguf", "/m.gguf"),
        ("file:m.gguf", "/here/m.gguf"),
        ("file://elsewhere/m.gguf", None),
        ("hf:org/repo", None),
        ("https://host/m.gguf", None),
        ("llama:8b", None),
    ],
)
def test_which_references_are_paths(ref: str, path: str | None) -> None:
    assert path_of_reference(ref, "/here") == path


def test_a_relative_path_starts_somewhere() -> None:
    assert path_of_reference("./m.gguf", None) is None


@pytest.mark.parametrize("change", ["replaced", "written", "gone"])
def test_a_move_takes_no_file_that_is_another_by_then(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "m.gguf")
    handed = HandOver(requests.ModelAdd(path=str(path), move=True), str(path))
    assert [call.request for call in handed.offers()] == [
        requests.FilesOffer(transfer=handed.request.transfer or "", paths=("m.gguf",))
    ]
    assert isinstance(handed.request, requests.ModelAdd)
    assert not handed.request.move
    match change:
        case "replaced":
            os.replace(write(tmp_path / "new"), path)
        case "written":
            write(path, b"GGUF, and more")
        case _:
            path.unlink()
    assert handed.finish() is None
    assert path.exists() is (change != "gone")


def test_a_link_is_not_moved(tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to(write(tmp_path / "m.gguf"))
    with pytest.raises(errors.InvalidRequest, match="symbolic link"):
        list(HandOver(requests.ModelAdd(path=str(path), move=True), str(path)).offers())
    assert len(list(HandOver(requests.ModelAdd(path=str(path)), str(path)).offers())) == 1


def test_each_offer_closes_its_files_when_it_is_answered(tmp_path: Path) -> None:
    for number in range(70):
        write(tmp_path / "d" / f"{number}.bin")
    handed = HandOver(requests.ModelAdd(path=str(tmp_path / "d")), str(tmp_path / "d"))
    before, sizes = len(os.listdir("/proc/self/fd")), []
    for call in handed.offers():
        sizes.append(len(call.descriptors))
        assert len(os.listdir("/proc/self/fd")) == before + sizes[-1]
    assert sizes == [64, 6]
    assert len(os.listdir("/proc/self/fd")) == before


# -- with a daemon that does not open paths


REFUSED = errors.PermissionDenied("/m is not opened for uid 1", details={"by": "descriptors"})


def closed(talk: Conversation, request: Request) -> None:
    """Opens no path."""
    if isinstance(request, requests.FilesOffer):
        talk.result(request, values.Offered(transfer=request.transfer, files=len(request.paths)))
    elif isinstance(request, requests.ModelAdd) and request.transfer is not None:
        talk.accepted(request)
        talk.result(request, ADDED)
    else:
        talk.fail(request, REFUSED)


def test_both_clients_hand_over_what_the_daemon_does_not_open(tmp_path: Path, peer: Peer, open_client: Open) -> None:
    path = write(tmp_path / "m.gguf")
    made = peer(closed)
    with open_client(made.path) as client:
        assert client.add(str(path), name="tiny", move=True).result() == ADDED
    assert [type(request).__name__ for request in made.requests] == ["ModelAdd", "FilesOffer", "ModelAdd"]
    assert not path.exists()


@pytest.mark.parametrize("why", ["no capability", "another refusal", "a link"])
def test_a_refusal_that_open_files_do_not_change_is_reported(
    tmp_path: Path, peer: Peer, open_client: Open, why: str
) -> None:
    path = write(tmp_path / "m.gguf")
    old = tuple(name for name in operations.CAPABILITIES if name != "descriptors")

    def refuse(talk: Conversation, request: Request) -> None:
        talk.fail(request, errors.PermissionDenied("no") if why == "another refusal" else REFUSED)

    hello = hello_of(capabilities=old) if why == "no capability" else hello_of()
    made = peer(refuse, hello=encode(hello))
    with open_client(made.path) as client, pytest.raises(errors.PermissionDenied):
        client.add(str(path), link=why == "a link").result()
    assert len(made.requests) == 1


def test_a_file_that_cannot_be_opened_is_the_error_of_the_work(tmp_path: Path, peer: Peer, open_client: Open) -> None:
    made = peer(closed)
    with open_client(made.path) as client:
        with pytest.raises(errors.SourceNotFound, match="absent"):
            client.add(str(tmp_path / "absent.gguf")).result()
        assert client.add(str(write(tmp_path / "m.gguf"))).result() == ADDED


def test_a_cancel_while_files_are_handed_over_is_not_lost(tmp_path: Path, peer: Peer, open_client: Open) -> None:
    path = write(tmp_path / "m.gguf")
    offered: list[Request] = []

    def slow(talk: Conversation, request: Request) -> None:
        match request:
            case requests.FilesOffer():
                offered.append(request)
                closed(talk, request)
            case requests.ModelAdd(transfer=str()):
                offered.append(request)
                talk.accepted(request)
            case requests.Cancel() if offered and request.target == offered[-1].id:
                talk.result(request, values.Done(target=request.target))
                talk.fail(offered[-1], errors.Cancelled("cancelled"))
            case requests.Cancel():
                talk.fail(request, errors.InvalidRequest("it has ended"))
            case _:
                talk.fail(request, REFUSED)

    made = peer(slow)
    with open_client(made.path) as client:
        work = client.add(str(path))
        made.saw(requests.ModelAdd)
        work.cancel()  # the refusal is not read yet
        with pytest.raises(errors.Cancelled):
            work.result()
