"""A request to pull, read and checked before it is queued, and rid of its secrets.

A reference may hold a password or a signed query. The ledger, the log and the manifest get its canonical spelling,
which has none; the secret stays in memory for as long as its job lives. So such a job cannot go on after a restart,
and its error says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from modeld.jobs.job import AnyJob
from modeld.pulls.context import PullContext
from modeld.sources.reference import Reference
from modeld.store import Digest, ModelName
from modelwire.errors import Interrupted, InvalidRequest
from modelwire.requests import ModelPull

LONGEST_LICENSE = 1024
LONGEST_GLOBS = 16 * 1024
"""All globs together: they are part of the job's row and of its key."""

_SECRET = "model.pull with a secret "  # noqa: S105 - the prefix of a job's key, not a secret
_PLAIN = "model.pull "

_PEPPER = os.urandom(32)
"""New in each process, so that what reaches the disk says nothing about the secret."""


class PullRequests:
    """Remembers the references that hold secrets, by the key of their job."""

    def __init__(self, context: PullContext) -> None:
        self._context = context
        self._secret: dict[str, Reference] = {}

    def accept(self, request: ModelPull, uid: int, live: Iterable[str]) -> tuple[ModelPull, str]:
        """The request as it may be stored, and the key of its job. `live` are the keys of the jobs that have not
        ended; the references of all others are forgotten."""
        _check(request)
        reference = self._read(request, request.directory)
        name = ModelName.parse(request.name) if request.name is not None else reference.suggested_name
        if reference.fixed_name is not None and name != reference.fixed_name:
            raise InvalidRequest(
                f"$.name: '{reference.text}' means the model of that name; a pull gives it no second name",
                hint=f"For a file, write ./{reference.text}; for a model in the store, run"
                f" `modelctl cp {reference.text} {name.text}`.",
                details={"name": reference.text},
            )
        stored = msgspec.structs.replace(request, ref=reference.text, name=name.text, directory=None)
        files = [reference.key, stored.include, stored.exclude]
        options = [stored.name, stored.sha256, stored.replace, stored.license, stored.offline, stored.max_rate]
        key = msgspec.json.encode([*files, *options, uid]).decode()
        if not reference.secrets:
            return stored, _PLAIN + key
        key, kept = _SECRET + key + _fingerprint(reference), set(live)
        self._secret = {known: secret for known, secret in self._secret.items() if known in kept}
        self._secret[key] = reference
        return stored, key

    def reference(self, job: AnyJob, request: ModelPull) -> Reference:
        """Of a job that runs, with its secrets."""
        if not job.key.startswith(_SECRET):
            return self._read(request)
        found = self._secret.get(job.key)
        if found is None:
            raise Interrupted(
                f"the reference of job {job.id} held a password or a signed query, which is kept nowhere:"
                " it cannot go on after a restart of the daemon",
                hint="Pull it again with the whole reference; the bytes that are here are kept.",
                retryable=False,
            )
        return found

    def _read(self, request: ModelPull, directory: str | None = None) -> Reference:
        reference = self._context.sources.read(request.ref, directory)
        if not request.include and not request.exclude:
            return reference
        if not reference.network:
            raise InvalidRequest(
                "$.include: files are chosen from what a network source has, not from what is on this machine",
                hint="Add a directory that holds only the wanted files.",
            )
        return reference.choosing(request.include, request.exclude)


def _fingerprint(reference: Reference) -> str:
    """Two requests with two passwords share no job."""
    secrets = f"{reference.secrets.userinfo}\0{reference.secrets.query}"
    return blake2b(secrets.encode(), digest_size=8, key=_PEPPER).hexdigest()


def _check(request: ModelPull) -> None:
    if request.sha256 is not None:
        Digest.parse(request.sha256)
    if request.license is not None and (size := len(request.license.encode())) > LONGEST_LICENSE:
        raise InvalidRequest(
            f"$.license: it has {size} bytes, {LONGEST_LICENSE} are allowed",
            hint="Give the license's name or address, not its text.",
        )
    for field in ("include", "exclude"):
        globs = getattr(request, field)
        if sum(len(glob) + 3 for glob in globs) > LONGEST_GLOBS:
            raise InvalidRequest(f"$.{field}: the globs are longer than {LONGEST_GLOBS} characters", hint="Give fewer.")
        if not all(globs):
            raise InvalidRequest(f"$.{field}: a glob is empty, and fits nothing", hint="Leave it out.")
