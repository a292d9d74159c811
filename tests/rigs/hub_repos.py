"""Repositories of a hub, a source that asks it, and what that describes."""

from __future__ import annotations

from modeld.download.http.client import HttpClient
from modeld.download.source import Description
from modeld.sources.huggingface.reference import HubReference
from modeld.sources.huggingface.source import HuggingFaceSource
from modeld.sources.parse import parse
from rigs.hub_server import Hub, Repo

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345"
STRANGER = "hf_StrangerStrangerStranger0123456789"


def weights(name: str) -> bytes:
    return b"GGUF" + name.encode() * 700


def repo_of(paths: list[str], **given: object) -> Repo:
    files = {path: weights(path) if path.endswith((".gguf", ".safetensors")) else path.encode() for path in paths}
    lfs = frozenset(path for path in paths if path.endswith((".gguf", ".safetensors")))
    return Repo(files, lfs, **given)  # type: ignore[arg-type]


WHOLE = [".gitattributes", "LICENSE", "README.md", "config.json", "sub/dir/notes.txt", "tokenizer.json"]
WHOLE += ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "ünïcode name.json", "empty.txt"]

REPOS = {
    "org/whole": repo_of(WHOLE),
    "org/quants": repo_of(
        ["README.md", "imatrix.gguf", "m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf", "m-Q8_0.gguf", "m-IQ4_XS.gguf"]
        + [f"BF16/m-BF16-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
        + ["mmproj-F32.gguf", "mmproj-F16.gguf", "Q3_K_S/part-00001-of-00002.gguf", "Q3_K_S/part-00002-of-00002.gguf"]
    ),
    "org/two": repo_of(["a-7b.Q4_K_M.gguf", "b-13b.Q4_K_M.gguf"]),
    "org/first": repo_of(["README.md", "b-Q8_0.gguf", "a-Q2_K.gguf", "mtp-Q4_K_M.gguf", "mmproj-BF16.gguf"]),
    "org/unsloth": repo_of(["m-UD-Q4_K_M.gguf", "m-UD-Q2_K.gguf", "m-Q8_0.gguf"]),
    "org/mixed": repo_of(["m.safetensors", "m-Q4_K_M.gguf", "m-Q8_0.gguf"]),
    "org/alone": repo_of(["README.md", "m-Q8_0.gguf"]),
    "org/shards": repo_of(
        [f"{kind}/m-{kind}-0000{n}-of-00002.gguf" for kind in ("Q4_K_M", "Q8_0") for n in (1, 2)] + ["mmproj-F16.gguf"]
    ),
    "org/untold": repo_of(["a.gguf", "b.gguf"]),
    "org/torn": repo_of(["m-Q4_0-00001-of-00002.gguf"]),
    "org/gated": repo_of(["m.gguf", "config.json"], gated="manual", tokens=frozenset({TOKEN})),
    "org/private": repo_of(["m.gguf"], private=True, tokens=frozenset({TOKEN})),
    "org/disabled": repo_of(["m.gguf"], disabled=True),
    "old": repo_of(["m.safetensors"], license=None),
}
REPOS["org/whole"].files["empty.txt"] = b""


def source_of(hub: Hub, http: HttpClient, token: str | None = None) -> HuggingFaceSource:
    return HuggingFaceSource(http, hub.url, token=lambda: token)


def described(hub: Hub, http: HttpClient, text: str, token: str | None = None) -> Description:
    reference = parse(text, environ={"HF_ENDPOINT": hub.url})
    assert isinstance(reference, HubReference)
    return source_of(hub, http, token).describe(reference)


def paths(description: Description) -> list[str]:
    return [file.path for file in description.files]
