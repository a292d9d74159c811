"""Pulls that ask no source: of a path on this machine, and of a name that is in the store already."""

from __future__ import annotations

from functools import partial

from modeld.jobs.job import Job
from modeld.pulls.outcome import PullOutcome
from modeld.sources.local import LocalReference
from modeld.sources.stored import StoredReference
from modeld.store import Digest, Reader, Requester, Store, WouldBlock
from modeld.store.maintain.verify import OnFailed
from modeld.store.publish.name_changes import Notes
from modelwire.errors import DigestMismatch, NotFound
from modelwire.requests import ModelPull
from modelwire.values import Pulled

PullJob = Job[ModelPull, Pulled]


async def add_local(
    store: Store, job: PullJob, reference: LocalReference, reader: Reader, notes: Notes[Pulled]
) -> Pulled:
    """Adds the file or directory. `reader` has the rights of the client."""
    outcome, request = PullOutcome(source=reference.text, notes=notes), job.request
    added = await store.add(
        reference.path,
        name=request.name,
        sha256=request.sha256,
        replace=request.replace,
        license=request.license,
        order=job.order,
        progress=job.progress,
        reader=reader,
        notes=outcome,
        requester=Requester(peer=job.peer, job=job.id),
    )
    return outcome.pulled(added)


async def use_stored(store: Store, job: PullJob, reference: StoredReference, on_failed: OnFailed) -> Pulled:
    """Finds the model of a reference that is a name alone."""
    job.progress.phase("checking_local")
    name = reference.name.text
    try:
        resolved = await store.look_up(name)
    except NotFound as fault:
        if fault.details.get("close"):
            raise
        raise NotFound(
            fault.message,
            hint=f"A name alone means a model in the store; to fetch it, add its source:"
            f" ollama:{name}, hf:org/repo, ./{name}.",
            details=fault.details,
        ) from None
    except WouldBlock:
        resolved = await store.resolver.resolve(
            name, requester=Requester(peer=job.peer, job=job.id), on_failed=on_failed
        )
    view, wanted = await store.index.in_thread(partial(store.models.view, resolved.name)), job.request.sha256
    expected, actual = wanted and Digest.parse(wanted), Digest.parse(view.blob)
    if expected and not actual.matches(expected):
        raise DigestMismatch(
            f"'{view.name}' has the digest {actual.text}, {expected.text} was expected",
            hint="Check the digest, or pull by a reference that names the source of the model.",
            details={"expected_sha256": expected.hex, "actual_sha256": actual.hex},
        )
    job.progress.total(view.size_bytes)
    job.progress.advance(done=view.size_bytes, reused=view.size_bytes)
    return Pulled(
        name=view.name,
        blob=view.blob,
        size_bytes=view.size_bytes,
        format=view.format,
        path=resolved.path,
        reused=True,
        files=view.files,
        source=name,
        current=True,
    )
