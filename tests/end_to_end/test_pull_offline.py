"""Offline no socket is opened: seen at the system calls of the daemon."""

from __future__ import annotations

import re

import pytest

from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, ctl, failed, gguf, pulled
from rigs.real_daemon import RealDaemon
from rigs.scripted_server import Server, file_reply
from rigs.traced_daemon import strace, traced

CONTENT = gguf(MIB, 131)
NETWORK = re.compile(r"\b(?:AF_INET6?|AF_NETLINK|AF_PACKET)\b|sin6?_port")

__all__ = ["strace"]
pytestmark = pytest.mark.usefixtures("strace")

CALLS = "trace=socket,socketpair,connect,bind,sendto,sendmsg"


def network_calls(trace: str) -> list[str]:
    return [line for line in trace.splitlines() if NETWORK.search(line)]


@pytest.mark.parametrize("how", ["asked", "configured"])
def test_nothing_is_opened(stopped: RealDaemon, how: str) -> None:
    repo = Repo({"m.gguf": CONTENT, "config.json": b"{}"}, lfs=frozenset({"m.gguf"}))
    with Hub({"org/repo": repo}) as hub, Server(lambda asked: file_reply(asked, CONTENT)) as web:
        stopped.environ |= {"HF_ENDPOINT": hub.url, "AWS_ENDPOINT_URL": web.url}
        stopped.start()
        pulled(stopped, "hf:org/repo")
        pulled(stopped, f"{web.url}/m.gguf")
        stopped.terminate()
        asked = len(hub.server.asked) + len(hub.cdn.asked) + len(web.asked)
        offline = how == "asked"
        if how == "configured":
            stopped.configure("[transfer]\noffline = true\n")
        stopped.start()
        with traced(stopped, CALLS) as trace:
            assert pulled(stopped, "hf:org/repo", offline=offline)["current"] is True
            assert pulled(stopped, f"{web.url}/m.gguf", offline=offline, name="again")["reused"] is True
            for ref in (
                "hf:org/other",
                "https://models.example/m.gguf",
                "s3://bucket/m",
                "ollama:m",
                "oci://ghcr.io/a/m",
            ):
                refused = failed(stopped, ref, "offline", offline=offline)
                assert "no connection may be opened" in refused["message"]
            done = ctl(stopped, "pull", "hf:org/other", *(["--offline"] if offline else []))
            assert (done.returncode, "no connection may be opened" in done.stderr) == (10, True)
        assert network_calls(trace.text) == []
        assert len(hub.server.asked) + len(hub.cdn.asked) + len(web.asked) == asked


def test_what_the_trace_would_see(stopped: RealDaemon) -> None:
    with Server(lambda asked: file_reply(asked, CONTENT)) as web:
        stopped.start()
        with traced(stopped, CALLS) as trace:
            pulled(stopped, f"{web.url}/m.gguf")
    assert network_calls(trace.text)
