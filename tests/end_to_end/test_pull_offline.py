"""Offline no socket is opened: seen at the system calls of the daemon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pull_rig import MIB, ctl, failed, gguf, pulled
from real_daemon import RealDaemon
from traced_calls import strace
from transfer.doubles import Server, file_reply
from transfer.hub import Hub, Repo

CONTENT = gguf(MIB, 131)
NETWORK = re.compile(r"\b(?:AF_INET6?|AF_NETLINK|AF_PACKET)\b|sin6?_port")


CALLS = "trace=socket,socketpair,connect,bind,sendto,sendmsg"


def network_calls(calls: Path) -> list[str]:
    return [line for line in calls.read_text().splitlines() if NETWORK.search(line)]


@pytest.mark.parametrize("how", ["asked", "configured"])
def test_nothing_is_opened(stopped: RealDaemon, how: str) -> None:
    daemon, calls = stopped, Path(stopped.room, "calls")
    repo = Repo({"m.gguf": CONTENT, "config.json": b"{}"}, lfs=frozenset({"m.gguf"}))
    with Hub({"org/repo": repo}) as hub, Server(lambda asked: file_reply(asked, CONTENT)) as web:
        daemon.environ |= {"HF_ENDPOINT": hub.url, "AWS_ENDPOINT_URL": web.url}
        daemon.start()
        pulled(daemon, "hf:org/repo")
        pulled(daemon, f"{web.url}/m.gguf")
        daemon.terminate()
        asked = len(hub.server.asked) + len(hub.cdn.asked) + len(web.asked)
        offline = how == "asked"
        if how == "configured":
            daemon.configure("[transfer]\noffline = true\n")
        daemon.start()
        with strace(daemon, CALLS, output=str(calls)):
            assert pulled(daemon, "hf:org/repo", offline=offline)["current"] is True
            assert pulled(daemon, f"{web.url}/m.gguf", offline=offline, name="again")["reused"] is True
            for ref in (
                "hf:org/other",
                "https://models.example/m.gguf",
                "s3://bucket/m",
                "ollama:m",
                "oci://ghcr.io/a/m",
            ):
                refused = failed(daemon, ref, "offline", offline=offline)
                assert "no connection may be opened" in refused["message"]
            done = ctl(daemon, "pull", "hf:org/other", *(["--offline"] if offline else []))
            assert (done.returncode, "no connection may be opened" in done.stderr) == (10, True)
        assert network_calls(calls) == []
        assert len(hub.server.asked) + len(hub.cdn.asked) + len(web.asked) == asked


def test_what_the_trace_would_see(stopped: RealDaemon) -> None:
    daemon, calls = stopped, Path(stopped.room, "calls")
    with Server(lambda asked: file_reply(asked, CONTENT)) as web:
        daemon.start()
        with strace(daemon, CALLS, output=str(calls)):
            pulled(daemon, f"{web.url}/m.gguf")
    assert network_calls(calls)
