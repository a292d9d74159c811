"""The credentials of the daemon's user serve that user and root. Each stranger is a real process of another user."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rigs.command import COMMAND
from rigs.hub_server import Hub, Repo
from rigs.pull_rig import everything_kept, gguf
from rigs.real_daemon import RealDaemon
from rigs.registries import packed
from rigs.rough_peers import FOREIGN_UID, connect_as, needs_root, write_access
from rigs.scripted_server import Asked, Reply, Server, file_reply

pytestmark = needs_root

CONTENT = gguf(50_000, 7)
MINE, YOURS = "daemons-0wn-s3cret", "callers-0wn-s3cret"
TOKEN, OTHER_TOKEN = "hf_daemonsOwnToken", "hf_callersOwnToken"


@dataclass(frozen=True)
class Place:
    """A server that gives its files to two passwords or tokens: the daemon's, and the caller's own."""

    reference: str
    server: Server
    own: str
    """What the caller gives as credentials."""
    mine: str
    yours: str
    """What the server sees of either."""


def locked(asked: Asked) -> Reply:
    allowed = {f"Basic {packed('me', MINE)}", f"Basic {packed('me', YOURS)}"}
    if asked.headers.get("Authorization") not in allowed:
        return Reply(401, {"WWW-Authenticate": 'Basic realm="models"'})
    return file_reply(asked, CONTENT)


@pytest.fixture(params=["https", "hf"])
def place(request: pytest.FixtureRequest, shared: RealDaemon) -> Iterator[Place]:
    """Of each kind whose double knows users; `test_sources` asks all kinds."""
    if request.param == "https":
        with Server(locked) as server:
            Path(shared.room, ".netrc").write_text(f"machine {server.url[7:]} login me password {MINE}\n")
            seen = (packed("me", MINE), packed("me", YOURS))
            yield Place(f"{server.url}/m.gguf", server, f"me:{YOURS}", *seen)
        return
    tokens = frozenset({TOKEN, OTHER_TOKEN})
    repo = Repo({"m.gguf": CONTENT}, lfs=frozenset({"m.gguf"}), private=True, tokens=tokens)
    with Hub({"org/private": repo}, valid=tokens) as hub:
        shared.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
        yield Place("hf:org/private/m.gguf", hub.server, OTHER_TOKEN, TOKEN, OTHER_TOKEN)


def pull(daemon: RealDaemon, uid: int, place: Place, **fields: Any) -> dict[str, Any]:
    with connect_as(daemon.socket, uid) as wire:
        wire.read()
        return wire.ask("model.pull", ref=place.reference, name="m", **fields)


def started(daemon: RealDaemon, loan: str = "") -> RealDaemon:
    """Others may pull from loopback here, where all servers of a test are."""
    write_access(daemon, {str(FOREIGN_UID): "write"})
    with open(daemon.environ["MODELD_CONFIG"], "a", encoding="utf-8") as file:
        file.write(f'networks = ["127.0.0.0/8"]\n{loan}')
    return daemon.start()


def test_they_are_not_used_for_another_user_who_is_told_what_to_do(shared: RealDaemon, place: Place) -> None:
    daemon = started(shared)
    refused = pull(daemon, FOREIGN_UID, place)
    assert refused["code"] in ("source_unauthorized", "source_not_found"), refused
    if refused["code"] == "source_unauthorized":
        assert "--credentials-file" in refused["hint"]
        assert "[[access.credentials]]" in refused["hint"]
    assert place.server.sent_with(place.mine) == []
    assert pull(daemon, 0, place)["type"] == "result"
    assert place.server.sent_with(place.mine)


def test_a_loan_lends_them(shared: RealDaemon, place: Place) -> None:
    match = place.reference.rpartition("/")[0] + "/"
    loan = f'\n[[access.credentials]]\nmatch = "{match}"\nusers = ["{FOREIGN_UID}"]\n'
    assert pull(started(shared, loan), FOREIGN_UID, place)["type"] == "result"
    assert place.server.sent_with(place.mine)


def test_a_loan_for_something_else_lends_nothing(shared: RealDaemon, place: Place) -> None:
    loan = f'\n[[access.credentials]]\nmatch = "{place.reference[:-8]}"\nusers = ["{FOREIGN_UID}"]\n'
    assert pull(started(shared, loan), FOREIGN_UID, place)["type"] == "error"
    assert place.server.sent_with(place.mine) == []


def test_a_request_brings_its_own_and_they_are_kept_nowhere(shared: RealDaemon, place: Place) -> None:
    daemon = started(shared)
    assert pull(daemon, FOREIGN_UID, place, credentials=place.own)["type"] == "result"
    assert place.server.sent_with(place.yours)
    assert place.server.sent_with(place.mine) == []
    job = daemon.ask("job.list")["value"]["jobs"][0]["id"]
    told = json.dumps([daemon.ask("job.show", job=job), daemon.ask("model.show", name="m")])
    assert daemon.terminate() == 0
    kept = everything_kept(daemon.room)
    for text in (place.own, YOURS, place.yours, base64.b64encode(place.own.encode()).decode()):
        assert text not in told
        assert text.encode() not in kept


def test_the_command_reads_them_from_standard_input(shared: RealDaemon, place: Place) -> None:
    daemon = started(shared)
    words = [*COMMAND, "pull", place.reference, "--name", "m", "--credentials-file", "-"]
    done = subprocess.run(
        words, env=daemon.environ, input=f"{place.own}\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert place.server.sent_with(place.yours)
    assert place.server.sent_with(place.mine) == []


@pytest.mark.parametrize(
    ("reference", "given", "why"),
    [
        ("https://models.example/m.gguf", "a-token", "expected user:password"),
        ("https://me:pw@models.example/m.gguf", "me:s3cret", "of its own"),
        ("hf:org/repo", "", "one line"),
        ("hf:org/repo", "to\nken", "one line"),
        ("hf:org/repo", "x" * 4097, "one line"),
        ("/tmp/m.gguf", "me:s3cret", "takes none"),
        ("llama:8b", "me:s3cret", "takes none"),
    ],
)
def test_what_is_wrong_with_them_is_told_without_repeating_them(
    shared: RealDaemon, reference: str, given: str, why: str
) -> None:
    reply = shared.start().ask("model.pull", ref=reference, credentials=given)
    assert (reply["type"], reply["code"]) == ("error", "invalid_request"), reply
    assert "$.credentials" in reply["message"]
    assert why in reply["message"]
    assert not given or given not in json.dumps(reply)
