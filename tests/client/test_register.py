"""`modelctl register`, with a real daemon."""

from __future__ import annotations

import json

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
