"""References: every form, pasted addresses, names made of them, and no secret in what is shown."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modeld.sources.huggingface.reference import HubReference
from modeld.sources.local import LocalReference
from modeld.sources.parse import parse
from modeld.sources.reference import Reference
from modeld.sources.registries.reference import OciReference, OllamaReference
from modeld.sources.s3.source import S3Reference
from modeld.sources.stored import StoredReference
from modeld.sources.web import WebReference
from modeld.store.names import ModelName
from modelwire.errors import InvalidRequest

HEX = "0123456789abcdef" * 4

# written, read, suggested name
FORMS: list[tuple[str, str, str]] = [
    ("/a/./b//x.gguf", "local:/a/b/x.gguf", "x"),
    ("./x.gguf", "local:/cwd/x.gguf", "x"),
    ("../x.gguf", "local:/cwd/../x.gguf", "x"),
    ("dir/x.gguf", "local:/cwd/dir/x.gguf", "x"),
    ("file:x.gguf", "local:/cwd/x.gguf", "x"),
    ("file:/m/x%20y.gguf", "local:/m/x%20y.gguf", "x-20y"),
    ("file:///m/x%20y.gguf", "local:/m/x y.gguf", "x-y"),
    ("file://localhost/m/x.gguf", "local:/m/x.gguf", "x"),
    ("local:/m/x:1@2.gguf", "local:/m/x:1@2.gguf", "x-1-2"),
    ("local:/m/x ", "local:/m/x ", "x"),
    ("/m/model-00001-of-00003.gguf", "local:/m/model-00001-of-00003.gguf", "model"),
    ("hf:org/repo", "hf:org/repo", "repo"),
    ("hf://org/repo", "hf:org/repo", "repo"),
    ("HF:org/repo@v1.0", "hf:org/repo@v1.0", "repo"),
    ("hf:org/Llama-3.2-1B-GGUF:Q4_K_M", "hf:org/Llama-3.2-1B-GGUF:Q4_K_M", "Llama-3.2-1B:Q4_K_M"),
    ("hf:org/repo:Q4_K_M@dev", "hf:org/repo:Q4_K_M@dev", "repo:Q4_K_M"),
    ("hf:org/repo:q4_k_m", "hf:org/repo:Q4_K_M", "repo:Q4_K_M"),
    ("https://huggingface.co/org/repo:ud-q4_k_xl", "hf:org/repo:UD-Q4_K_XL", "repo:UD-Q4_K_XL"),
    ("hf:org/repo@dev:Q4_K_M", "hf:org/repo:Q4_K_M@dev", "repo:Q4_K_M"),
    ("hf:org/repo/a/b.gguf", "hf:org/repo/a/b.gguf", "b"),
    ("hf:org/repo/a/b.gguf@refs/pr/1", "hf:org/repo/a/b.gguf@refs/pr/1", "b"),
    ("hf:org/repo@feat%2Fx/a.gguf", "hf:org/repo/a.gguf@feat/x", "a"),
    ("hf:org/repo@refs/pr/3/a.gguf", "hf:org/repo/a.gguf@refs/pr/3", "a"),
    ("hf:org/repo/x%40y.gguf", "hf:org/repo/x%40y.gguf", "x-y"),
    ("hf:org/repo/dir/@v2", "hf:org/repo/dir/@v2", "dir"),
    ("hf:gpt2", "hf:gpt2", "gpt2"),
    ("hf:gpt2@main/model.safetensors", "hf:gpt2@main/model.safetensors", "model"),
    ("https://huggingface.co/org/repo", "hf:org/repo", "repo"),
    ("https://huggingface.co/org/repo/", "hf:org/repo", "repo"),
    ("https://huggingface.co/org/repo.git", "hf:org/repo", "repo"),
    ("huggingface.co/org/repo/blob/main/x.gguf", "hf:org/repo/x.gguf@main", "x"),
    ("https://huggingface.co/org/repo/blob/main/x.gguf", "hf:org/repo/x.gguf@main", "x"),
    ("https://huggingface.co/org/repo/resolve/v1/q/x%20y.gguf?download=true", "hf:org/repo/q/x%20y.gguf@v1", "x-y"),
    ("https://huggingface.co/org/repo/raw/main/config.json#L3", "hf:org/repo/config.json@main", "config.json"),
    ("https://huggingface.co/org/repo/tree/main", "hf:org/repo@main", "repo"),
    ("https://huggingface.co/org/repo/tree/main/sub/dir", "hf:org/repo/sub/dir/@main", "dir"),
    ("https://huggingface.co/org/repo/tree/refs%2Fpr%2F1", "hf:org/repo@refs/pr/1", "repo"),
    ("https://huggingface.co/org/repo/blob/refs/pr/1/x.gguf", "hf:org/repo/x.gguf@refs/pr/1", "x"),
    ("https://huggingface.co/org/repo?show_file_info=q%2Fx.gguf", "hf:org/repo/q/x.gguf", "x"),
    ("https://huggingface.co/gpt2/resolve/main/model.safetensors", "hf:gpt2@main/model.safetensors", "model"),
    ("https://huggingface.co/gpt2", "hf:gpt2", "gpt2"),
    ("hf.co/org/repo:Q8_0", "hf:org/repo:Q8_0", "repo:Q8_0"),
    ("http://127.0.0.1:7777/org/repo/blob/main/x.gguf", "hf:org/repo/x.gguf@main", "x"),
    ("https://host.example/a/b.gguf", "https://host.example/a/b.gguf", "b"),
    ("https://Host.Example:443/a b.gguf#x", "https://host.example/a%20b.gguf", "a-b"),
    ("http://127.0.0.1:8080/x.gguf?rev=2", "http://127.0.0.1:8080/x.gguf?rev=2", "x"),
    ("http://intern/x.gguf", "http://intern/x.gguf", "x"),
    ("https://host.example", "https://host.example/", "host.example"),
    ("ollama:llama3.2", "ollama:llama3.2:latest", "llama3.2"),
    ("ollama:llama3.2:1b", "ollama:llama3.2:1b", "llama3.2:1b"),
    ("ollama:ns/x:t", "ollama:ns/x:t", "x:t"),
    ("ollama:library/x", "ollama:x:latest", "x"),
    ("ollama:hf.co/org/Repo:Q4", "ollama:hf.co/org/Repo:Q4", "Repo:Q4"),
    ("ollama:127.0.0.1:5000/ns/x:t", "ollama:127.0.0.1:5000/ns/x:t", "x:t"),
    (f"ollama:x@sha256:{HEX}", f"ollama:x@sha256:{HEX}", "x"),
    ("https://ollama.com/library/llama3.2:1b", "ollama:llama3.2:1b", "llama3.2:1b"),
    ("https://ollama.com/someone/model", "ollama:someone/model:latest", "model"),
    ("oci://ghcr.io/a/b", "oci://ghcr.io/a/b:latest", "b"),
    ("oci://ghcr.io/a/b:1.2", "oci://ghcr.io/a/b:1.2", "b:1.2"),
    (f"oci://localhost:5000/a/b:1@sha256:{HEX}", f"oci://localhost:5000/a/b@sha256:{HEX}", "b"),
    ("oci://docker.io/ai/smollm2:135M-Q4_0", "oci://docker.io/ai/smollm2:135M-Q4_0", "smollm2:135M-Q4_0"),
    ("s3://bucket/a/b.gguf", "s3://bucket/a/b.gguf", "b"),
    ("s3://bucket/prefix/", "s3://bucket/prefix/", "prefix"),
    ("s3://bucket", "s3://bucket/", "bucket"),
    ("llama", "llama", "llama"),
    ("llama:8b", "llama:8b", "llama:8b"),
    ("  x.gguf \n", "x.gguf", "x.gguf"),
]


def read(text: str) -> Reference:
    return parse(text, directory="/cwd", environ={"HF_ENDPOINT": "http://127.0.0.1:7777"}, plain_hosts=("intern",))


@pytest.mark.parametrize(("written", "text", "name"), FORMS, ids=[form[0] for form in FORMS])
def test_each_form_is_read_and_can_be_read_again(written: str, text: str, name: str) -> None:
    reference = read(written)
    assert reference.text == text
    assert read(text) == reference
    suggested = reference.suggested_name
    assert suggested.text == name
    assert ModelName.parse(suggested.text) == suggested


def test_each_form_is_a_value_of_its_own_kind() -> None:
    assert read("/x.gguf") == LocalReference(path="/x.gguf")
    assert read("https://h.example/x") == WebReference(address="https://h.example/x")
    assert read("hf:o/r:Q8_0@v") == HubReference(repo="o/r", quantization="Q8_0", revision="v")
    assert read("hf:o/r/a/b@v") == HubReference(repo="o/r", path="a/b", revision="v")
    assert read("ollama:x") == OllamaReference(host="registry.ollama.ai", repo="library/x", tag="latest")
    assert read("oci://h.example/x:1") == OciReference(host="h.example", repo="x", tag="1")
    assert read("s3://bucket/k") == S3Reference(bucket="bucket", path="k")
    assert read("x:y") == StoredReference(name=ModelName("x", "y"))
    assert not read("/x").network
    assert not read("x").network
    assert read("hf:o/r").network


REFUSED: dict[str, str] = {
    "": "empty",
    "   ": "empty",
    "a\0b": "character",
    "hf:org/re\npo": "character",
    "\udc80": "character",
    "hf:" + "x" * 9000: "too_long",
    "hf:": "repo",
    "hf:org/": "repo",
    "hf:/org/repo": "repo",
    "hf:org/repo x": "repo",
    "hf:o..g/repo": "repo",
    "hf:org/repo/../x": "path",
    "hf:org/repo//x": "path",
    "hf:org/repo/a\\b": "path",
    "hf:org/repo@": "revision",
    "hf:org/repo@-x": "revision",
    "hf:org/repo@a..b": "revision",
    "hf:org/repo:": "quantization",
    "hf:org/repo:Q4/x": "quantization",
    "hf:datasets/org/name": "kind",
    "https://huggingface.co/datasets/org/name": "kind",
    "https://huggingface.co/spaces/org/name": "kind",
    "https://huggingface.co/": "page",
    "https://huggingface.co/models": "page",
    "https://huggingface.co/org/repo/discussions/3": "page",
    "https://huggingface.co/org/repo/blob/main": "page",
    "https:///x": "address",
    "https:x": "address",
    "https://[x": "address",
    "https://h:port/x": "address",
    "ollama:": "ollama",
    "ollama:a/b/c/d": "ollama",
    "ollama:a b": "ollama",
    "ollama:x:": "tag",
    "ollama:x:a/b": "ollama",
    "ollama:x@sha256:12": "digest",
    "ollama:x@md5:12": "digest",
    "oci:x": "oci",
    "oci://ubuntu/x": "host",
    "oci://ghcr.io": "host",
    "oci://ghcr.io/": "oci",
    "oci://ghcr.io/A": "oci",
    "oci://ghcr.io/a:b c": "tag",
    "s3:x": "s3",
    "s3://B_/x": "bucket",
    "s3://bucket/a/../b": "path",
    "s3://bucket/a?x": "s3",
    "file:": "path",
    "file://elsewhere/x": "path",
    "local:x": "path",
    "ftp://h/x": "scheme",
    "magnet:?xt": "name",
    "con": "name",
    "a b": "name",
    "C:\\models\\x.gguf": "name",
}


@pytest.mark.parametrize(("text", "rule"), REFUSED.items(), ids=[ascii(text)[:40] for text in REFUSED])
def test_what_is_no_reference_is_refused_with_the_forms_that_are(text: str, rule: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    assert caught.value.details["rule"] == rule
    assert caught.value.hint is not None
    for form in ("hf:org/repo", "https://", "ollama:", "oci://", "s3://", "file:"):
        assert form in caught.value.hint


def test_a_relative_path_needs_to_know_where_it_starts() -> None:
    for text in ("./x.gguf", "file:x.gguf", "dir/x.gguf"):
        with pytest.raises(InvalidRequest) as caught:
            parse(text)
        assert caught.value.details["rule"] == "relative"
    with pytest.raises(InvalidRequest) as caught:
        parse("org/repo")
    assert "hf:org/repo" in (caught.value.hint or "")


def test_plain_http_is_refused_by_name_of_the_host() -> None:
    with pytest.raises(InvalidRequest, match=r"http://elsewhere\.example is not encrypted") as refused:
        read("http://elsewhere.example/x.gguf")
    assert "add 'elsewhere.example' to `plain_hosts` in [transfer]" in (refused.value.hint or "")


TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345"

SECRET: list[tuple[str, str]] = [
    (f"https://user:{TOKEN}@huggingface.co/org/repo/blob/main/x.gguf", "hf:org/repo/x.gguf@main"),
    (f"https://{TOKEN}@huggingface.co/org/repo", "hf:org/repo"),
    (f"https://user:{TOKEN}@h.example/x.gguf", "https://h.example/x.gguf"),
    (f"https://h.example/x.gguf?token={TOKEN}", "https://h.example/x.gguf"),
    (f"https://h.example/x.gguf?a=1&X-Amz-Signature={TOKEN}&b=2", "https://h.example/x.gguf?a=1&b=2"),
    (f"https://h.example/x.gguf?download={TOKEN}", "https://h.example/x.gguf"),
    (f"https://h.example/x.gguf?sv=1&sr=b&sig={TOKEN}&part=2", "https://h.example/x.gguf?part=2"),
    (f"oci://user:{TOKEN}@ghcr.io/a/b:1", "oci://ghcr.io/a/b:1"),
    (f"s3://AKIAXXXXXXXXXXXXXXXX:{TOKEN}@bucket/x.gguf", "s3://bucket/x.gguf"),
]


@pytest.mark.parametrize(("written", "text"), SECRET, ids=[text for _, text in SECRET])
def test_a_secret_is_kept_apart_and_never_shown(written: str, text: str) -> None:
    reference = read(written)
    assert reference.text == text
    assert reference.secrets
    for shown in (reference.text, reference.key, repr(reference), str(reference), repr(reference.secrets)):
        assert TOKEN not in shown
    assert read(text) == reference


def test_what_is_asked_for_has_the_secrets_again() -> None:
    reference = read(f"https://u:p@h.example/x.gguf?a=1&sig={TOKEN}")
    assert isinstance(reference, WebReference)
    assert reference.full == f"https://u:p@h.example/x.gguf?a=1&sig={TOKEN}"
    assert read(f"https://u:{TOKEN}@hf.co/o/r").secrets.bearer == TOKEN


def test_two_signed_addresses_are_not_taken_for_one() -> None:
    one, other = read("https://h.example/f?code=1"), read("https://h.example/f?code=2")
    assert one.text == other.text
    assert one.key != other.key
    assert one.key == read("https://h.example/f?code=1").key


@pytest.mark.parametrize(
    "text",
    [
        f"ftp://user:{TOKEN}@h/x",
        f"https://user:a/{TOKEN}@h/x",
        f"https:/user:{TOKEN}@h/x",
        f"https://user:{TOKEN}@h:port/x",
        f"https://user:{TOKEN}@[x/y",
        f"https://huggingface.co/datasets/a/b?token={TOKEN}",
        f"https://user:{TOKEN}@huggingface.co/datasets/a/b",
        f"oci://user:{TOKEN}@ubuntu/x",
        f"oci://user:{TOKEN}@ghcr.io/A",
        f"s3://AK:{TOKEN}@b/x",
        f"s3://AK:{TOKEN}@bucket/x?y",
        f"http://user:{TOKEN}@elsewhere.example/x",
        f"hf:org/repo?token={TOKEN}",
        f"a b {TOKEN}",
    ],
)
def test_a_refusal_repeats_no_secret(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    fault = caught.value
    assert TOKEN not in f"{fault} {fault.message} {fault.hint} {fault.details} {fault.args}"
    assert fault.__cause__ is None


WORDS = (
    "hf: ollama: oci:// s3:// https:// http:// file: local: huggingface.co/ org/repo / @ : .. %2F % ? # main refs/pr/1 "
    "x.gguf sha256: Q4_K_M 127.0.0.1:7777 [ ] resolve blob tree ä latest bucket ghcr.io - . A & = token"
)
PIECES = st.sampled_from([*WORDS.split(), " ", "\\", HEX])


@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=9).map("".join)))
@example("https://0/0?@=")
@example("hf:A/A@A/%2F")
def test_any_text_is_a_reference_or_is_refused(text: str) -> None:
    try:
        reference = read(text)
    except InvalidRequest:
        return
    assert read(reference.text) == reference
    assert read(reference.text).text == reference.text
    ModelName.parse(reference.suggested_name.text)


BY_ITS_PLACE = [written for written, _ in SECRET if "download" not in written]
WITHOUT_NEW_PARAMETERS = st.text(st.characters(exclude_characters="&=?;#", exclude_categories=["Cs"]), max_size=20)


@given(st.sampled_from(BY_ITS_PLACE), WITHOUT_NEW_PARAMETERS, st.integers(8, 200))
@example(f"https://user:{TOKEN}@h.example/x.gguf", "/", 12)
@example(f"https://user:{TOKEN}@h.example/x.gguf", "/", 13)
def test_no_change_of_an_address_makes_its_secret_visible(written: str, inserted: str, place: int) -> None:
    head, token, tail = written.partition(TOKEN)
    text = head[:place] + inserted + head[place:] + token + tail
    try:
        shown = repr(read(text)) + read(text).text
    except InvalidRequest as fault:
        shown = f"{fault} {fault.hint} {fault.details}"
    assert TOKEN not in shown
