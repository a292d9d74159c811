"""Where pulls of users other than the daemon's own may go. Each stranger is a real process of another user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rigs.hub_server import Hub, Repo
from rigs.pull_rig import gguf
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import FOREIGN_UID, connect_as, needs_root, write_access
from rigs.scripted_server import Asked, Reply, Server, file_reply

pytestmark = needs_root

CONTENT = gguf(50_000, 8)


@pytest.fixture
def inner() -> Iterator[Server]:
    """A service that trusts whoever can connect to it. It is at another address than the servers that lead to it."""
    with Server(lambda asked: file_reply(asked, CONTENT), "127.0.0.2") as server:
        yield server


def started(daemon: RealDaemon, networks: str = "", more: str = "") -> RealDaemon:
    write_access(daemon, {str(FOREIGN_UID): "write"})
    with open(daemon.environ["MODELD_CONFIG"], "a", encoding="utf-8") as file:
        file.write((f'networks = ["{networks}"]\n' if networks else "") + more)
    return daemon.start()


def pull(daemon: RealDaemon, uid: int, reference: str, **fields: Any) -> dict[str, Any]:
    with connect_as(daemon.socket, uid) as wire:
        wire.read()
        return wire.ask("model.pull", ref=reference, name=f"m{uid}", **fields)


def test_a_service_of_this_machine_is_for_the_daemons_own_user(shared: RealDaemon, inner: Server) -> None:
    daemon = started(shared)
    for name in (inner.url, f"http://localhost:{inner.port}", f"http://[::ffff:127.0.0.2]:{inner.port}"):
        refused = pull(daemon, FOREIGN_UID, f"{name}/m.gguf")
        assert refused["code"] in ("permission_denied", "invalid_request"), refused
    assert inner.asked == []
    assert pull(daemon, 0, f"{inner.url}/m.gguf")["type"] == "result"


def test_the_configuration_opens_a_network(shared: RealDaemon, inner: Server) -> None:
    assert pull(started(shared, "127.0.0.2/32"), FOREIGN_UID, f"{inner.url}/m.gguf")["type"] == "result"


def redirects(inner: Server) -> Callable[[Asked], Reply]:
    return lambda _: Reply(302, {"Location": f"{inner.url}/m.gguf"})


def names_a_realm(inner: Server) -> Callable[[Asked], Reply]:
    return lambda _: Reply(401, {"WWW-Authenticate": f'Bearer realm="{inner.url}/token",service="s"'})


@pytest.mark.parametrize(
    ("leads", "reference"), [(redirects, "http://{host}/m.gguf"), (names_a_realm, "oci://{host}/team/m")]
)
def test_a_server_that_is_allowed_leads_to_none_that_is_not(
    shared: RealDaemon, inner: Server, leads: Callable[[Server], Callable[[Asked], Reply]], reference: str
) -> None:
    with Server(leads(inner)) as outer:
        daemon = started(shared, "127.0.0.1/32")
        refused = pull(daemon, FOREIGN_UID, reference.format(host=outer.url[7:]))
        assert refused["code"] == "permission_denied", refused
        assert outer.asked
    assert inner.asked == []


def test_a_mirror_leads_to_none_that_is_not_allowed(shared: RealDaemon, inner: Server) -> None:
    with Server(redirects(inner)) as mirror, Server(lambda _: Reply(404)) as origin:
        rule = f'[[mirror]]\nmatch = "{origin.url}/"\nurl = "{mirror.url}/"\n'
        daemon = started(shared, "127.0.0.1/32", rule)
        assert pull(daemon, FOREIGN_UID, f"{origin.url}/m.gguf")["type"] == "error"
        assert mirror.asked
    assert inner.asked == []


def test_xet_storage_is_not_used_for_others(shared: RealDaemon, inner: Server) -> None:
    """hf-xet connects to whatever address the hub names."""
    repo = Repo({"m.gguf": CONTENT}, lfs=frozenset({"m.gguf"}), xet={"m.gguf": "ab" * 32})
    with Hub({"org/repo": repo}) as hub:
        hub.access = {"casUrl": inner.url, "accessToken": "t", "exp": 2**40}
        shared.environ["HF_ENDPOINT"] = hub.url
        daemon = started(shared, "127.0.0.1/32")
        done = pull(daemon, FOREIGN_UID, "hf:org/repo/m.gguf")
        assert done["type"] == "result", done
        assert not [asked for asked in hub.server.asked if "xet-read-token" in asked.target]
    assert inner.asked == []
