"""Provision files: what is read, what is refused with which words at which place, and what no bytes can do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from modelclient import given_files
from modelclient.provisioning.config import MAX_DOCUMENTS, MAX_FILE_BYTES, MAX_REFERENCE, ProvisionModel, parse, read
from modelwire import errors, exits
from modelwire.errors import InvalidDigest, InvalidRequest, WireError

HEX = "0123456789abcdef" * 4
WITH_DIGEST = "model_ref: x\nexpected_digest: "
VALUE = 'model_ref: x\nexpected_digest:\n  algo: sha256\n  value: "'

FULL = f"""\
# The models of this machine.
model_ref: hf:org/repo/model.gguf@main
expected_digest:
  algo: sha256
  value: {HEX}
strict_verification: false
---
model_ref: ./here.gguf   # relative to the working directory
"""


def faulty(text: str | bytes, kind: type[WireError] = InvalidRequest) -> WireError:
    with pytest.raises(WireError) as caught:
        parse(text.encode() if isinstance(text, str) else text, "models.yaml")
    fault = caught.value
    assert type(fault) is kind
    assert fault.exit_code == exits.USAGE
    assert fault.message.startswith("models.yaml: ")
    assert fault.details["path"] == "models.yaml"
    assert (fault.hint or "").endswith((".", "?"))
    return fault


def refs(text: str | bytes) -> list[str]:
    return [each.model_ref for each in parse(text.encode() if isinstance(text, str) else text, "models.yaml")]


def test_documents_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(FULL)
    assert read(str(tmp_path / "models.yaml")) == (
        ProvisionModel(
            model_ref="hf:org/repo/model.gguf@main",
            expected_digest=f"sha256:{HEX}",
            strict_verification=False,
            line=2,
        ),
        ProvisionModel(model_ref="./here.gguf", line=8),
    )


@pytest.mark.parametrize(
    "text",
    [
        "model_ref: x",
        "---\nmodel_ref: x\n...\n",
        "%YAML 1.2\n---\nmodel_ref: x\n",
        "{model_ref: x}",
        '{"model_ref": "x"}',
        "? model_ref\n: x\n",
        "model_ref: >-\n  x\n",
        b"\xef\xbb\xbfmodel_ref: x\n",
        b"model_ref: x\r\nstrict_verification: true\r\n",
        b"model_ref: x\rstrict_verification: true\r",
    ],
)
def test_spellings_of_one_document(text: str | bytes) -> None:
    (model,) = parse(text.encode() if isinstance(text, str) else text, "models.yaml")
    assert (model.model_ref, model.expected_digest, model.strict_verification) == ("x", None, True)


@pytest.mark.parametrize(
    ("word", "strict"),
    [("true", True), ("Yes", True), ("ON", True), ("false", False), ("no", False), ("Off", False)],
)
def test_booleans_are_those_of_yaml_1_1(word: str, strict: bool) -> None:
    (model,) = parse(f"model_ref: x\nstrict_verification: {word}".encode(), "models.yaml")
    assert model.strict_verification is strict
    assert yaml.safe_load(word) is strict


@pytest.mark.parametrize("ref", ["C:/models/x.gguf", "hf:org/repo@main", "é ü.gguf", "x # not a comment", " x", "😀"])
def test_a_quoted_reference_is_kept_as_it_is(ref: str) -> None:
    assert refs(f"model_ref: '{ref}'") == [ref]


@pytest.mark.parametrize("digits", ["1e" + "2" * 62, "0" * 63 + "9", "08" + "1" * 62])
def test_digests_that_look_like_numbers_to_people_alone(digits: str) -> None:
    (model,) = parse(f"{VALUE[:-1]}{digits}".encode(), "models.yaml")
    assert model.expected_digest == f"sha256:{digits}"
    assert yaml.safe_load(digits) == digits


REFUSED = [
    # text, what the message says, line, column, key
    ("", "it has no document", None, None, None),
    ("# nothing\n", "it has no document", None, None, None),
    ("---\n", "this document is empty", 1, 1, None),
    ("model_ref: x\n---\n", "this document is empty", 2, 1, None),
    ("---\n---\nmodel_ref: x\n", "this document is empty", 1, 1, None),
    ("- model_ref: x\n", "this one is a list", 1, 1, None),
    ("x", "this one is a text", 1, 1, None),
    ("12", "this one is a number", 1, 1, None),
    ("strict_verification: true", "this document has no model_ref", 1, 1, "model_ref"),
    ("model_ref: x\n---\n{}\n", "this document has no model_ref", 3, 1, "model_ref"),
    # keys
    ("model_ref: x\nmodel_url: y", "'model_url' is not known", 2, 1, "model_url"),
    ("Model_Ref: x", "'Model_Ref' is not known", 1, 1, "Model_Ref"),
    ("model_ref: x\n1: y", "'1' is not known", 2, 1, "1"),
    ("<<: {model_ref: x}", "'<<' is not known", 1, 1, "<<"),
    ("model_ref: x\n? [a]\n: y", "a key is a text, and this one is a list", 2, 3, None),
    ("model_ref: x\n? {a: b}\n: y", "a key is a text, and this one is a mapping", 2, 3, None),
    ("model_ref: x\n~: y", "a key is a text, and this one is empty", 2, 1, None),
    ("a" * 2000, "this one is a text", 1, 1, None),
    ("? " + "a" * 2000 + "\n: b", f"'{'a' * 80}' is not known", 1, 3, "a" * 80),
    ("model_ref: x\n\nmodel_ref: x", "model_ref is given twice, in line 1 and in line 3", 3, 1, "model_ref"),
    ("{model_ref: x, model_ref: y}", "model_ref is given twice, in line 1", 1, 16, "model_ref"),
    ('model_ref: x\n"model_ref": y', "model_ref is given twice", 2, 1, "model_ref"),
    (f"{WITH_DIGEST}{{algo: a, algo: b}}", "expected_digest.algo is given twice", 2, 28, "expected_digest.algo"),
    (f"{WITH_DIGEST}{{sha256: x}}", "'expected_digest.sha256' is not known", 2, 19, "expected_digest.sha256"),
    # model_ref
    ("model_ref:", "model_ref is empty", 1, 11, "model_ref"),
    ("model_ref: null", "model_ref is empty", 1, 12, "model_ref"),
    ("model_ref: ''", "model_ref is empty", 1, 12, "model_ref"),
    ("model_ref: ' '", "model_ref is empty", 1, 12, "model_ref"),
    ("model_ref: 12", "YAML takes this for a number", 1, 12, "model_ref"),
    ("model_ref: 1.5", "YAML takes this for a number", 1, 12, "model_ref"),
    ("model_ref: 12:30", "YAML takes this for a number", 1, 12, "model_ref"),
    ("model_ref: yes", "YAML takes this for a boolean", 1, 12, "model_ref"),
    ("model_ref: 2026-01-31", "YAML takes this for a date", 1, 12, "model_ref"),
    ("model_ref: =", "YAML takes this for a special word", 1, 12, "model_ref"),
    ("model_ref: [x]", "model_ref is a text, and this is a list", 1, 12, "model_ref"),
    ("model_ref: {x: y}", "model_ref is a text, and this is a mapping", 1, 12, "model_ref"),
    ("model_ref: |\n  x\n", "model_ref contains the character '\\n'", 1, 12, "model_ref"),
    ('model_ref: "x\\0"', "model_ref contains the character '\\x00'", 1, 12, "model_ref"),
    ('model_ref: "\\ud800"', "model_ref contains the character '\\ud800'", 1, 12, "model_ref"),
    (f"model_ref: {'a' * (MAX_REFERENCE + 1)}", "is longer than 4096 characters", 1, 12, "model_ref"),
    # strict_verification
    ('model_ref: x\nstrict_verification: "yes"', "this is the text 'yes'", 2, 22, "strict_verification"),
    ("model_ref: x\nstrict_verification: y", "this is the text 'y'", 2, 22, "strict_verification"),
    ("model_ref: x\nstrict_verification: 1", "this is a number", 2, 22, "strict_verification"),
    ("model_ref: x\nstrict_verification:", "this is empty", 2, 21, "strict_verification"),
    ("model_ref: x\nstrict_verification: []", "this is a list", 2, 22, "strict_verification"),
    # expected_digest
    (WITH_DIGEST, "expected_digest is a mapping, and this is empty", 2, 17, "expected_digest"),
    (f"{WITH_DIGEST}sha256:{HEX}", "expected_digest is a mapping, and this is a text", 2, 18, "expected_digest"),
    (f"{WITH_DIGEST}[sha256, {HEX}]", "expected_digest is a mapping, and this is a list", 2, 18, "expected_digest"),
    (f"{WITH_DIGEST}{{}}", "expected_digest has no algo", 2, 18, "expected_digest.algo"),
    (f"{WITH_DIGEST}{{value: {HEX}}}", "expected_digest has no algo", 2, 18, "expected_digest.algo"),
    (f"{WITH_DIGEST}{{algo: sha256}}", "expected_digest has no value", 2, 18, "expected_digest.value"),
    (f"{WITH_DIGEST}{{algo: 256}}", "YAML takes this for a number", 2, 25, "expected_digest.algo"),
    (f"{WITH_DIGEST}{{value: }}", "expected_digest.value is empty", 2, 25, "expected_digest.value"),
    (f"{WITH_DIGEST}{{value: {'1' * 64}}}", "YAML takes this for a number", 2, 26, "expected_digest.value"),
    (f"{WITH_DIGEST}{{value: {'01' * 32}}}", "YAML takes this for a number", 2, 26, "expected_digest.value"),
    (f"{WITH_DIGEST}{{value: 0b{'1' * 62}}}", "YAML takes this for a number", 2, 26, "expected_digest.value"),
    # what plain keys and values have no use for
    ("model_ref: &a x", "the anchor &a is not allowed here", 1, 12, None),
    ("&a model_ref: x", "the anchor &a is not allowed here", 1, 1, None),
    ("--- &a\nmodel_ref: x", "the anchor &a is not allowed here", 1, 5, None),
    ("model_ref: *a", "the alias *a is not allowed here", 1, 12, None),
    ("*a : x", "the alias *a is not allowed here", 1, 1, None),
    ("model_ref: !!str x", "the tag 'tag:yaml.org,2002:str' is not allowed here", 1, 12, None),
    ("model_ref: ! x", "the tag '!' is not allowed here", 1, 12, None),
    ("!!python/object/apply:os.getcwd []", "python/object/apply:os.getcwd' is not allowed here", 1, 1, None),
    ("%TAG ! tag:x,1:\n---\nmodel_ref: !y x", "the tag 'tag:x,1:y' is not allowed here", 3, 12, None),
    # not YAML
    ("model_ref: hf: x", "mapping values are not allowed here", 1, 14, None),
    ("model_ref: @x", "found character '@' that cannot start any token", 1, 12, None),
    ("model_ref: x\n\tstrict_verification: yes", "this is not YAML", 2, 1, None),
    ("model_ref: 'x\n", "while scanning a quoted scalar that begins in line 1, found unexpected end", 2, 1, None),
    ("{model_ref: x", "flow mapping, expected ',' or '}'", 1, 14, None),
    ("%YAML 2.0\n---\nmodel_ref: x", "found incompatible YAML document", 1, 1, None),
    (f"%YAML 1.{'9' * 5000}\n---\nmodel_ref: x", "a number in an escape or in a %YAML line is too large", 1, 9, None),
    ('model_ref: "\\UFFFFFFFF"', "a number in an escape or in a %YAML line is too large", 1, 15, None),
    ('model_ref: "\\U00110000"', "a number in an escape or in a %YAML line is too large", 1, 15, None),
    # characters
    (b"model_ref: x\n  \xff", "this is not UTF-8", 2, 3, None),
    (b"\xef\xbb\xbfmodel_ref: \xff", "this is not UTF-8", 1, 12, None),
    ("model_ref: x".encode("utf-16"), "this is not UTF-8", 1, 1, None),
    ("model_ref: x".encode("utf-16-le"), "the character '\\x00' is not allowed", 1, 2, None),
    (b"a: b\r\nmodel_ref: \0", "the character '\\x00' is not allowed", 2, 12, None),
    (b"a: b\rmodel_ref: \x1b[0m", "the character '\\x1b' is not allowed", 2, 12, None),
    ("model_ref: x\n---\n\ufeffmodel_ref: y", "'\\ufeffmodel_ref' is not known", 3, 1, "\ufeffmodel_ref"),
]


@pytest.mark.parametrize(("text", "what", "line", "column", "key"), REFUSED)
def test_faults_have_their_place_and_key(
    text: str | bytes, what: str, line: int | None, column: int | None, key: str | None
) -> None:
    fault = faulty(text)
    assert what in fault.message
    if line is not None:
        assert fault.message.startswith(f"models.yaml: line {line}, column {column}: ")
    assert tuple(map(fault.details.get, ("line", "column", "key"))) == (line, column, key)


@pytest.mark.parametrize(
    ("text", "rule", "what", "hint"),
    [
        (f"{VALUE}{HEX[1:]}", "length", "this one has 63 characters", "full digest"),
        (f"{VALUE}", "length", "this one has 0 characters", "full digest"),
        (f"{VALUE}sha256:{HEX}", "length", "this one has 71 characters", "Leave out `sha256:`"),
        (f"{VALUE}{'a' * 5000}", "length", f"5000 characters: '{'a' * 80}…'", "full digest"),
        (f"{VALUE}{HEX.upper()}", "alphabet", "this one contains 'A'", "lowercase"),
        (f"{VALUE}{HEX[1:]}g", "alphabet", "this one contains 'g'", "Compare it"),
        (f"{VALUE}{HEX[1:]}\u0430", "alphabet", "this one contains '\\u0430'", "Compare it"),
    ],
)
def test_values_that_are_no_digest(text: str, rule: str, what: str, hint: str) -> None:
    fault = faulty(f'{text}"', InvalidDigest)
    assert fault.message.startswith("models.yaml: line 4, column 10: expected_digest.value: ")
    assert what in fault.message
    assert hint in (fault.hint or "")
    found = map(fault.details.get, ("rule", "line", "column", "key"))
    assert tuple(found) == (rule, 4, 10, "expected_digest.value")


@pytest.mark.parametrize(("algo", "hint"), [("sha512", "SHA-256"), ("SHA256", "lowercase"), ("''", "SHA-256")])
def test_another_algorithm_is_refused_whatever_its_value_is(algo: str, hint: str) -> None:
    fault = faulty(f"{WITH_DIGEST}{{value: '00', algo: {algo}}}", InvalidDigest)
    assert fault.details["rule"] == "algorithm"
    assert fault.message.startswith("models.yaml: line 2, column 38: expected_digest.algo: ")
    assert hint in (fault.hint or "")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("modelref: x", "Did you mean model_ref?"),
        ("path: x", "The keys are model_ref, expected_digest, strict_verification."),
        (f"{WITH_DIGEST}{{val: x}}", "Did you mean value?"),
        (f"{WITH_DIGEST}{{x: y}}", "The keys are algo, value."),
        (f"{WITH_DIGEST}{{value: {'1' * 64}}}", "Put quotes around it."),
        ("model_ref: *a", "Write the value out: nothing in a provision file needs one."),
        ("model_ref: x\nmodel_ref: y", "Give each key once."),
    ],
)
def test_what_to_do_next(text: str, hint: str) -> None:
    assert faulty(text).hint == hint


def test_one_wrong_document_is_enough() -> None:
    assert faulty("model_ref: x\n---\nmodel_ref: y\n---\nmodel_ref: 1\n").details["line"] == 5


def test_a_key_that_is_given_twice_has_both_lines() -> None:
    fault = faulty("model_ref: x\n# y\nmodel_ref: x")
    assert (fault.details["first_line"], fault.details["line"]) == (1, 3)


def test_the_most_documents() -> None:
    assert len(refs("---\nmodel_ref: x\n" * MAX_DOCUMENTS)) == MAX_DOCUMENTS
    fault = faulty("---\nmodel_ref: x\n" * (MAX_DOCUMENTS + 1))
    assert "more than 1000 documents" in fault.message
    assert fault.details["line"] == 2 * MAX_DOCUMENTS + 1


def test_the_largest_file(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_bytes(b"model_ref: x\n".ljust(MAX_FILE_BYTES))
    assert [each.model_ref for each in read(str(path))] == ["x"]
    with path.open("ab") as file:
        file.write(b" ")
    with pytest.raises(InvalidRequest, match="it is larger than 1048576 bytes"):
        read(str(path))


@pytest.mark.parametrize("before", ["", "model_ref: ", "model_ref: x\n? ", WITH_DIGEST, f"{WITH_DIGEST}{{value: "])
@pytest.mark.parametrize("opening", ["[", "{", "[\n", "- ", "? ", "{a: ", "!", "&a ", "*"])
def test_depth_costs_nothing(before: str, opening: str) -> None:
    """The first thing out of place ends it: none is a recursion as deep as the file is long."""
    faulty(before + opening * (500_000 // len(opening)))


LAUGHS = "a: &a [x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{f'*{chr(97 + n)},' * 9}]\n" for n in range(9))


def test_nothing_expands() -> None:
    assert "'a' is not known" in faulty(LAUGHS).message
    assert "the anchor &a" in faulty(LAUGHS.replace("a: ", "model_ref: ", 1)).message


# -- the file itself


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "models.yaml", tmp_path / "models.yaml" / "below"):
        with pytest.raises(errors.NotFound, match=f"there is no provision file {path}"):
            read(str(path))


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=f"the provision file {tmp_path} cannot be read: Is a directory"):
        read(str(tmp_path))


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a path"):
        read(path)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, errors.PermissionDenied),
        (errno.ENAMETOOLONG, InvalidRequest),
        (errno.ELOOP, InvalidRequest),
        (errno.EIO, errors.Internal),
    ],
)
def test_a_file_that_cannot_be_read(number: int, kind: type[WireError], monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(path: str, mode: str, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(given_files, "open", refusing, raising=False)
    with pytest.raises(
        WireError, match=f"the provision file models.yaml cannot be read: {os.strerror(number)}"
    ) as caught:
        read("models.yaml")
    assert type(caught.value) is kind
    assert caught.value.details == {"path": "models.yaml", "errno": errno.errorcode[number]}
    assert caught.value.hint


def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb") as pipe:

        def fill() -> None:
            pipe.write(FULL.encode())
            pipe.close()

        writer = threading.Thread(target=fill)
        writer.start()
        assert len(read(f"/dev/fd/{reading}")) == 2
        writer.join()


# -- PyYAML


def test_yaml_is_loaded_for_a_file_alone() -> None:
    code = (
        "import sys, modelclient.provisioning.config as config, modelclient.provisioning.handoff\n"
        "assert 'yaml' not in sys.modules; config.parse(b'model_ref: x', 'x'); assert 'yaml' in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_without_pyyaml_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(errors.Unsupported, match="need PyYAML, which is not installed") as caught:
        parse(b"model_ref: x", "models.yaml")
    assert caught.value.hint == "Install it with `pip install 'modeld[provision]'`."
    assert caught.value.details == {"extra": "provision"}
