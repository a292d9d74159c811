"""The paths and roles of a model's files: pure rules."""

from __future__ import annotations

import pytest

from modeld.store import parts


@pytest.mark.parametrize("path", ["a", "a/b.gguf", "Ü/é.json", "a b/c", "a" * 255, ".hidden", "a:b", "..."])
def test_paths_that_may_be_in_a_model(path: str) -> None:
    assert parts.path_fault(path) is None


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("../x", "'..'"),
        ("a/../b", "'..'"),
        ("./a", "'.'"),
        ("a//b", "''"),
        ("a/", "''"),
        ("a\\b", "backslash"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\x85b", "control"),
        ("a\udc80", "UTF-8"),
        ("a" * 256, "255"),
        ("ä" * 128, "255"),
        ("a/" * 600 + "a", "1024"),
    ],
)
def test_paths_that_may_not(path: str, why: str) -> None:
    reason = parts.path_fault(path)
    assert reason is not None
    assert why in reason
    assert parts.paths_fault(["good", path]) is not None


@pytest.mark.parametrize(
    "paths",
    [
        ("a", "A"),
        ("a", "a"),
        ("a/b", "A/c"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("A", "a/b"),
        ("x/STRASSE", "x/straße"),
        ("caf\u00e9", "cafe\u0301"),
        ("CAF\u00c9", "cafe\u0301"),
    ],
)
def test_two_paths_that_are_one_somewhere(paths: tuple[str, str]) -> None:
    assert parts.collision(paths) == (parts.collision(paths) or ("", ""))
    assert parts.collision(paths) is not None
    assert "same path" in (parts.paths_fault(paths) or "")


def test_paths_that_only_look_alike() -> None:
    assert parts.collision(["a/b", "a/c", "b/a", "ab", "a-b/c"]) is None


def test_a_set_of_shards_by_any_part() -> None:
    whole = [f"m-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    assert [parts.shard_set(name) for name in whole] == [whole] * 3
    for alone in ("m.gguf", "m-1-of-3.gguf", "m-00001-of-00001.gguf", "m-00000-of-00003.gguf", "m-00004-of-00003.gguf"):
        assert parts.shard_set(alone) is None
    assert parts.shard_set("m-00001-of-00003.gguf.part") is None


def test_the_missing_part_is_reported() -> None:
    there = ["x/m-00003-of-00003.gguf", "x/m-00001-of-00003.gguf", "config.json", "m-00002-of-00003.gguf"]
    assert parts.missing_shard(there[:3]) == ("x/m-00002-of-00003.gguf", "x/m-00001-of-00003.gguf")
    assert parts.missing_shard(["config.json", "m.gguf"]) is None
    assert parts.missing_shard([f"w-0000{part}-of-00002.safetensors" for part in (1, 2)]) is None


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("weights", "m.gguf a/model.safetensors pytorch_model.bin x.ONNX ae.pt adapter_model.safetensors"),
        ("mmproj", "mmproj.gguf mmproj-model-f16.gguf Qwen-mmproj-Q8.GGUF"),
        ("tokenizer", "tokenizer.json tokenizer_config.json tokenizer.model vocab.txt merges.txt spiece.model"),
        ("tokenizer", "special_tokens_map.json added_tokens.json qwen.tiktoken chat_template.jinja"),
        ("config", "config.json generation_config.json params.yaml Modelfile model.safetensors.index.json"),
        ("license", "LICENSE LICENSE.txt Licence.md COPYING NOTICE USE_POLICY.md"),
        ("doc", "README README.md notes.rst paper.pdf"),
        ("other", "training_args.bin optimizer.pt data extra.dat"),
    ],
)
def test_roles_by_name(role: str, names: str) -> None:
    assert {name: parts.role_of(name) for name in names.split()} == dict.fromkeys(names.split(), role)


def test_the_first_weights_stand_for_the_model_and_without_any_the_largest_file() -> None:
    files = [("a.json", "config", 9), ("c.gguf", "weights", 1), ("b.gguf", "weights", 2)]
    assert parts.first_weights(files) == 2
    assert parts.first_weights([("a", "other", 1), ("b", "config", 7), ("c", "other", 7)]) == 2
