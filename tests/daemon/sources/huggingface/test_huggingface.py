"""Repositories of a hub: what is described, which files are meant, what is refused and how that is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modeld.download.http.client import HttpClient
from modeld.sources.huggingface.reference import HubReference
from modeld.sources.huggingface.source import HuggingFaceSource
from modelwire.errors import (
    DigestMismatch,
    InvalidRequest,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnavailable,
    WireError,
)
from rigs.described_bytes import read_all
from rigs.hub_repos import REPOS, STRANGER, TOKEN, WHOLE, described, paths, source_of, weights
from rigs.hub_server import Hub, Repo
from rigs.scripted_server import Asked, Reply, serving, sha256

# -- what is described


def test_a_repository_is_described_by_its_commit(hub: Hub, http: HttpClient) -> None:
    whole = described(hub, http, "hf:org/whole@main")
    repo = REPOS["org/whole"]
    assert paths(whole) == sorted(WHOLE)
    assert whole.revision == repo.commit
    assert (whole.registry, whole.repo, whole.license) == (hub.server.url[7:], "org/whole", "apache-2.0")
    by_path = {file.path: file for file in whole.files}
    for path, content in repo.files.items():
        assert by_path[path].size == len(content)
        digest = by_path[path].digest
        assert (digest.hex if digest else None) == (sha256(content) if path in repo.lfs else None)
        assert repo.commit in by_path[path].locator
    assert by_path["LICENSE"].role == "license"
    assert by_path["model-00001-of-00002.safetensors"].role == "weights"
    # Ten files and some directories at four a page: the list was read to its end.
    assert len([asked for asked in hub.server.asked if "/tree/" in asked.target]) >= 3


def test_the_bytes_are_those_of_the_commit(hub: Hub, http: HttpClient) -> None:
    whole = described(hub, http, "hf:org/whole")
    source = source_of(hub, http)
    for file in whole.files:
        assert read_all(source, file) == REPOS["org/whole"].files[file.path]
    large = next(file for file in whole.files if file.digest is not None)
    assert read_all(source, large, 100, 300) == REPOS["org/whole"].files[large.path][100:300]


def test_a_branch_that_moves_on_changes_nothing_of_what_was_described(hub: Hub, http: HttpClient) -> None:
    before = described(hub, http, "hf:org/whole/config.json@main")
    assert all(before.revision is not None and before.revision in file.locator for file in before.files)
    hub.repos["org/whole"] = Repo({**REPOS["org/whole"].files, "config.json": b"other"}, REPOS["org/whole"].lfs)
    with pytest.raises(SourceNotFound, match="has no revision"):
        read_all(source_of(hub, http), before.files[0])
    assert described(hub, http, "hf:org/whole/config.json@main").revision != before.revision


def test_a_repository_without_an_organisation(hub: Hub, http: HttpClient) -> None:
    old = described(hub, http, "hf:old")
    assert (paths(old), old.license) == (["m.safetensors"], None)
    assert paths(described(hub, http, f"{hub.url}/old/blob/main/m.safetensors")) == ["m.safetensors"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:org/quants:Q4_K_M", ["m-Q4_K_M.gguf", "mmproj-F16.gguf"]),
        ("hf:org/quants:q8_0", ["m-Q8_0.gguf", "mmproj-F16.gguf"]),
        ("hf:org/quants:UD-Q4_K_M", ["m-UD-Q4_K_M.gguf", "mmproj-F16.gguf"]),
        ("hf:org/quants:BF16", [f"BF16/m-BF16-0000{n}-of-00003.gguf" for n in (1, 2, 3)] + ["mmproj-F16.gguf"]),
        ("hf:org/quants:Q3_K_S", [f"Q3_K_S/part-0000{n}-of-00002.gguf" for n in (1, 2)] + ["mmproj-F16.gguf"]),
        ("hf:org/quants/m-Q8_0.gguf", ["m-Q8_0.gguf"]),
        ("hf:org/quants/BF16/m-BF16-00002-of-00003.gguf", [f"BF16/m-BF16-0000{n}-of-00003.gguf" for n in (1, 2, 3)]),
        ("hf:org/whole/model-00001-of-00002.safetensors", ["model-00001-of-00002.safetensors"]),
        ("hf:org/whole/sub/", ["sub/dir/notes.txt"]),
        ("hf:org/whole/ünïcode name.json@refs/pr/1", ["ünïcode name.json"]),
    ],
)
def test_which_files_a_reference_means(hub: Hub, http: HttpClient, text: str, expected: list[str]) -> None:
    assert paths(described(hub, http, text)) == expected


def test_globs_choose_as_those_of_the_hubs_own_client(hub: Hub, http: HttpClient) -> None:
    source = source_of(hub, http)
    for include, exclude in [
        (("*.json",), ()),
        (("sub/",), ()),
        ((), ("*.safetensors", "README.md")),
        (("*.json", "*.safetensors"), ("model-00001*",)),
    ]:
        ours = paths(source.describe(HubReference(repo="org/whole", include=include, exclude=exclude)))
        from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

        theirs = filter_repo_objects(WHOLE, allow_patterns=list(include) or None, ignore_patterns=list(exclude) or None)
        assert ours == sorted(theirs)
    with pytest.raises(SourceNotFound, match="include and exclude"):
        source.describe(HubReference(repo="org/whole", include=("*.none",)))


# -- the hub's own client


CLIENT = """
import json, os, sys
from huggingface_hub import snapshot_download, hf_hub_download
folder = snapshot_download("org/whole", cache_dir=sys.argv[1])
one = hf_hub_download("org/quants", "m-Q8_0.gguf", cache_dir=sys.argv[1])
gated = hf_hub_download("org/gated", "m.gguf", cache_dir=sys.argv[1])
files = {}
for where, _, names in os.walk(folder):
    for name in names:
        path = os.path.join(where, name)
        files[os.path.relpath(path, folder)] = open(path, "rb").read().hex()
print(json.dumps({"folder": folder, "files": files, "one": open(one, "rb").read().hex(), "gated": gated}))
"""


def test_the_hubs_own_client_and_this_one_agree_byte_for_byte(hub: Hub, http: HttpClient, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    ran = subprocess.run(
        [sys.executable, "-c", CLIENT, str(tmp_path / "cache")], env=environ, capture_output=True, text=True, timeout=90
    )
    assert ran.returncode == 0, ran.stderr
    theirs = json.loads(ran.stdout.splitlines()[-1])
    whole = described(hub, http, "hf:org/whole")
    source = source_of(hub, http, TOKEN)
    assert {file.path: read_all(source, file).hex() for file in whole.files} == theirs["files"]
    assert theirs["folder"].endswith(f"/snapshots/{whole.revision}")
    one = described(hub, http, "hf:org/quants/m-Q8_0.gguf")
    assert read_all(source, one.files[0]).hex() == theirs["one"]
    assert read_all(source, described(hub, http, "hf:org/gated/m.gguf", TOKEN).files[0]) == weights("m.gguf")


@pytest.mark.parametrize(
    ("repo", "taken", "note"),
    [
        ("quants", ["m-Q4_K_M.gguf", "mmproj-F16.gguf"], "has 6 quantisations, and Q4_K_M was taken"),
        ("quants@main", ["m-Q4_K_M.gguf", "mmproj-F16.gguf"], "has 6 quantisations, and Q4_K_M was taken"),
        ("two", ["a-7b.Q4_K_M.gguf", "b-13b.Q4_K_M.gguf"], None),
        ("untold", ["a.gguf", "b.gguf"], None),
        ("first", ["a-Q2_K.gguf", "mmproj-BF16.gguf"], "has 2 quantisations, and a-Q2_K.gguf was taken"),
        ("unsloth", ["m-UD-Q4_K_M.gguf"], "has 3 quantisations, and Q4_K_M was taken"),
        (
            "shards",
            ["Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf", "mmproj-F16.gguf"],
            "has 2 quantisations, and Q4_K_M was taken",
        ),
        ("alone", ["README.md", "m-Q8_0.gguf"], None),
        ("mixed", ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "m.safetensors"], None),
        ("quants:Q8_0", ["m-Q8_0.gguf", "mmproj-F16.gguf"], None),
    ],
)
def test_of_a_repository_of_quantisations_one_is_taken_and_named(
    hub: Hub, http: HttpClient, repo: str, taken: list[str], note: str | None
) -> None:
    found = described(hub, http, f"hf:org/{repo}")
    assert paths(found) == taken
    assert found.note == (None if note is None else f"org/{repo.partition('@')[0]} {note}")


def test_globs_choose_from_all_quantisations(hub: Hub, http: HttpClient) -> None:
    reference, source = HubReference(repo="org/quants"), source_of(hub, http)
    everything = source.describe(reference.choosing(("*",), ()))
    assert (len(everything.files), everything.note) == (13, None)
    assert paths(source.describe(reference.choosing(("*Q8_0*",), ()))) == ["m-Q8_0.gguf"]
    others = source.describe(reference.choosing((), ("*Q4_K_M*", "BF16/*")))
    assert paths(others) == ["Q3_K_S/part-00001-of-00002.gguf", "Q3_K_S/part-00002-of-00002.gguf", "mmproj-F16.gguf"]


# -- what is refused


@pytest.mark.parametrize(
    ("text", "token", "kind", "said", "hint"),
    [
        ("hf:org/none", None, SourceNotFound, "has no repository org/none, or it is private and no token", "HF_TOKEN"),
        ("hf:org/none", TOKEN, SourceNotFound, "or the token in use has no right to it", "spelling"),
        ("hf:org/private", None, SourceNotFound, "or it is private", "HF_TOKEN"),
        ("hf:org/private", STRANGER, SourceNotFound, "has no right to it", "private one use a token"),
        ("hf:org/whole@none", None, SourceNotFound, "has no revision none", "branches and tags"),
        ("hf:org/whole/none.gguf", None, SourceNotFound, "has no none.gguf", "It has"),
        ("hf:org/whole/CONFIG.json", None, SourceNotFound, "has no CONFIG.json", "config.json"),
        ("hf:org/whole/none/", None, SourceNotFound, "has no none/", "It has"),
        ("hf:org/gated", None, SourceUnauthorized, "is gated.*no token is set", "Accept the terms"),
        ("hf:org/gated", STRANGER, SourceUnauthorized, "is gated.*has not let in the account", "Ask for access"),
        ("hf:org/disabled", None, SourceUnauthorized, "has disabled", None),
        ("hf:org/whole", "hf_unknown_to_the_hub_000000", SourceUnauthorized, "does not accept the token", "expired"),
        ("hf:org/quants:Q9_X", None, SourceNotFound, "no GGUF file of the quantisation Q9_X", "BF16, IQ4_XS, Q3_K_S"),
        ("hf:org/two:Q4_K_M", None, InvalidRequest, "2 models of the quantisation", "hf:org/two/a-7b.Q4_K_M.gguf"),
        ("hf:org/torn:Q4_0", None, SourceNotFound, "lacks m-Q4_0-00002-of-00002.gguf", None),
        ("hf:org/torn/m-Q4_0-00001-of-00002.gguf", None, SourceNotFound, "one part of a set", "missing part"),
    ],
)
def test_each_refusal_has_its_sentence_and_a_next_step(
    hub: Hub, http: HttpClient, text: str, token: str | None, kind: type[WireError], said: str, hint: str | None
) -> None:
    with pytest.raises(kind, match=said) as caught:
        described(hub, http, text, token)
    assert hint is None or hint in (caught.value.hint or "")
    assert not caught.value.retryable
    assert not token or token not in f"{caught.value} {caught.value.hint} {caught.value.details}"


def test_who_loses_access_between_describing_and_fetching_is_told_so(hub: Hub, http: HttpClient) -> None:
    file = described(hub, http, "hf:org/gated/m.gguf", TOKEN).files[0]
    with pytest.raises(SourceUnauthorized, match="is gated"):
        read_all(source_of(hub, http, STRANGER), file)


def test_a_small_file_that_is_not_the_one_of_its_commit_is_refused(hub: Hub, http: HttpClient) -> None:
    for bytes_sent in (b"CONFIG.json", b"config.jso", b"config.json and more"):
        hub.repos["org/whole"] = Repo(
            REPOS["org/whole"].files, REPOS["org/whole"].lfs, tampered={"config.json": bytes_sent}
        )
        file = described(hub, http, "hf:org/whole/config.json").files[0]
        with pytest.raises((DigestMismatch, SourceUnavailable)) as caught:
            read_all(source_of(hub, http), file)
        if len(bytes_sent) == len("config.json"):
            assert isinstance(caught.value, DigestMismatch)


@pytest.mark.parametrize(
    "answer",
    [
        Reply(200, {"Content-Type": "text/html"}, b"<!doctype html><html>Log in</html>"),
        Reply(200, {}, b'{"sha": "main"}'),
        Reply(200, {}, b"[]"),
        Reply(200, {}, b"\xff\xfe"),
        Reply(200, {}, b'{"sha": 3}'),
    ],
    ids=["page", "no commit", "list", "no text", "number"],
)
def test_what_does_not_answer_as_a_hub_does_is_said(http: HttpClient, answer: Reply) -> None:
    with serving(lambda asked: answer) as server:
        with pytest.raises(SourceUnavailable) as caught:
            HuggingFaceSource(http, server.url).describe(HubReference(repo="org/repo"))
        assert not caught.value.retryable
        assert "HF_ENDPOINT" in (caught.value.hint or "")


@pytest.mark.parametrize("told", [{"size": -5, "oid": "a" * 40}, {"size": 9, "lfs": {"oid": "a" * 64, "size": -5}}])
def test_a_size_below_nothing_is_no_size(http: HttpClient, told: dict[str, object]) -> None:
    def answer(asked: Asked) -> Reply:
        tree = [{"type": "file", "path": "m.gguf", **told}]
        return Reply(200, {}, json.dumps(tree if "/tree/" in asked.target else {"sha": "a" * 40}).encode())

    with serving(answer) as server:
        with pytest.raises(SourceUnavailable, match="does not answer as a hub does"):
            HuggingFaceSource(http, server.url).describe(HubReference(repo="org/repo"))


def test_rate_limits_are_told_with_their_wait(http: HttpClient) -> None:
    with serving(lambda asked: Reply(429, {"RateLimit": '"api";r=0;t=55'})) as server:
        with pytest.raises(SourceUnavailable) as caught:
            HuggingFaceSource(http, server.url).describe(HubReference(repo="org/repo"))
    assert caught.value.retryable
    assert caught.value.retry_after_ms == 55_000


def test_a_list_of_files_does_not_lead_to_another_host(http: HttpClient) -> None:
    commit = "a" * 40

    def elsewhere(asked: Asked) -> Reply:
        if "/tree/" not in asked.target:
            return Reply(200, {}, json.dumps({"sha": commit}).encode())
        return Reply(200, {"Link": '<http://127.0.0.1:9/next>; rel="next"'}, b"[]")

    with serving(elsewhere) as server:
        with pytest.raises(SourceUnavailable, match="another host"):
            HuggingFaceSource(http, server.url, token=lambda: TOKEN).describe(HubReference(repo="org/repo"))
