"""The token of a hub: where it is looked for, and who gets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeld.download.http.client import HttpClient
from modeld.sources.credentials.hub_token import hub_token
from modeld.sources.huggingface.reference import HubReference
from modeld.sources.huggingface.source import HuggingFaceSource
from rigs.described_bytes import read_all
from rigs.hub_repos import TOKEN, described, paths, source_of, weights
from rigs.hub_server import Hub


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, http: HttpClient) -> None:
    source = source_of(hub, http, TOKEN)
    for text in ("hf:org/whole", "hf:org/gated"):
        for file in described(hub, http, text, TOKEN).files:
            assert read_all(source, file) or file.size == 0
            assert TOKEN not in f"{file!r} {file.locator}"
    assert hub.cdn.asked
    assert hub.server.sent_with(TOKEN) == hub.server.asked
    assert hub.cdn.sent_with(TOKEN) == []
    assert hub.cdn.sent_with("Authorization") == []


def test_a_token_in_the_reference_is_used_and_not_shown(hub: Hub, http: HttpClient) -> None:
    address = f"http://someone:{TOKEN}@{hub.url[7:]}/org/gated/resolve/main/m.gguf"
    found = described(hub, http, address)
    assert TOKEN not in repr(found)
    assert found.source == "hf:org/gated/m.gguf@main"
    assert read_all(source_of(hub, http), found.files[0]) == weights("m.gguf")
    assert hub.cdn.sent_with(TOKEN) == []


def test_a_mirror_gets_no_token(hub: Hub, http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    HuggingFaceSource(http, hub.url).describe(HubReference(repo="org/whole"))
    assert hub.server.sent_with(TOKEN) == []


def test_where_the_token_is_looked_for(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    (home / ".cache" / "huggingface" / "token").write_text("from-cache\n")
    (tmp_path / "elsewhere").write_text(" from-path \r\n")
    (tmp_path / "token").write_text("from-home")
    environ = {"HOME": str(home)}
    assert hub_token(environ) == "from-cache"
    assert hub_token({**environ, "XDG_CACHE_HOME": str(tmp_path / "none")}) is None
    assert hub_token({**environ, "HF_HOME": str(tmp_path)}) == "from-home"
    assert hub_token({**environ, "HF_HOME": str(tmp_path), "HF_TOKEN_PATH": str(tmp_path / "elsewhere")}) == "from-path"
    assert hub_token({**environ, "HF_TOKEN": "from-variable\n"}) == "from-variable"
    assert hub_token({**environ, "HF_TOKEN": " "}) == "from-cache"
    assert hub_token({**environ, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}) is None


def test_the_endpoint_and_the_token_of_the_environment(hub: Hub, http: HttpClient) -> None:
    source = HuggingFaceSource.from_environ(http, {"HF_ENDPOINT": hub.url + "/", "HF_TOKEN": TOKEN})
    assert source.origin(HubReference(repo="org/gated")) == hub.url
    assert paths(source.describe(HubReference(repo="org/gated"))) == ["config.json", "m.gguf"]
