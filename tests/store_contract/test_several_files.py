"""Models of several files through a real daemon: directories, sets of shards, their trees, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from held_daemon import HeldDaemon
from real_daemon import RealDaemon, wait_until
from store_contract.conftest import Ctl

WEIGHTS = b"GGUF" + bytes(3000)


def directory(room: Path, name: str = "gemma", files: dict[str, bytes] | None = None) -> Path:
    made = room / name
    for path, content in (files or EXAMPLE).items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_bytes(content)
    return made


EXAMPLE = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"one" * 700,
    "model-00002-of-00002.safetensors": b"two" * 700,
    "tokenizer.json": b'{"v": 1}',
    "mmproj-f16.gguf": b"GGUFp",
    "LICENSE": b"MIT",
    "README.md": b"# hello",
    "sub/deeper/extra.dat": b"extra",
}


def shards(room: Path, stem: str = "big", count: int = 3) -> list[Path]:
    made = [room / f"{stem}-{part:05d}-of-{count:05d}.gguf" for part in range(1, count + 1)]
    for part, path in enumerate(made):
        path.write_bytes(WEIGHTS + bytes([part]))
    return made


def tree_of(path: str) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}


def leftovers(daemon: RealDaemon) -> list[str]:
    return os.listdir(f"{daemon.root}/.modeld/staging")


def assert_nothing_there(daemon: RealDaemon) -> None:
    assert os.listdir(f"{daemon.root}/manifests") == []
    assert [path for path, _, files in os.walk(f"{daemon.root}/blobs") if files] == []
    assert leftovers(daemon) == []
    wait_until(lambda: not daemon.ask("daemon.status")["value"].get("reserved_bytes"), what="room given back")


# -- directories


def test_a_directory_becomes_one_model_with_roles(room: Path, ctl: Ctl) -> None:
    source = directory(room)
    added = ctl.json("add", str(source))
    assert {file["path"]: file["role"] for file in added["files"]} == {
        "config.json": "config",
        "model-00001-of-00002.safetensors": "weights",
        "model-00002-of-00002.safetensors": "weights",
        "tokenizer.json": "tokenizer",
        "mmproj-f16.gguf": "mmproj",
        "LICENSE": "license",
        "README.md": "doc",
        "sub/deeper/extra.dat": "other",
    }
    first = hashlib.sha256(EXAMPLE["model-00001-of-00002.safetensors"]).hexdigest()
    assert (added["name"], added["blob"], added["format"]) == ("gemma", f"sha256:{first}", "safetensors")
    assert added["size_bytes"] == sum(map(len, EXAMPLE.values())) == ctl.json("list")[0]["size_bytes"]
    assert tree_of(ctl.path("gemma")) == EXAMPLE
    manifest = json.loads(Path(ctl.daemon.root, "manifests", "gemma.json").read_text())
    assert manifest["size_bytes"] == len(EXAMPLE["model-00001-of-00002.safetensors"])
    assert leftovers(ctl.daemon) == []


def test_path_prints_the_directory_and_one_file_by_its_name(room: Path, ctl: Ctl) -> None:
    ctl.json("add", str(directory(room)))
    tree = ctl.path("gemma")
    assert os.path.isdir(tree)
    assert ctl.path("gemma", "--file", "sub/deeper/extra.dat") == f"{tree}/sub/deeper/extra.dat"
    answer = ctl.daemon.ask("model.resolve", name="gemma", file="config.json")["value"]
    assert answer["path"] == f"{tree}/config.json"
    assert answer["blob"] == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    done = ctl("path", "gemma", "--file", "confg.json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "did you mean config.json" in done.stderr


def test_one_file_by_name_of_a_model_of_one_file(ctl: Ctl) -> None:
    ctl.json("add", ctl.daemon.file("a b.gguf", WEIGHTS), "--name", "one")
    assert ctl.path("one", "--file", "a b.gguf") == ctl.path("one")
    assert ctl("path", "one", "--file", "other").returncode == 3


def test_trees_are_links_and_cost_no_bytes(room: Path, ctl: Ctl) -> None:
    ctl.json("add", str(directory(room)))
    for file in ctl.json("show", "gemma")["files"]:
        digest = file["blob"].removeprefix("sha256:")
        blob = os.stat(f"{ctl.daemon.root}/blobs/sha256/{digest[:2]}/{digest}/data")
        shown = os.stat(f"{ctl.path('gemma')}/{file['path']}")
        assert (shown.st_ino, shown.st_mode & 0o777) == (blob.st_ino, 0o444)
    usage = ctl.json("usage")
    assert usage["physical_bytes"] == usage["logical_bytes"] == sum(map(len, EXAMPLE.values()))


def test_the_same_directory_again_is_success_and_another_content_is_refused(room: Path, ctl: Ctl) -> None:
    source = directory(room)
    first = ctl.json("add", str(source))
    again = ctl.json("add", str(source))
    assert (again["reused"], again["path"]) == (True, first["path"])
    (source / "config.json").write_bytes(b'{"changed": 1}')
    assert ctl("add", str(source)).returncode == 5
    assert ctl.path("gemma") == first["path"]
    replaced = ctl.json("add", str(source), "--replace")
    assert replaced["path"] != first["path"], "readers of the old files keep the old files"
    assert tree_of(ctl.path("gemma"))["config.json"] == b'{"changed": 1}'


def test_hidden_files_and_empty_directories_do_not_belong_to_the_model(room: Path, ctl: Ctl) -> None:
    source = directory(room, files={"m.gguf": WEIGHTS, ".gitattributes": b"x", ".cache/a": b"y"})
    (source / "empty").mkdir()
    (source / ".link").symlink_to("/etc/passwd")
    assert [file["path"] for file in ctl.json("add", str(source))["files"]] == ["m.gguf"]


def test_equal_files_are_one_blob(room: Path, ctl: Ctl) -> None:
    ctl.json("add", str(directory(room, files={"a.gguf": WEIGHTS, "b.gguf": WEIGHTS, "c/d.gguf": WEIGHTS})))
    assert tree_of(ctl.path("gemma")) == {"a.gguf": WEIGHTS, "b.gguf": WEIGHTS, "c/d.gguf": WEIGHTS}
    assert len([path for path, _, files in os.walk(f"{ctl.daemon.root}/blobs") if files]) == 1


def _symlink(source: Path) -> None:
    (source / "sub").mkdir()
    (source / "sub" / "alias").symlink_to("../m.gguf")


def _pipe(source: Path) -> None:
    os.mkfifo(source / "pipe")


def _socket(source: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(source / "socket"))


def _case(source: Path) -> None:
    (source / "M.GGUF").write_bytes(b"x")


def _case_of_directories(source: Path) -> None:
    for name in ("Sub", "sub"):
        (source / name).mkdir()
        (source / name / name).write_bytes(b"x")


def _backslash(source: Path) -> None:
    (source / "a\\b").write_bytes(b"x")


def _control(source: Path) -> None:
    (source / "a\nb").write_bytes(b"x")


def _not_utf8(source: Path) -> None:
    Path(os.fsdecode(os.fsencode(source) + b"/\xff")).write_bytes(b"x")


def _missing_shard(source: Path) -> None:
    (source / "w-00001-of-00002.safetensors").write_bytes(b"x")


def _unreadable_number(source: Path) -> None:
    deep = source.joinpath(*("d" for _ in range(40)))
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_symlink, "sub/alias is a symbolic link"),
        (_pipe, "pipe is a named pipe"),
        (_socket, "socket is a socket"),
        (_case, "where case does not count"),
        (_case_of_directories, "where case does not count"),
        (_backslash, "backslash"),
        (_control, "control character"),
        (_not_utf8, "no UTF-8"),
        (_missing_shard, "w-00002-of-00002.safetensors is not there"),
        (_unreadable_number, "directories deep"),
    ],
)
def test_what_cannot_be_in_a_model_is_refused_by_its_path(room: Path, ctl: Ctl, spoil: Any, says: str) -> None:
    source = directory(room, files={"m.gguf": WEIGHTS})
    spoil(source)
    done = ctl("add", str(source))
    assert done.returncode in (1, 2, 3, 10), done.stderr
    assert says in done.stderr
    assert_nothing_there(ctl.daemon)


@pytest.mark.parametrize("content", [{}, {".hidden": b"x"}])
def test_a_directory_without_files_is_refused(room: Path, ctl: Ctl, content: dict[str, bytes]) -> None:
    (room / "gemma").mkdir()
    for name, data in content.items():
        (room / "gemma" / name).write_bytes(data)
    done = ctl("add", str(room / "gemma"))
    assert done.returncode != 0
    assert "has no files in it" in done.stderr
    assert_nothing_there(ctl.daemon)


def test_the_store_cannot_be_added_to_itself(room: Path, stopped: RealDaemon) -> None:
    stopped.root = stopped.environ["MODELS_HOME"] = str(room / "outer" / "models")
    ctl = Ctl(stopped.start())
    ctl.json("add", stopped.file("m.gguf", WEIGHTS))
    for path in (stopped.root, f"{stopped.root}/blobs", str(room / "outer")):
        done = ctl("add", path, "--name", "itself")
        assert done.returncode != 0
        assert "the store" in done.stderr
    assert len(os.listdir(f"{stopped.root}/manifests")) == 1


def test_a_digest_is_of_one_file(room: Path, ctl: Ctl) -> None:
    done = ctl("add", str(directory(room)), "--sha256", "0" * 64)
    assert done.returncode != 0
    assert "a digest is of one" in done.stderr
    assert_nothing_there(ctl.daemon)


# -- shards


@pytest.mark.parametrize("named", [0, 1, 2])
def test_a_set_of_shards_is_recognised_from_any_of_its_parts(room: Path, ctl: Ctl, named: int) -> None:
    parts = shards(room)
    added = ctl.json("add", str(parts[named]))
    assert added["name"] == "big"
    assert added["blob"] == f"sha256:{hashlib.sha256(parts[0].read_bytes()).hexdigest()}"
    assert tree_of(ctl.path("big")) == {part.name: part.read_bytes() for part in parts}


def test_a_missing_part_is_an_error_that_names_it(room: Path, ctl: Ctl) -> None:
    parts = shards(room)
    parts[1].unlink()
    done = ctl("add", str(parts[2]))
    assert done.returncode == 10 or done.returncode == 3, done.returncode
    assert f"{parts[1]} is not there" in done.stderr
    assert_nothing_there(ctl.daemon)


def test_a_set_of_one_is_a_file(room: Path, ctl: Ctl) -> None:
    (part,) = shards(room, count=1)
    assert ctl.json("add", str(part))["files"] == []


# -- trees


def test_a_damaged_tree_is_made_again_before_it_is_given_out(room: Path, ctl: Ctl) -> None:
    ctl.json("add", str(directory(room)))
    tree = Path(ctl.path("gemma"))

    def lost() -> None:
        shutil.rmtree(tree)

    def lacks_a_file() -> None:
        (tree / "config.json").unlink()

    def has_another_file() -> None:
        (tree / "config.json").unlink()
        (tree / "config.json").write_bytes(b"{}")

    def has_one_too_many() -> None:
        (tree / "sub" / "stranger").write_bytes(b"x")

    def is_a_link() -> None:
        shutil.move(tree, room / "elsewhere")
        tree.symlink_to(room / "elsewhere")

    for damage in (lost, lacks_a_file, has_another_file, has_one_too_many, is_a_link):
        damage()
        assert ctl.path("gemma") == str(tree)
        assert tree_of(str(tree)) == EXAMPLE, damage.__name__
        assert not tree.is_symlink()
    assert leftovers(ctl.daemon) == []
    assert tree_of(str(room / "elsewhere")) == EXAMPLE, "what a link led to was not touched"


def test_a_tree_hides_no_missing_blob(room: Path, ctl: Ctl) -> None:
    """The bytes still hang on the tree's link, but the store has lost them."""
    added = ctl.json("add", str(directory(room)))
    digest = added["files"][0]["blob"].removeprefix("sha256:")
    shutil.rmtree(f"{ctl.daemon.root}/blobs/sha256/{digest[:2]}/{digest}")
    done = ctl("path", "gemma")
    assert (done.returncode, done.stdout) == (6, "")


def test_trees_go_with_their_model_and_come_with_another_name(room: Path, ctl: Ctl) -> None:
    ctl.json("add", str(directory(room)))
    trees = Path(ctl.daemon.root, ".modeld", "trees")
    ctl.json("cp", "gemma", "copy:1")
    assert tree_of(ctl.path("copy:1")) == EXAMPLE
    ctl.json("mv", "gemma", "moved")
    assert tree_of(ctl.path("moved")) == EXAMPLE
    assert sorted(os.listdir(trees)) == ["copy+1", "moved"]
    assert ctl("rm", "copy:1", "moved").returncode == 0
    assert os.listdir(trees) == []


def test_links_do_not_make_blobs_look_changed(room: Path, ctl: Ctl) -> None:
    """Each link changes a blob's times. What was verified is still known: nothing is hashed again."""
    ctl.json("add", str(directory(room)))
    before = ctl.json("show", "gemma")["verified_at"]
    shutil.rmtree(room / "gemma")
    ctl.json("cp", "gemma", "copy")
    ctl.path("copy")
    assert ctl.json("show", "gemma")["verified_at"] == before
    assert ctl("rm", "copy").returncode == 0
    assert ctl.json("show", "gemma")["verified_at"] == before


# -- work in progress


def test_progress_is_that_of_all_files_and_never_steps_back(room: Path, daemon: RealDaemon) -> None:
    files = {f"part{number:02d}.bin": os.urandom(3 << 20) for number in range(20)}
    source = directory(room, files=files)
    seen = []
    with daemon.connect() as wire:
        number = wire.request("model.add", path=str(source))
        while (reply := wire.read())["type"] != "result":
            assert reply["type"] != "error", reply
            if reply["type"] == "progress" and reply["id"] == number:
                seen.append(reply)
    total = sum(map(len, files.values()))
    for counter in ("bytes_done", "verified_bytes", "committed_bytes", "files_done"):
        counts = [reply[counter] for reply in seen]
        assert counts == sorted(counts), counter
    last = seen[-1]
    assert (last["bytes_done"], last["bytes_total"], last["files_done"], last["files_total"]) == (total, total, 20, 20)
    assert last["committed_bytes"] == total
    assert all(reply["bytes_total"] in (None, total) for reply in seen)


def test_cancel_leaves_nothing(room: Path) -> None:
    held = HeldDaemon(str(room))
    try:
        held.start()
        source = directory(room, files={f"part{number}.bin": os.urandom(5 << 20) for number in range(4)})
        with held.connect() as wire:
            number = wire.request("model.add", path=str(source))
            wait_until(lambda: leftovers(held), what="a file on its way")
            assert wire.ask("cancel", target=number)["type"] == "result"
            assert wire.terminal(number)["code"] == "cancelled"
        wait_until(lambda: not leftovers(held), what="the end of the work")
        assert_nothing_there(held)
        held.release()
        assert held.ask("model.add", path=str(source))["type"] == "result"
    finally:
        held.close()


def test_a_directory_that_changes_meanwhile_is_refused(room: Path) -> None:
    held = HeldDaemon(str(room))
    try:
        held.start()
        source = directory(room, files={"a.bin": os.urandom(5 << 20), "b.bin": b"x"})
        with held.connect() as wire:
            number = wire.request("model.add", path=str(source))
            wait_until(lambda: leftovers(held), what="a file on its way")
            (source / "late.bin").write_bytes(b"late")
            held.release()
            reply = wire.terminal(number)
        assert (reply["code"], "late.bin" in reply["message"]) == ("source_unavailable", True)
        assert_nothing_there(held)
    finally:
        held.close()


def test_a_thousand_small_files(room: Path, ctl: Ctl) -> None:
    files = {f"{number % 10}/f{number:04d}.bin": b"%06d" % number * 100 for number in range(1000)}
    added = ctl.json("add", str(directory(room, files=files)))
    assert len(added["files"]) == 1000
    assert tree_of(ctl.path("gemma")) == files
    (view,) = ctl.json("list")
    assert view["state"] == "ready"
    (job,) = ctl.json("jobs")
    assert job["value"]["name"] == "gemma"
    assert ctl("rm", "gemma").returncode == 0
