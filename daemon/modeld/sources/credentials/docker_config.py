"""Credentials for a registry from where docker and podman keep them: a file, or a credential helper."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modeld.download.cancel_scope import CancelScope
from modelwire.errors import SourceUnauthorized

HELPER_SECONDS: Final = 15.0
"""Some helpers unlock a keyring or ask a cloud; none may block a job for ever."""

MAX_CONFIG: Final = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DOCKER_HUB: Final = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    user: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str | None = field(default=None, repr=False)
    """Replaces the password; the registry exchanges it for access tokens."""


def registry_login(host: str, environ: Mapping[str, str]) -> RegistryLogin | None:
    """The login in the first file that names the host. A helper that fails is an error: the user configured it."""
    names = (
        _DOCKER_HUB if host in _DOCKER_HUB else (host, f"https://{host}", f"https://{host}/v2/", f"https://{host}/v1/")
    )
    for path in _files(environ):
        config = _read(path)
        helpers, auths = config.get("credHelpers"), config.get("auths")
        for name in names:
            helper = helpers.get(name) if isinstance(helpers, dict) else None
            if isinstance(helper, str):
                return _ask(helper, name, environ)
        for name in names:
            entry = auths.get(name) if isinstance(auths, dict) else None
            login = _login(entry) if isinstance(entry, dict) else None
            if login is not None:
                return login
        store = config.get("credsStore")
        # With a store for all hosts, the file lists the hosts of which the store has a login.
        if isinstance(store, str) and isinstance(auths, dict):
            for name in names:
                if name in auths:
                    return _ask(store, name, environ)
    return None


def _files(environ: Mapping[str, str]) -> Iterator[str]:
    if environ.get("REGISTRY_AUTH_FILE"):
        yield environ["REGISTRY_AUTH_FILE"]
    if environ.get("DOCKER_CONFIG"):
        yield os.path.join(environ["DOCKER_CONFIG"], "config.json")
    else:
        yield os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".docker", "config.json")
    if environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(environ["XDG_RUNTIME_DIR"], "containers", "auth.json")


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            config = json.loads(file.read(MAX_CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _login(entry: dict[str, Any]) -> RegistryLogin | None:
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    packed = entry.get("auth")
    if isinstance(packed, str) and packed:
        try:
            user, _, password = base64.b64decode(packed, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, ValueError):
            return None
    identity = entry.get("identitytoken")
    if isinstance(identity, str) and identity:
        return RegistryLogin(user, "", identity)
    return RegistryLogin(user, password) if user else None


def _ask(helper: str, host: str, environ: Mapping[str, str]) -> RegistryLogin | None:
    """Runs a helper by docker's protocol: the host on standard input, JSON on standard output."""
    if not _HELPER.fullmatch(helper):
        raise SourceUnauthorized(
            f"the credential helper for {host} in docker's configuration is not the name of a program",
            hint="Correct credHelpers or credsStore in docker's config.json.",
        )
    program = f"docker-credential-{helper}"
    status, output = _run(program, host, environ)
    if status != 0:
        if b"not found" in output.lower():
            return None  # the helper has no login for the host
        raise _helper_fault(program, host, f"failed with exit status {status}")
    try:
        login = json.loads(output)
        user, secret = login["Username"], login["Secret"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _helper_fault(program, host, "did not answer with Username and Secret") from None
    if user == "<token>":
        return RegistryLogin("", "", str(secret))
    return RegistryLogin(str(user), str(secret))


def _run(program: str, host: str, environ: Mapping[str, str]) -> tuple[int, bytes]:
    try:
        process = subprocess.Popen(
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as fault:
        raise _helper_fault(program, host, f"cannot be run: {fault.strerror}") from None

    def end() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    scope = CancelScope.current()
    with process:
        try:
            with scope.woken_by(end):
                output, _ = process.communicate(host.encode(), scope.wait(HELPER_SECONDS))
        except subprocess.TimeoutExpired:
            # The whole process group: `with` would wait for a child that keeps the pipe open.
            os.killpg(process.pid, signal.SIGKILL)
            raise _helper_fault(program, host, f"did not answer within {HELPER_SECONDS:g} s") from None
        scope.wait()
    return process.returncode, output[:MAX_CONFIG]


def _helper_fault(program: str, host: str, what: str) -> SourceUnauthorized:
    return SourceUnauthorized(
        f"{program}, which keeps the password for {host}, {what}",
        hint="Run it by hand as the daemon's user, or remove it from docker's config.json.",
        details={"helper": program},
    )
