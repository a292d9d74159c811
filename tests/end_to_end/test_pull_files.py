"""A model of many files is one pull: one total, one progress that never goes back, phases in their order."""

from __future__ import annotations

import json
from typing import Any

from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, begun, ctl, gguf, pulled
from rigs.real_daemon import RealDaemon

FILES = {
    "model-00001-of-00002.gguf": gguf(9 * MIB + 1, 141),
    "model-00002-of-00002.gguf": gguf(5 * MIB + 2, 142),
    "mmproj.gguf": gguf(MIB, 143),
    "config.json": b'{"a": 1}',
    "tokenizer.json": gguf(300_000, 144),
    "README.md": b"# a model",
}
LFS = frozenset(path for path in FILES if path.endswith(".gguf"))
SIZE = sum(map(len, FILES.values()))
COUNTERS = ("bytes_done", "verified_bytes", "network_bytes", "reused_bytes", "committed_bytes", "files_done")


def followed(daemon: RealDaemon, ref: str, **fields: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    with daemon.connect() as wire:
        number = wire.request("model.pull", ref=ref, **fields)
        seen = []
        while (reply := wire.read())["type"] not in ("result", "error"):
            if reply["type"] == "progress" and reply["id"] == number:
                seen.append(reply)
    assert reply["type"] == "result", reply
    return seen, reply["value"]


def assert_honest(seen: list[dict[str, Any]]) -> None:
    for counter in COUNTERS:
        told = [each[counter] for each in seen if each.get(counter) is not None]
        assert told == sorted(told), counter
    phases = [each["phase"] for each in seen]
    order = ["queued", "checking_local", "reserving", "download", "verify", "publish", "done"]
    places = [order.index(phase) for phase in phases]
    assert places == sorted(places), phases
    last = seen[-1]
    assert last["bytes_done"] == last["bytes_total"] == SIZE
    assert last["verified_bytes"] == last["network_bytes"] == SIZE - last["reused_bytes"]
    assert (last["files_done"], last["files_total"]) == (len(FILES), len(FILES))
    assert {each["bytes_total"] for each in seen if each["phase"] == "download"} == {SIZE}


def test_all_files_are_one_progress(stopped: RealDaemon) -> None:
    with Hub({"org/repo": Repo(FILES, lfs=LFS)}) as hub:
        stopped.environ["HF_ENDPOINT"] = hub.url
        stopped.start()
        seen, value = followed(stopped, "hf:org/repo", max_rate=8 * MIB)
        assert_honest(seen)
        assert seen[-1]["network_bytes"] == SIZE
        assert len({each["bytes_done"] for each in seen}) > 3
        assert len(value["files"]) == len(FILES)
        # Some files are here already: they count as done, not as fetched.
        some, _ = followed(stopped, "hf:org/repo", name="half", include=["*.gguf"])
        assert (some[-1]["network_bytes"], some[-1]["files_total"]) == (0, 3)
        hub.repos["org/repo"].files["config.json"] = b'{"b": 2}'
        seen, again = followed(stopped, "hf:org/repo")
        assert_honest(seen)
        small = sum(len(content) for path, content in FILES.items() if path not in LFS)
        assert seen[-1]["network_bytes"] == small, "only what the hub tells no SHA-256 of"
        assert again["revision"] != value["revision"]
        assert pulled(stopped, "hf:org/repo")["current"] is True


def test_one_that_fails_stops_the_others_and_what_came_stays(stopped: RealDaemon) -> None:
    files = {"a.gguf": gguf(16 * MIB, 151), "b.gguf": gguf(2 * MIB, 152), "c.gguf": gguf(MIB, 153)}
    repo = Repo(dict(files), lfs=frozenset(files))
    with Hub({"org/repo": repo}) as hub:
        stopped.environ |= {"HF_ENDPOINT": hub.url, "MODELD_TRANSFER_FILES_AT_ONCE": "2"}
        stopped.start()
        with stopped.connect() as wire:
            number = wire.request("model.pull", ref="hf:org/repo", max_rate=2 * MIB)
            begun(wire, number, MIB // 2)
            del repo.files["c.gguf"]
            while (reply := wire.read())["type"] not in ("result", "error"):
                if reply["type"] == "progress":
                    assert reply["bytes_done"] < 12 * MIB, "the first file is not waited for"
        assert (reply["type"], reply["code"]) == ("error", "source_not_found"), reply
        repo.files["c.gguf"] = files["c.gguf"]
        seen, _ = followed(stopped, "hf:org/repo")
        assert seen[-1]["reused_bytes"] > 2 * MIB
        assert seen[-1]["network_bytes"] < sum(map(len, files.values())) - 2 * MIB


def test_of_many_quantisations_one_is_fetched_and_the_user_is_told(stopped: RealDaemon) -> None:
    files = {f"m-{kind}.gguf": gguf(MIB, number) for number, kind in enumerate(["Q2_K", "Q4_K_M", "Q8_0"])}
    with Hub({"org/m-GGUF": Repo({**files, "README.md": b"# m"}, lfs=frozenset(files))}) as hub:
        stopped.environ["HF_ENDPOINT"] = hub.url
        stopped.start()
        one = ctl(stopped, "pull", "hf:org/m-GGUF")
        assert one.returncode == 0, one.stderr
        assert "org/m-GGUF has 3 quantisations, and Q4_K_M was taken; --all fetches all of them" in one.stderr
        value = pulled(stopped, "hf:org/m-GGUF")
        assert (value["name"], value["files"], value["current"]) == ("m", [], True)
        assert value["note"] == "org/m-GGUF has 3 quantisations, and Q4_K_M was taken"
        everything = ctl(stopped, "pull", "hf:org/m-GGUF", "--all", "--name", "everything", "--json")
        assert len(json.loads(everything.stdout)["files"]) == 4, everything
