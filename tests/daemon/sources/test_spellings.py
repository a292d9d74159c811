"""No other spelling of a reference, and no reference to more than a rule names, passes by that rule."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from modeld.signatures.rules import Rule, Rules
from modeld.sources.parse import parse

COMMIT = "0" * 40


def judged(pattern: str, text: str, paths: Sequence[str] = ()) -> bool:
    reference = parse(text, environ={"HF_ENDPOINT": "https://hub.lan"}, plain_hosts=("plain.lan",))
    return Rules([Rule(1, [pattern], ["/k"], [])]).matching(reference.spellings(paths)) is not None


@pytest.mark.parametrize(
    "text",
    [
        *("hf:Org/Repo", "hf:org/repo", "HF:org/repo", "hf://org/repo", "huggingface:org/repo"),
        *("hf:org/repo@main", f"hf:org/repo@{COMMIT}", "hf:org/repo@refs/pr/1", "hf:org/repo:Q4_K_M"),
        *(
            "hf:org/repo/m.gguf",
            "hf:org/repo/m.gguf@v1",
            "hf:org/repo@v1/m.gguf",
            "hf:org/repo/%6D.gguf",
            "hf:org/repo/sub/",
        ),
        *("https://huggingface.co/org/repo", "huggingface.co/org/repo", "HTTPS://HuggingFace.CO/Org/repo"),
        *("https://hf.co/org/repo", "https://www.huggingface.co/org/repo.git", "https://huggingface.co:443/org/repo"),
        *("https://huggingface.co./org/repo", "https://user:token@huggingface.co/org/repo"),
        *("https://huggingface.co//org//repo/resolve/main/m.gguf?download=true", "https://hub.lan/org/repo"),
        *("https://huggingface.co/%6Frg/repo/blob/main/m.gguf", "https://\uff48uggingface.co/org/repo"),
    ],
)
def test_a_repository(text: str) -> None:
    assert judged("hf:org/repo*", text)
    assert judged("hf:org/*", text)
    assert not judged("hf:other/*", text)


@pytest.mark.parametrize("text", ["hf:org/repo", "hf:org/repo@v1", "hf:org/repo:Q4_K_M", "hf:org/repo/sub/"])
def test_a_file_of_a_repository_is_in_all_that_has_it(text: str) -> None:
    for pattern in ("hf:org/repo/sub/m.gguf", "hf:org/repo/sub/*"):
        assert judged(pattern, text, ["config.json", "sub/m.gguf"])
        assert judged(pattern, text, ["config.json"]) is (text == "hf:org/repo/sub/" and pattern.endswith("*"))


def test_no_revision_means_main() -> None:
    assert judged("hf:org/repo@main", "hf:org/repo")
    assert judged("hf:org/repo", "hf:org/repo@v1")
    assert judged("hf:org/repo/m.gguf", "hf:org/repo/m.gguf@main")
    assert judged("hf:gpt2/*", "hf:gpt2@main/m.safetensors")
    assert not judged("hf:org/repo@v1", "hf:org/repo@v2")


@pytest.mark.parametrize(
    "text",
    [
        *("https://host/models/m.gguf", "https://HOST/models/m.gguf", "https://host:443/models/m.gguf"),
        *("https://host./models/m.gguf", "https://user:pass@host/models/m.gguf", "https://host/models/m.gguf?x=1"),
        *("https://host/models/m.gguf#x", "https://host//models/m.gguf", "https://host/./models/m.gguf"),
        *("https://host/a/../models/m.gguf", "https://host/a/%2e%2e/models/m.gguf", "https://host/%6Dodels/m.gguf"),
        *("https://host/models%2Fm.gguf", "https://host/%256Dodels/m.gguf", "https://host/a/%252e%252e/models/m.gguf"),
        *("https://host/a/..\\models/m.gguf", "https://host/models/m.gguf?token=s"),
    ],
)
def test_an_address(text: str) -> None:
    assert judged("https://host/models/m.gguf", text)
    assert judged("https://host/models/*", text)
    assert not judged("https://other/*", text)


def test_an_address_without_encryption_is_that_with_it() -> None:
    assert judged("https://plain.lan/*", "http://plain.lan/m.gguf")
    assert judged("http://plain.lan/*", "https://plain.lan/m.gguf")


def test_each_shard_of_a_set_is_all_of_it() -> None:
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for pattern in (f"https://host/{name}" for name in names):
        assert judged(pattern, f"https://host/{names[0]}", names)
    for pattern in (f"s3://bucket/a/{name}" for name in names):
        assert judged(pattern, f"s3://bucket/a/{names[0]}", names)


@pytest.mark.parametrize(
    "text", ["s3://bucket/a/b/m.gguf", "s3://bucket/a/b/", "s3://bucket/a/", "s3://bucket", "S3://bucket/"]
)
def test_an_object_is_below_each_prefix_of_it(text: str) -> None:
    folder = (
        text.partition("://bucket")[2].lstrip("/") if text.endswith("/") else "" if text == "s3://bucket" else "a/b/"
    )
    path = "a/b/m.gguf".removeprefix(folder)
    assert judged("s3://bucket/a/b/*", text, [path])
    assert judged("s3://bucket/a/b/m.gguf", text, [path])
    assert not judged("s3://bucket/a/c/*", text, [path])


@pytest.mark.parametrize(
    "text",
    [
        *("ollama:llama3", "ollama:library/llama3", "ollama:llama3:8b", "ollama://llama3", "ollama:Llama3"),
        *("https://ollama.com/library/llama3", "ollama.com/llama3:8b", f"ollama:llama3@sha256:{'a' * 64}"),
        *("oci://registry.ollama.ai/library/llama3:8b", "oci://registry.ollama.ai:443/library/llama3"),
        *("oci://ollama.com/library/llama3", "ollama:registry.ollama.ai/library/llama3"),
    ],
)
def test_a_model_of_ollama(text: str) -> None:
    assert judged("ollama:llama3", text)
    assert judged("ollama:library/llama3*", text)
    assert judged("oci://registry.ollama.ai/library/*", text)
    assert not judged("ollama:llama2*", text)


@pytest.mark.parametrize(
    "text",
    [
        *("oci://docker.io/ai/gemma", "oci://index.docker.io/ai/gemma:1b", "oci://registry-1.docker.io/ai/gemma"),
        *("oci://DOCKER.io:443/ai/gemma", "ollama:docker.io/ai/gemma", f"oci://docker.io/ai/gemma@sha256:{'a' * 64}"),
    ],
)
def test_a_model_of_docker(text: str) -> None:
    assert judged("oci://docker.io/ai/gemma", text)
    assert judged("oci://index.docker.io/ai/*", text)
    assert not judged("oci://docker.io/other/*", text)


def test_everything_means_everything() -> None:
    for text in ("hf:org/repo", "https://host/m.gguf", "ollama:x", "oci://host.example/r", "s3://bucket/x", "a-name"):
        assert judged("*", text)


def test_where_a_signature_may_stand_beside_the_model() -> None:
    def beside(text: str) -> list[str]:
        return [reference.text for reference in parse(text).signatures]

    assert beside("hf:org/repo@v1") == ["hf:org/repo/model.sig@v1"]
    assert beside("hf:org/repo:Q4_K_M") == ["hf:org/repo/model.sig"]
    assert beside("hf:org/repo/sub/m.gguf") == ["hf:org/repo/sub/m.gguf.sig", "hf:org/repo/model.sig"]
    assert beside("hf:gpt2") == ["hf:gpt2@main/model.sig"]
    assert beside("https://host/a/m.gguf?v=1") == ["https://host/a/m.gguf.sig?v=1", "https://host/a/model.sig?v=1"]
    assert beside("https://host/m-00001-of-00002.gguf") == ["https://host/model.sig"]
    assert beside("https://host/m.gguf?token=s") == []
    assert beside("s3://bucket/a/m.gguf") == ["s3://bucket/a/m.gguf.sig", "s3://bucket/a/model.sig"]
    assert beside("s3://bucket/a/") == []
    assert beside("ollama:x") == []
