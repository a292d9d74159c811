"""`modelctl register`, with a real daemon."""

from __future__ import annotations

import json
import os
from hashlib import sha256

import pytest

from rigs.command import Ctl


def test_a_model_before_its_bytes_are_here(ctl: Ctl) -> None:
    template = ctl.room / "m.json"
    template.write_text(ctl("template", "ministral-3b").stdout)
    assert ctl("register", str(template)).stdout == "ministral-3b  registered\n"
    assert ctl("register", str(template)).stdout == "ministral-3b  registered already\n"
    assert ctl.json("register", str(template), "--name", "other")["changed"]
    assert "available" in ctl("list").stdout
    assert ctl.json("show", "other")["node"]["status"] == "available"
    assert ctl("fit", "other", "--vram", "8GiB", "--ram", "8GiB").returncode == 0
    assert ctl("path", "other").returncode == 3
    assert ctl("pull", "other").returncode == 3
    assert ctl("rm", "other").returncode == 0
    assert [model["name"] for model in ctl.json("list")] == ["ministral-3b"]


def test_what_is_no_document(ctl: Ctl) -> None:
    file = ctl.room / "m.json"
    assert ctl("register", str(file)).returncode == 3
    for text in ("[]", "{", json.dumps({"model_id": "m"}), " " * 300_000):
        file.write_text(text)
        done = ctl("register", str(file))
        assert done.returncode == 2, text[:20]
        assert done.stdout == ""
        assert "hint: " in done.stderr


CONTENT = b"GGUF\3\0\0\0 the bytes of a model"
ID = "my-org/my model"


def test_a_file_is_registered_without_a_copy(ctl: Ctl) -> None:
    path = ctl.file("m.gguf", CONTENT)
    made = ctl.json("register", ID, "m.gguf", "--sha256", sha256(CONTENT).hexdigest())
    assert (made["name"], made["reused"]) == ("m", False)
    assert os.stat(path).st_ino == os.stat(made["path"]).st_ino
    assert ctl("path", ID).stdout == made["path"] + "\n"
    shown = ctl("show", ID).stdout
    assert f"known as   {ID}\n" in shown
    assert "registered" in shown
    again = ctl("register", ID, "m.gguf")
    assert (again.returncode, f"known as {ID}, its bytes were there already" in again.stdout) == (0, True)
    for verb in ("pin", "verify", "unpin", "repair", "fit"):
        assert ctl(verb, ID).returncode == 0, verb
    assert ctl("run", ID, "--", "true").returncode == 0
    assert ctl("cp", ID, "copy").returncode == 0
    assert ctl("mv", ID, "moved").returncode == 0
    assert ctl.json("show", ID)["ids"] == [ID]
    assert ctl("rm", ID).stdout.startswith("moved")
    assert ctl("path", ID).returncode == 2


def test_what_a_registration_of_a_file_refuses(ctl: Ctl) -> None:
    ctl.file("m.gguf", CONTENT)
    assert ctl("register", ID, "missing.gguf").returncode == 3
    assert ctl("register", ID, "m.gguf", "--sha256", "0" * 64).returncode == 6
    assert ctl.json("list") == []
    assert ctl("register", "llama:8b", "m.gguf").returncode == 0
    assert ctl.json("show", "llama:8b")["name"] == "llama:8b"
    ctl.file("n.gguf", CONTENT + b"!")
    refused = ctl("register", "llama:8b", "n.gguf")
    assert refused.returncode == 5, refused.stderr
    assert "cannot be registered as 'llama:8b'" in refused.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("m.json", "--sha256", "0" * 64), "--sha256 is for a file"),
        ((ID, ""), "the path is empty"),
        ((ID, "m.gguf", "n.gguf"), "unrecognized arguments"),
        (("", "m.gguf"), "it is no id"),
        (("llama", "m.gguf", "--name", "other"), "so the model has that name"),
    ],
)
def test_mixtures_of_the_two_forms(ctl: Ctl, words: tuple[str, ...], says: str) -> None:
    ctl.file("m.gguf", CONTENT)
    done = ctl("register", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_file_of_another_filesystem_is_refused(ctl: Ctl) -> None:
    """As an add with --link has it."""
    path = "/dev/shm/modeld-register.gguf"
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(ctl.room).st_dev:
        pytest.skip("there is no other filesystem")
    with open(path, "wb") as file:
        file.write(CONTENT)
    try:
        linked = ctl("add", path, "--link", "--name", "linked")
        registered = ctl("register", ID, path)
        assert (registered.returncode, registered.stderr) == (linked.returncode, linked.stderr)
        assert "it is on another filesystem than the store" in registered.stderr
        assert ctl.json("list") == []
    finally:
        os.unlink(path)
