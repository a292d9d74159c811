"""Templates of documents, without a daemon."""

from __future__ import annotations

import json

from rigs.command import Ctl


def test_a_template_is_a_document(ctl: Ctl) -> None:
    done = ctl("template", "ministral-3b", "--quantization", "Q4_K_M", "--no-start")
    document = json.loads(done.stdout)
    assert (document["model_id"], document["quantization"], document["params_billions"]) == (
        "ministral-3b",
        "Q4_K_M",
        3.0,
    )
    assert "ministral-3b-25_12-q4_k_m.gguf" in done.stderr
    assert "1843 MB of video memory, by the rule of thumb" in done.stderr
    assert ctl.json("template", "ministral-3b", "--quantization", "Q4_K_M")["name"] == document["name"]
    assert ctl("status", "--no-start").returncode == 9, "no daemon was started"


def test_all_templates_are_listed(ctl: Ctl) -> None:
    assert ctl("template", "-q").stdout.split() == ["ministral-3b", "ministral-8b", "yolov8n"]
    assert len(ctl("template").stdout.splitlines()) == 4
    assert [each["model_id"] for each in ctl.json("template")] == ["ministral-3b", "ministral-8b", "yolov8n"]


def test_one_without_a_number_of_parameters_recommends(ctl: Ctl) -> None:
    assert "1024 MB of video memory, by its own recommendation" in ctl("template", "yolov8n").stderr


def test_a_template_that_does_not_exist(ctl: Ctl) -> None:
    done = ctl("template", "nothing")
    assert done.returncode == 3
    assert "hint: There are ministral-3b, ministral-8b, yolov8n." in done.stderr
