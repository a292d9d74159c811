"""The fast path says what the full command says, to the byte, or leaves it to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from modelwire import errors, replies
from modelwire.encoding import encode
from modelwire.replies import ProtocolRange
from modelwire.requests import Request
from rigs.command import Ctl
from rigs.scripted_peer import RESOLVED, Conversation, ScriptedPeer, hello_of


@pytest.fixture
def warm() -> bool:
    """Each command has a Python of its own, as people run it."""
    return False


Peer = Callable[..., ScriptedPeer]
FULL = "import sys; from modelclient.ctl.command import main; sys.exit(main(sys.argv[1:]))"


def both(ctl: Ctl, made: ScriptedPeer, name: str) -> tuple[subprocess.CompletedProcess[str], ...]:
    environ = {"MODELD_SOCKET": made.path}
    full = subprocess.run(
        [sys.executable, "-c", FULL, "path", name], env=ctl.environ | environ, capture_output=True, text=True
    )
    return ctl("path", name, environ=environ), full


def resolving(**changes: object) -> Callable[[Conversation, Request], None]:
    value = msgspec.structs.replace(RESOLVED, **changes)
    return lambda talk, request: talk.result(request, value)


def cut_short(talk: Conversation) -> None:
    talk.raw(b'{"type":"result","id":"1"')
    talk.hang_up()


def with_news(talk: Conversation, request: Request) -> None:
    talk.raw(b'{"type":"news"}\n')
    talk.result(request, RESOLVED)


ANSWERS: dict[str, Callable[[Conversation, Request], None]] = {
    "ready": resolving(),
    "loaded": resolving(state="loaded"),
    "odd path": resolving(path='/srv/"models"/\u00fcn\\\u4e2d\U0001f600\n'),
    "suspect": resolving(state="suspect"),
    "failed": resolving(state="failed"),
    "available": resolving(state="available"),
    "not found": lambda talk, request: talk.fail(request, errors.NotFound("no model x", hint="modelctl list")),
    "corrupt": lambda talk, request: talk.fail(request, errors.Corrupt("bad")),
    "gone": lambda talk, request: talk.hang_up(),
    "junk": lambda talk, request: talk.raw(b"what?\n"),
    "half": lambda talk, request: cut_short(talk),
    "newer": lambda talk, request: with_news(talk, request),
    "fault": lambda talk, request: talk.raw(encode(replies.Error.of(None, errors.QueueFull("too many")))),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_fast_and_the_command_say_the_same(peer: Peer, ctl: Ctl, answer: str) -> None:
    fast, full = both(ctl, peer(ANSWERS[answer]), "tiny")
    assert (fast.returncode, fast.stdout, fast.stderr) == (full.returncode, full.stdout, full.stderr)
    if answer in ("ready", "loaded", "newer"):
        assert (fast.returncode, fast.stdout, fast.stderr) == (0, "/srv/models/tiny\n", "")
    elif answer != "odd path":
        assert fast.returncode not in (0, 130)
        assert fast.stdout == ""
        assert len(fast.stderr.splitlines()) == 2


@pytest.mark.parametrize("state", ["suspect", "failed"])
def test_bytes_that_are_not_sure_have_no_path(peer: Peer, ctl: Ctl, state: str) -> None:
    done = ctl("path", "tiny", environ={"MODELD_SOCKET": peer(resolving(state=state)).path})
    assert done.returncode == 6
    assert done.stderr.splitlines()[0] == f"modelctl: tiny is not given out: its state is {state}"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "caf\u00e9", "a\nb", "", "--json"])
def test_odd_names_reach_the_daemon_unchanged_or_not_at_all(peer: Peer, ctl: Ctl, name: str) -> None:
    made = peer(lambda talk, request: talk.fail(request, errors.InvalidName("no")))
    fast, full = both(ctl, made, name)
    assert (fast.returncode, fast.stdout, fast.stderr) == (full.returncode, full.stdout, full.stderr)
    assert fast.returncode == 2


def test_another_protocol_is_left_to_the_command(peer: Peer, ctl: Ctl) -> None:
    made = peer(resolving(), hello=encode(hello_of(protocol=ProtocolRange(min=2, max=3))))
    fast, full = both(ctl, made, "tiny")
    assert (fast.returncode, fast.stdout, fast.stderr) == (full.returncode, full.stdout, full.stderr)
    assert "speaks protocol 2 to 3" in fast.stderr


def test_the_plain_call_loads_next_to_nothing(peer: Peer, ctl: Ctl) -> None:
    """What may be imported is fixed here: a stray import would cost more than the whole answer."""
    code = (
        "import sys; before = set(sys.modules); from modelclient.ctl.fast_path import main\n"
        "code = main(); print(*sorted(set(sys.modules) - before), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "resolve", "tiny"],
        env=ctl.environ | {"MODELD_SOCKET": peer(resolving()).path},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "/srv/models/tiny\n"
    loaded = set(done.stderr.split())
    heavy = {"re", "enum", "typing", "json", "socket", "selectors", "argparse", "msgspec", "anyio", "functools"}
    assert {"_socket", "_json", "modelclient.locate", "modelwire.endpoint"} <= loaded
    assert loaded & heavy == set()


def test_a_reader_that_left_is_no_error_to_talk_about(peer: Peer, ctl: Ctl) -> None:
    made = peer(resolving())
    with ctl.open("path", "tiny", environ={"MODELD_SOCKET": made.path}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode in (0, 141)
