"""Names: what may be one, which file it lives in, which spellings are the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.store.names import LONGEST_ID, MAX_STEM_BYTES, MOST_IDS, ModelName, ids_in, is_id
from modelwire.errors import InvalidName

VALID = [
    "a",
    "llama",
    "Llama-3.2_1b.Q4",
    "x" * 128,
    "llama:8b",
    "llama:latest",
    "console",
    "com10",
    "com0",
    "lpt0.gguf",
    "a.con",
    "-x",
    "_",
    "a.",
    "y:" + "z" * 128,
]

REFUSED = {
    "": "empty",
    ":8b": "empty",
    "llama:": "empty",
    "a\0b": "nul",
    "a/b": "separator",
    "a\\b": "separator",
    "llama:a/b": "separator",
    "a b": "character",
    "a+b": "character",
    "a:b:c": "character",
    "ä": "character",
    "a\n": "character",
    "\udc80": "character",
    "x" * 129: "too_long",
    "l:" + "x" * 129: "too_long",
    "a..b": "dots",
    "..": "dots",
    "l:a..b": "dots",
    ".a": "leading_dot",
    ".": "leading_dot",
    "l:.a": "leading_dot",
    "con": "device",
    "CON": "device",
    "Con.gguf": "device",
    "aux.x.y": "device",
    "nul": "device",
    "prn.": "device",
    "com1": "device",
    "lpt9.bin": "device",
    "l:con": "device",
    "x" * 128 + ":" + "y" * 128: "too_long_together",
}


@pytest.mark.parametrize("text", VALID)
def test_valid_names_come_back_as_they_were(text: str) -> None:
    name = ModelName.parse(text)
    assert name.text == text
    assert ModelName.from_stem(name.stem) == name


@pytest.mark.parametrize(("text", "rule"), REFUSED.items(), ids=ascii)
def test_each_rule_has_its_own_reason(text: str, rule: str) -> None:
    with pytest.raises(InvalidName) as caught:
        ModelName.parse(text)
    assert caught.value.details["rule"] == rule
    assert "':' before a tag" in (caught.value.hint or "")


def test_each_rule_has_its_own_sentence() -> None:
    sentences: dict[str, set[str]] = {}
    for text, rule in REFUSED.items():
        with pytest.raises(InvalidName) as caught:
            ModelName.parse(text)
        sentences.setdefault(str(caught.value.details["reason"]), set()).add(rule)
    assert all(len(rules) == 1 for rules in sentences.values())


def test_a_message_is_printable_and_bounded_whatever_the_name() -> None:
    with pytest.raises(InvalidName) as caught:
        ModelName.parse("\x1b[31m" + "ü" * 100_000)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 2000


def test_a_tagged_name_lives_in_a_file_with_a_plus() -> None:
    assert ModelName.parse("llama:8b").stem == "llama+8b"
    assert ModelName.from_stem("llama+8b").text == "llama:8b"


@pytest.mark.parametrize("stem", ["a+b+c", "a+", "+a", "a:b", "a b", ".a"])
def test_a_file_of_another_tool_is_no_name_by_the_same_rules(stem: str) -> None:
    with pytest.raises(InvalidName):
        ModelName.from_stem(stem)


def test_spellings_that_differ_in_case_are_one_name() -> None:
    assert ModelName.parse("LLama:8B").key == ModelName.parse("llaMA:8b").key
    assert ModelName.parse("llama").key != ModelName.parse("llama:latest").key


def test_a_bare_name_has_a_default_tag() -> None:
    assert ModelName.parse("llama").with_default_tag == ModelName.parse("llama:latest")
    assert ModelName.parse("llama:8b").with_default_tag is None


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("Ministral 3B Q4.gguf", "Ministral-3B-Q4"),
        ("/models/llama.Q4_K_M.GGUF", "llama.Q4_K_M"),
        ("C:\\models\\llama.safetensors", "llama"),
        ("model-00001-of-00003.gguf", "model"),
        ("model-00001-of-00003.txt", "model-00001-of-00003.txt"),
        ("v1.2", "v1.2"),
        ("Modèle d'été.gguf", "Modele-d-ete"),
        ("模型.gguf", "model"),
        (".hidden.gguf", "hidden"),
        ("a..b.gguf", "a.b"),
        ("con.gguf", "model-con"),
        ("nul", "model-nul"),
        (".gguf", "model"),
        ("", "model"),
        ("dir/", "dir"),
        ("x" * 300 + ".gguf", "x" * 128),
        ("y" * 127 + "--z.gguf", "y" * 127),
    ],
)
def test_a_file_name_suggests_a_name(filename: str, name: str) -> None:
    assert ModelName.suggest(filename).text == name


@given(st.text(max_size=300))
def test_every_suggestion_is_valid(filename: str) -> None:
    name = ModelName.suggest(filename)
    assert ModelName.parse(name.text) == name


@given(st.text(alphabet=st.sampled_from("abCON.:-_+/\\ \0é1"), max_size=300))
def test_what_is_accepted_is_a_safe_file_name(text: str) -> None:
    try:
        name = ModelName.parse(text)
    except InvalidName:
        return
    assert name.text == text
    assert ModelName.from_stem(name.stem) == name
    assert re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*", name.stem)
    assert ".." not in name.stem
    assert len(name.stem) <= MAX_STEM_BYTES


@pytest.mark.parametrize(
    "text", ["a/b", "hf:org/repo/m.gguf@rev", "local:/srv/a b", "\u00fc", " a", "x" * 129, "local:/" + "x" * 4094]
)
def test_ids(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize(
    "text", ["", " ", "llama", "llama:8b", "a/\0", "a/\x1b[2J", "a/\udc80", "x" * (LONGEST_ID + 1), "\u2603" * 2000]
)
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)


def test_the_ids_of_a_field() -> None:
    assert ids_in(["a/b", "a/b", 1, None, "llama", "c/d"]) == ("a/b", "c/d")
    assert len(ids_in([f"a/{number}" for number in range(1000)])) == MOST_IDS
    assert ids_in(None) == ids_in("a/b") == ids_in({"a/b": 1}) == ()


@given(st.text(), st.integers(0, 2**32 - 2))
def test_the_name_for_an_id_is_valid_and_belongs_to_its_user(id_: str, uid: int) -> None:
    for wanted in (ModelName("x" * 128, "y" * 128), ModelName("m"), ModelName("m" * 99 + "." + "a")):
        made = wanted.for_id(id_, uid)
        assert ModelName.parse(made.text) == made
        assert made.tag == wanted.tag
        assert made not in (wanted.for_id(id_, uid + 1), wanted.for_id(id_ + "/", uid))
