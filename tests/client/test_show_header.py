"""What a header says, as people read it and as programs take it: with a real daemon and a real file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import modelclient
from modelwire.errors import InvalidRequest, Unsupported
from rigs.command import Ctl
from rigs.gguf_headers import gguf_file
from rigs.tiny_gguf import write_tiny_llama


@pytest.fixture
def tiny(ctl: Ctl) -> str:
    (path,) = write_tiny_llama(ctl.room / "tiny.gguf")
    ctl.json("add", str(path))
    return str(path)


@pytest.mark.usefixtures("tiny")
def test_show_says_what_the_header_says(ctl: Ctl) -> None:
    lines = dict(line.split("  ", 1) for line in ctl("show", "tiny").stdout.splitlines() if "  " in line)
    said = {key: text.strip() for key, text in lines.items()}
    assert (said["architecture"], said["parameters"]) == ("llama", "74.3K (74304)")
    assert (said["context"], said["layers"], said["tokenizer"]) == ("256 tokens", "1, 64 wide", "llama, 259 tokens")
    facts = ctl.json("show", "tiny")["facts"]
    assert (facts["format"], facts["quantization"], facts["vocabulary"]) == ("gguf", "F32", 259)


@pytest.mark.usefixtures("tiny")
def test_the_value_of_one_key_stands_alone(ctl: Ctl) -> None:
    assert ctl("show", "tiny", "--key", "general.name").stdout == "tiny\n"
    assert ctl.json("show", "tiny", "--key", "llama.*")["header"]["llama.context_length"] == 256
    words = ctl.json("show", "tiny", "--key", "tokenizer.ggml.tokens")["header"]["tokenizer.ggml.tokens"]
    assert (len(words), words[:3]) == (259, ["<unk>", "<s>", "</s>"])
    listed = ctl("show", "tiny", "--key", "*").stdout.splitlines()
    assert 'general.architecture = "llama"' in listed
    assert 'tokenizer.ggml.tokens = {"items": 259}' in listed


def test_text_of_several_lines_stays_so_and_is_safe_on_a_terminal(ctl: Ctl) -> None:
    template = "{% for x in y %}\n\t{{ x }}\x1b[31m\n{% endfor %}"
    ctl.json("add", ctl.file("m.gguf", gguf_file({"tokenizer.chat_template": template})))
    shown = ctl("show", "m", "--key", "tokenizer.chat_template").stdout
    assert shown.count("\n") == 3
    assert "\x1b" not in shown
    assert ctl.json("show", "m", "--key", "tokenizer.chat_template")["header"] == {"tokenizer.chat_template": template}


@pytest.mark.usefixtures("tiny")
def test_the_tensors_are_listed(ctl: Ctl) -> None:
    lines = ctl("show", "tiny", "--tensors").stdout.splitlines()
    assert lines[0].split() == ["TENSOR", "TYPE", "SHAPE", "BYTES"]
    assert lines[1].split() == ["token_embd.weight", "F32", "64x259", "66304"]
    assert len(lines) == 13
    tensors = ctl.json("show", "tiny", "--tensors")["tensors"]
    assert tensors[0] == {"name": "token_embd.weight", "type": "F32", "shape": [64, 259], "size_bytes": 66304}


def test_those_of_a_set_of_shards_are_those_of_all_its_files(ctl: Ctl) -> None:
    shards = write_tiny_llama(ctl.room / "tiny.gguf", shards=3)
    ctl.json("add", str(shards[0]), "--name", "set")
    assert len(ctl.json("show", "set", "--tensors")["tensors"]) == 12


@pytest.mark.usefixtures("tiny")
def test_a_key_that_is_not_there(ctl: Ctl) -> None:
    done = ctl("show", "tiny", "--key", "general.nam")
    assert done.returncode == 3
    assert done.stderr.startswith("modelctl: the header of 'tiny' has no key 'general.nam'\nhint: ")
    assert ctl("show", "tiny", "--key", "none.*").returncode == 0


def test_a_header_that_cannot_be_read(ctl: Ctl) -> None:
    ctl.json("add", ctl.file("m.gguf", b"GGUF" + bytes(99)))
    assert "opaque" in ctl("show", "m").stdout
    done = ctl("show", "m", "--key", "general.name")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the header of 'm' cannot be read: it does not begin as a GGUF file" in done.stderr


def test_a_suspect_model_is_not_read(ctl: Ctl, tiny: str) -> None:
    path = Path(ctl("path", "tiny").stdout.strip())
    path.chmod(0o644)
    path.write_bytes(path.read_bytes())
    assert ctl.json("show", "tiny")["state"] == "suspect"
    done = ctl("show", "tiny", "--key", "general.name")
    assert done.returncode == 1
    assert "modelctl verify tiny" in done.stderr
    assert ctl("verify", "tiny").returncode == 0
    assert ctl("show", "tiny", "--key", "general.name").stdout == "tiny\n"
    assert Path(tiny).exists()


def test_more_than_an_answer_has_room_for_is_refused(ctl: Ctl) -> None:
    fields = {f"k{number}": "x" * 120_000 for number in range(60)}
    ctl.json("add", ctl.file("m.gguf", gguf_file(fields)))
    with modelclient.Client(ctl.socket) as client:
        with pytest.raises(InvalidRequest, match="more than an answer has room for"):
            client.show("m", keys=tuple(fields))
        assert client.show("m", keys=("k1", "k2")).header == {"k1": fields["k1"], "k2": fields["k2"]}


def test_patterns_are_bounded_in_number_and_length(ctl: Ctl) -> None:
    ctl.json("add", ctl.file("m.gguf", gguf_file({"k": "v", "long": "x" * 100_000, "deep": [[1], [2]]})))
    with modelclient.Client(ctl.socket) as client:
        assert client.show("m", keys=("*",)).header == {
            "k": "v",
            "long": {"characters": None},
            "deep": {"items": 2},
        }
        for keys in (("*",) * 65, ("*" * 257,)):
            with pytest.raises(InvalidRequest, match="keys"):
                client.show("m", keys=keys)


def test_a_value_that_is_too_long_is_refused(ctl: Ctl) -> None:
    ctl.json("add", ctl.file("m.gguf", gguf_file({"k": ["x" * 1_000_000] * 9})))
    with modelclient.Client(ctl.socket) as client, pytest.raises(Unsupported, match="too many bytes"):
        client.show("m", keys=("k",))


def test_a_strict_add_and_a_warning(ctl: Ctl) -> None:
    path = ctl.file("m.gguf", b"weights")
    refused = ctl("add", path, "--strict-format")
    assert refused.returncode == 6
    assert "its name promises gguf, and its bytes are of no known format" in refused.stderr
    assert ctl.json("list") == []
    added = ctl("add", path)
    assert added.returncode == 0
    assert "warning: m.gguf: its name promises gguf" in added.stderr
    assert ctl.json("show", "m")["format"] == "unknown"
    both = ctl("add", path, "--strict-format", "--force-format")
    assert both.returncode == 2


def test_a_detached_add_is_as_strict(ctl: Ctl) -> None:
    accepted = json.loads(ctl("add", ctl.file("m.gguf", b"weights"), "--strict-format", "--detach", "--json").stdout)
    done = ctl("attach", accepted["job"])
    assert done.returncode == 6
