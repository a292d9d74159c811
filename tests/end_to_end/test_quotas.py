"""What the models of a user may have: bytes, each blob once, and names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rigs.chaos_server import Chaos
from rigs.pull_rig import MIB, ctl, gguf
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import ALLOW_ROOT, FOREIGN_UID, connect_as, incidents, needs_root

pytestmark = needs_root

QUOTA = 20 * MIB
SIZE = 8 * MIB
OTHER_UID = FOREIGN_UID + 1


@pytest.fixture
def daemon(shared: RealDaemon) -> Iterator[RealDaemon]:
    users = f'"{FOREIGN_UID}" = "write", "{OTHER_UID}" = "write"'
    shared.configure(
        f'{ALLOW_ROOT}[access]\nnetworks = ["127.0.0.0/8"]\nusers = {{ {users} }}\n[quota]\n{FOREIGN_UID} = "20MiB"\n'
        "[limits]\nmodels_per_user = 4\n"
    )
    yield shared.start()
    assert not incidents(shared)


def add(daemon: RealDaemon, uid: int, name: str, content: bytes, **fields: Any) -> dict[str, Any]:
    path = daemon.file(f"{name}.gguf", content)
    with connect_as(daemon.socket, uid) as wire:
        wire.read()
        return wire.ask("model.add", **wire.hand_over(path), name=name, **fields)


def ask(daemon: RealDaemon, uid: int, op: str, **fields: Any) -> dict[str, Any]:
    with connect_as(daemon.socket, uid) as wire:
        wire.read()
        return wire.ask(op, **fields)


def fill(daemon: RealDaemon) -> None:
    for number in range(2):
        assert add(daemon, FOREIGN_UID, f"m{number}", gguf(SIZE, number))["type"] == "result"


def refused(reply: dict[str, Any]) -> dict[str, Any]:
    assert reply.get("code") == "quota_exceeded", reply
    assert reply["details"]["uid"] == FOREIGN_UID
    details: dict[str, Any] = reply["details"]
    return details


def test_bytes_beyond_the_quota_are_refused_before_the_first_of_them(daemon: RealDaemon) -> None:
    fill(daemon)
    assert refused(add(daemon, FOREIGN_UID, "m2", gguf(SIZE, 2)))["missing_bytes"] == 3 * SIZE - QUOTA
    with Chaos(gguf(SIZE, 3)) as web:
        pulled = ask(daemon, FOREIGN_UID, "model.pull", ref=f"{web.url}/m3.gguf")
        assert refused(pulled)["quota_bytes"] == QUOTA
        assert web.sent < MIB
    assert add(daemon, FOREIGN_UID, "small", gguf(3 * MIB, 4))["type"] == "result"
    assert add(daemon, OTHER_UID, "other", gguf(3 * SIZE, 5))["type"] == "result"
    assert daemon.ask("model.add", path=daemon.file("own.gguf", gguf(3 * SIZE, 6)))["type"] == "result"
    ask(daemon, FOREIGN_UID, "model.remove", name="m0")
    assert add(daemon, FOREIGN_UID, "m2", gguf(SIZE, 2))["type"] == "result"


def test_each_digest_counts_once_and_for_each_user_who_names_it(daemon: RealDaemon) -> None:
    fill(daemon)
    assert ask(daemon, FOREIGN_UID, "model.copy", source="m0", destination="again")["type"] == "result"
    daemon.ask("model.add", path=daemon.file("own.gguf", gguf(SIZE, 9)), name="own")
    refused(ask(daemon, FOREIGN_UID, "model.copy", source="own", destination="mine"))
    refused(add(daemon, FOREIGN_UID, "mine", gguf(SIZE, 9)))
    assert [model["name"] for model in daemon.ask("model.list", filter="name=mine")["value"]["models"]] == []
    assert add(daemon, FOREIGN_UID, "m1", gguf(SIZE, 1))["value"]["reused"], "what the user has is no news"
    users = {user["uid"]: user for user in daemon.ask("store.usage")["value"]["users"]}
    assert users[FOREIGN_UID] == {"uid": FOREIGN_UID, "models": 3, "size_bytes": 2 * SIZE, "quota_bytes": QUOTA}
    assert users[0]["quota_bytes"] is None
    shown = ctl(daemon, "usage", "--by", "user").stdout
    assert f"{FOREIGN_UID}       3  16.8 MB  21.0 MB" in shown


def test_another_content_of_a_name_takes_the_place_of_the_first(daemon: RealDaemon) -> None:
    fill(daemon)
    daemon.ask("model.add", path=daemon.file("own.gguf", gguf(SIZE, 9)), name="own")
    assert add(daemon, FOREIGN_UID, "m1", gguf(SIZE, 9), replace=True)["type"] == "result"


def test_a_user_has_so_many_models_and_no_more(daemon: RealDaemon) -> None:
    daemon.ask("model.add", path=daemon.file("own.gguf", gguf(1000, 9)), name="own")
    for number in range(4):
        assert ask(daemon, OTHER_UID, "model.copy", source="own", destination=f"c{number}")["type"] == "result"
    reply = ask(daemon, OTHER_UID, "model.copy", source="own", destination="c4")
    assert (reply["code"], reply["details"]["limit"]) == ("quota_exceeded", 4)
    assert ask(daemon, OTHER_UID, "model.move", source="c0", destination="d0")["type"] == "result"
    assert daemon.ask("model.copy", source="own", destination="c4")["type"] == "result"


def test_jobs_at_the_same_time_count_on_the_same_quota(daemon: RealDaemon) -> None:
    contents = {f"m{number}": gguf(SIZE, number) for number in range(4)}
    with connect_as(daemon.socket, FOREIGN_UID) as wire:
        wire.read()
        # All files first: while the client waits for an offer, it passes over the replies to what it asked before.
        handed = {name: wire.hand_over(daemon.file(f"{name}.gguf", content)) for name, content in contents.items()}
        for name, fields in handed.items():
            wire.request("model.add", **fields, name=name, id=name)
        ended: list[str] = []
        while len(ended) < len(contents):
            if (kind := wire.read()["type"]) in ("result", "error"):
                ended.append(kind)
    assert sorted(ended) == ["error", "error", "result", "result"]


def test_where_names_are_shared_the_user_with_limits_owns_what_it_replaces(shared: RealDaemon) -> None:
    users = f'"{FOREIGN_UID}" = "write", "{OTHER_UID}" = "write"'
    shared.configure(
        f'{ALLOW_ROOT}[access]\nshared_names = true\nusers = {{ {users} }}\n[quota]\n{FOREIGN_UID} = "20MiB"\n'
    )
    shared.start()
    for number in range(3):
        assert add(shared, OTHER_UID, f"m{number}", gguf(1000, number))["type"] == "result"
    for number in range(2):
        assert add(shared, FOREIGN_UID, f"m{number}", gguf(SIZE, number), replace=True)["type"] == "result"
    refused(add(shared, FOREIGN_UID, "m2", gguf(SIZE, 2), replace=True))
    assert [shared.ask("model.show", name=f"m{n}")["value"]["owner"] for n in range(3)] == [
        FOREIGN_UID,
        FOREIGN_UID,
        OTHER_UID,
    ]
    assert (
        shared.ask("model.add", path=shared.file("own.gguf", gguf(SIZE, 9)), name="m0", replace=True)["type"]
        == "result"
    )
    assert shared.ask("model.show", name="m0")["value"]["owner"] == FOREIGN_UID
