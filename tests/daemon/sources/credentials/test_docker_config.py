"""Passwords of registries: docker's files and helpers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from modeld.sources.credentials.docker_config import registry_login
from modelwire.errors import SourceUnauthorized
from rigs.registries import packed, with_docker_config


def helper(directory: Path, script: str) -> dict[str, str]:
    program = directory / "bin" / "docker-credential-vault"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


def test_a_helper_is_asked_by_its_protocol(tmp_path: Path) -> None:
    for config in ({"credHelpers": {"ghcr.io": "vault"}}, {"credsStore": "vault", "auths": {"ghcr.io": {}}}):
        environ = with_docker_config(tmp_path, config) | helper(
            tmp_path, 'read host; [ "$1 $host" = "get ghcr.io" ] && echo \'{"Username":"u","Secret":"s3cret"}\''
        )
        login = registry_login("ghcr.io", environ)
        assert login is not None
        assert (login.user, login.password) == ("u", "s3cret")
        assert "s3cret" not in repr(login)
        assert registry_login("quay.io", environ) is None


def test_a_helper_may_give_a_token(tmp_path: Path) -> None:
    environ = with_docker_config(tmp_path, {"credHelpers": {"ghcr.io": "vault"}}) | helper(
        tmp_path, 'cat >/dev/null; echo \'{"Username":"<token>","Secret":"s3cret"}\''
    )
    login = registry_login("ghcr.io", environ)
    assert login is not None
    assert (login.user, login.identity_token) == ("", "s3cret")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("cat >/dev/null; echo s3cret; echo s3cret >&2; exit 3", "failed with exit status 3"),
        ("cat >/dev/null; echo s3cret", "did not answer with Username and Secret"),
        ("sleep 30", "did not answer within"),
    ],
)
def test_a_helper_that_fails_is_named_and_its_words_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr("modeld.sources.credentials.docker_config.HELPER_SECONDS", 0.3 if "sleep" in script else 20.0)
    environ = with_docker_config(tmp_path, {"credHelpers": {"ghcr.io": "vault"}}) | helper(tmp_path, script)
    with pytest.raises(SourceUnauthorized, match=f"docker-credential-vault.*{said}") as caught:
        registry_login("ghcr.io", environ)
    assert "s3cret" not in f"{caught.value} {caught.value.hint} {caught.value.details}"


def test_a_helper_that_knows_nothing_of_the_host_or_is_not_there(tmp_path: Path) -> None:
    environ = with_docker_config(tmp_path, {"credHelpers": {"ghcr.io": "vault", "b.io": "../x", "c.io": "none"}})
    environ |= helper(tmp_path, "cat >/dev/null; echo 'credentials not found in native keychain'; exit 1")
    assert registry_login("ghcr.io", environ) is None
    with pytest.raises(SourceUnauthorized, match="not the name of a program"):
        registry_login("b.io", environ)
    with pytest.raises(SourceUnauthorized, match="cannot be run"):
        registry_login("c.io", environ)


def test_the_files_with_passwords_and_their_spellings(tmp_path: Path) -> None:
    environ = with_docker_config(
        tmp_path,
        {
            "auths": {
                "https://index.docker.io/v1/": {"auth": packed("hub", "1")},
                "https://a.io": {"username": "u", "password": "2"},
                "b.io": {"auth": "no base64!"},
                "c.io": "nothing",
            }
        },
    )
    for host in ("docker.io", "registry-1.docker.io", "index.docker.io"):
        login = registry_login(host, environ)
        assert login is not None
        assert login.user == "hub"
    login = registry_login("a.io", environ)
    assert login is not None
    assert login.password == "2"
    assert registry_login("b.io", environ) is None
    assert registry_login("c.io", environ) is None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text("not json")
    (elsewhere / "auth.json").write_text(json.dumps({"auths": {"a.io": {"auth": packed("podman", "3")}}}))
    assert registry_login("a.io", {"DOCKER_CONFIG": str(elsewhere), "HOME": str(tmp_path)}) is None
    login = registry_login("a.io", {**environ, "REGISTRY_AUTH_FILE": str(elsewhere / "auth.json")})
    assert login is not None
    assert login.user == "podman"
