"""A directory server that takes its time holds up the connection that needs it, and nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from rigs.rough_peers import ALLOW_ROOT, FOREIGN_UID, connect_as, everything_until_close, incidents, needs_root
from rigs.slow_accounts import DaemonWithSlowAccounts
from rigs.waiting import wait_until

pytestmark = needs_root

MEMBERS = 54_400
"""A group without a name: what is granted to it is granted by its number."""


@pytest.fixture
def daemon() -> Iterator[DaemonWithSlowAccounts]:
    """Gives a role to a group, so that it has to know the groups of who connects."""
    room = tempfile.mkdtemp(prefix="modeld-", dir="/tmp")
    os.chmod(room, 0o755)  # other users may enter: those of pytest are for their owner only
    made = DaemonWithSlowAccounts(room)
    made.configure(f'[access]\ngroups = {{ "{MEMBERS}" = "write" }}\n{ALLOW_ROOT}')
    yield made
    made.answer()
    made.close()
    shutil.rmtree(room)


def asked_for(daemon: DaemonWithSlowAccounts, uid: int) -> None:
    wait_until(lambda: uid in daemon.asked(), 20, f"a look-up of uid {uid}")


def test_others_are_answered_while_one_is_looked_up(daemon: DaemonWithSlowAccounts) -> None:
    daemon.start()
    with connect_as(daemon.socket, FOREIGN_UID, MEMBERS) as slow:
        asked_for(daemon, FOREIGN_UID)
        for _ in range(20):  # each on a connection of its own
            assert daemon.ask("daemon.status")["value"]["connections"] == 2
        daemon.answer()
        hello = slow.read()
        assert hello["type"] == "hello", "not before its role was known"
        assert hello["peer"] == {"uid": FOREIGN_UID, "gid": MEMBERS, "role": "write"}
        assert slow.ask("daemon.status")["type"] == "result"
    assert not incidents(daemon)


def test_who_has_no_right_is_refused_once_that_is_known(daemon: DaemonWithSlowAccounts) -> None:
    daemon.start()
    with connect_as(daemon.socket, FOREIGN_UID) as slow:
        asked_for(daemon, FOREIGN_UID)
        daemon.answer()
        assert [reply["code"] for reply in everything_until_close(slow)] == ["unauthorized"]
    wait_until(lambda: daemon.ask("daemon.status")["value"]["connections"] == 1)


def test_a_look_up_that_takes_too_long_ends_in_a_refusal_that_may_be_tried_again(
    daemon: DaemonWithSlowAccounts,
) -> None:
    daemon.gives_up_after(0.2)
    daemon.start()
    for _ in range(2):
        with connect_as(daemon.socket, FOREIGN_UID, MEMBERS) as slow:
            (refused,) = everything_until_close(slow)
        assert refused["code"] == "timeout"
        assert refused["retryable"]
        assert str(FOREIGN_UID) in refused["message"]
        assert refused["hint"]
    told = [event for event in daemon.activity() if event["event"] == "peer.refused"]
    assert len(told) == 1, "who has no role yet is told of once a minute"
    daemon.answer()

    def let_in() -> bool:
        with connect_as(daemon.socket, FOREIGN_UID, MEMBERS) as again:
            return bool(again.read()["type"] == "hello")

    wait_until(let_in, 20, "the answer that came late")
    assert daemon.asked() == [FOREIGN_UID]


def test_groups_for_the_work_of_another_user_are_not_waited_for_on_the_loop(daemon: DaemonWithSlowAccounts) -> None:
    """With users alone in [access] nobody is looked up until credentials are for a group."""
    lent = f'[[access.credentials]]\nmatch = "hf:org/"\ngroups = ["{MEMBERS}"]\n'
    daemon.configure(f'{ALLOW_ROOT}[access]\nusers = {{ "{FOREIGN_UID}" = "write" }}\n{lent}')
    daemon.start()
    with connect_as(daemon.socket, FOREIGN_UID) as writer:
        assert writer.read()["type"] == "hello"
        writer.request("model.pull", ref="hf:org/repo", offline=True, id="pull")
        asked_for(daemon, FOREIGN_UID)
        assert daemon.ask("daemon.status")["type"] == "result"
        assert writer.ask("daemon.status")["type"] == "result"
        daemon.answer()
        assert writer.terminal("pull")["code"] == "offline"


@pytest.mark.parametrize("way", ["signal", "drain"])
def test_a_look_up_that_never_ends_does_not_keep_the_daemon(daemon: DaemonWithSlowAccounts, way: str) -> None:
    daemon.start()
    with connect_as(daemon.socket, FOREIGN_UID, MEMBERS) as slow:
        asked_for(daemon, FOREIGN_UID)
        if way == "drain":
            assert daemon.ask("daemon.drain", deadline_s=1)["type"] == "result"
            assert daemon.wait() == 0
        else:
            assert daemon.terminate() == 0
        assert everything_until_close(slow) == [], "no hello, and so not a word"
    assert not incidents(daemon)


def test_a_user_who_keeps_connecting_takes_no_more_than_its_connections(daemon: DaemonWithSlowAccounts) -> None:
    daemon.environ["MODELD_LIMITS_CONNECTIONS_PER_PEER"] = "2"
    daemon.start()
    with (
        connect_as(daemon.socket, FOREIGN_UID, MEMBERS) as first,
        connect_as(daemon.socket, FOREIGN_UID, MEMBERS) as second,
        connect_as(daemon.socket, FOREIGN_UID, MEMBERS) as third,
    ):
        assert third.read()["code"] == "queue_full"
        daemon.answer()
        for wire in (first, second):
            assert wire.read()["type"] == "hello"
