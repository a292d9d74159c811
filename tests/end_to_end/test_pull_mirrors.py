"""Mirrors of what is pulled: asked first, left when they fail, and what they gave is kept."""

from __future__ import annotations

from pathlib import Path

from rigs.chaos_server import Chaos, Fault
from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, gguf, hex_of, pulled
from rigs.real_daemon import RealDaemon
from rigs.real_s3 import KEY, SECRET
from rigs.scripted_server import Asked, Reply, Server, file_reply

CONTENT = gguf(24 * MIB + 9, 111)


def mirrored(daemon: RealDaemon, match: str, url: str) -> RealDaemon:
    daemon.configure(f'[[mirror]]\nmatch = "{match}"\nurl = "{url}"\n')
    return daemon.start()


def test_what_a_mirror_gave_before_it_failed_is_kept(stopped: RealDaemon) -> None:
    gone = Fault("status", 0.5, times=1_000_000, status=404)
    with Chaos(CONTENT, gone, rate=16 * MIB) as mirror, Chaos(CONTENT) as origin:
        mirrored(stopped, f"{origin.url}/", f"{mirror.url}/models/")
        value = pulled(stopped, f"{origin.url}/m.gguf", sha256=hex_of(CONTENT))
        assert value["blob"] == f"sha256:{hex_of(CONTENT)}"
        assert {request.path for request in mirror.requests} == {"/models/m.gguf"}
        kept = len(CONTENT) - origin.sent
        assert value["served"] == {f"http at {mirror.url}": kept, f"http at {origin.url}": origin.sent}
        assert kept >= 12 * MIB, "every whole piece that had arrived"
    failed = [event for event in stopped.activity() if event["event"] == "source.failed"]
    assert failed[0]["source"] == f"http at {mirror.url}"
    assert failed[0]["kept_bytes"] > 0


def test_a_hub_that_goes_away_leaves_its_bytes_to_the_next(stopped: RealDaemon) -> None:
    repo = Repo({"m.gguf": CONTENT, "config.json": b"{}"}, lfs=frozenset({"m.gguf"}))
    with Hub({"org/repo": repo}) as mirror, Hub({"org/repo": repo}) as origin:
        route = mirror.cdn.route

        def soon_gone(asked: Asked) -> Reply:
            return route(asked) if len(mirror.cdn.asked) <= 2 else Reply(404)

        mirror.cdn.route = soon_gone
        stopped.environ |= {"HF_ENDPOINT": origin.url, "MODELD_TRANSFER_CONNECTIONS_PER_FILE": "1"}
        mirrored(stopped, "hf:org/", mirror.url)
        value = pulled(stopped, "hf:org/repo")
        assert len(value["served"]) == 2, value["served"]
        assert sum(value["served"].values()) == len(CONTENT) + 2
        ranges = [asked.headers["Range"] for asked in origin.cdn.asked]
        assert ranges
        assert not any(each.startswith("bytes=0-") for each in ranges), "the rest only"
    assert Path(value["path"], "m.gguf").read_bytes() == CONTENT


def test_a_mirror_of_buckets(stopped: RealDaemon) -> None:
    with Server(lambda asked: file_reply(asked, CONTENT)) as mirror:
        stopped.environ |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": KEY}
        stopped.environ["AWS_SECRET_ACCESS_KEY"] = SECRET
        mirrored(stopped, "s3://weights/", mirror.url)
        value = pulled(stopped, "s3://weights/m.gguf")
        assert value["served"] == {f"s3 at {mirror.url}": len(CONTENT)}
        assert {asked.target for asked in mirror.asked} == {"/weights/m.gguf"}, "nothing is signed for a mirror"
    assert Path(value["path"]).read_bytes() == CONTENT


def test_a_mirror_with_wrong_bytes_is_not_asked_again(stopped: RealDaemon) -> None:
    wrong = gguf(len(CONTENT), 112)
    with (
        Server(lambda asked: file_reply(asked, wrong)) as mirror,
        Server(lambda asked: file_reply(asked, CONTENT)) as origin,
    ):
        mirrored(stopped, f"{origin.url}/", f"{mirror.url}/")
        value = pulled(stopped, f"{origin.url}/m.gguf", sha256=hex_of(CONTENT))
        assert value["served"] == {f"http at {origin.url}": len(CONTENT)}
        gets = [asked for asked in mirror.asked if asked.method == "GET"]
        assert gets
        stopped.ask("model.remove", name="m")
        Path(value["path"]).parent.joinpath("data").unlink()
        assert pulled(stopped, f"{origin.url}/m.gguf", sha256=hex_of(CONTENT))["reused"] is False
        assert [asked for asked in mirror.asked if asked.method == "GET"] == gets
    assert [event["source"] for event in stopped.activity() if event["event"] == "source.condemned"]
