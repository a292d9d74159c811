"""What the history keeps of the version that a source gave: its revision, and the ETag of the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, gguf, pulled
from rigs.real_daemon import RealDaemon
from rigs.scripted_server import Asked, Reply, Server, file_reply

CONTENT = gguf(2 * MIB, 171)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"org/repo": Repo({"m.gguf": CONTENT}, lfs=frozenset({"m.gguf"}))}) as made:
        yield made


@pytest.fixture
def hubbed(stopped: RealDaemon, hub: Hub) -> RealDaemon:
    stopped.environ |= {"HF_ENDPOINT": hub.url}
    return stopped.start()


def history(daemon: RealDaemon, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.ask("model.show", name=name)["value"]["history"]
    return found


def test_the_revision_of_a_hub_is_that_of_the_moment(hubbed: RealDaemon, hub: Hub) -> None:
    old = pulled(hubbed, "hf:org/repo/m.gguf", name="m")
    hub.repos["org/repo"].note = "a commit that changes none of these files"
    assert pulled(hubbed, "hf:org/repo/m.gguf", name="m")["revision"] != old["revision"]
    (added,) = history(hubbed, "m")
    assert added["details"]["revision"] == old["revision"]


def test_the_etag_of_a_web_server(hubbed: RealDaemon) -> None:
    def answer(asked: Asked) -> Reply:
        return file_reply(asked, CONTENT, {"ETag": '"first"'})

    with Server(answer) as web:
        pulled(hubbed, f"{web.url}/m.gguf", name="m")
        (added,) = history(hubbed, "m")
        assert added["details"]["validator"] == '"first"'
        pulled(hubbed, f"{web.url}/m.gguf", name="n")
        assert history(hubbed, "n") == [added], "nothing was read for it"
