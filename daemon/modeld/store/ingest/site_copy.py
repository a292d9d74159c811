"""Copies a model of a site into the store: first its blobs, then its manifest under the new name."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from functools import partial
from typing import Unpack

from modeld.progress import JobProgress
from modeld.store.catalog.history import THE_DAEMON
from modeld.store.disk.space import Allotment
from modeld.store.ingest.from_site import SiteBlob
from modeld.store.ingest.ingest import Ingest
from modeld.store.manifests.entries import NamedBlob
from modeld.store.manifests.sites import Site
from modeld.store.names import ModelName
from modeld.store.publish.name_changes import Terms
from modeld.store.publish.renaming import Renaming
from modelwire.values import Copied


async def copy_from_site(
    ingest: Ingest,
    renaming: Renaming,
    site: Site,
    source: str,
    destination: str,
    *,
    link: bool,
    progress: JobProgress,
    **terms: Unpack[Terms[Copied]],
) -> Copied:
    """Refuses before the first byte what the change of the name would refuse. Blobs of an abandoned copy are swept."""
    requester = terms.get("requester", THE_DAEMON)
    entry, document = await site.look(partial(site.index.find_with_document, source))
    await site.in_time(partial(renaming.plan_copy, source, destination, requester, (entry, document)))
    sizes = await site.in_time(entry.sizes)
    layout, trees = ingest.publishing.layout, ingest.publishing.index.trees
    progress.phase("checking_local")
    with ExitStack() as held:
        held.enter_context(ingest.holds.relying_on(layout.staging, *(blob.digest for blob in entry.blobs)))
        files = dict(zip(entry.blobs, progress.files([sizes[blob.digest.text] for blob in entry.blobs]), strict=True))
        here = {blob: await ingest.find_here(blob.digest, file) for blob, file in files.items()}
        space = ingest.space_of(requester, ModelName.parse(destination))
        missing = sum(sizes[blob.digest.text] for blob in entry.blobs if here[blob] is None)
        reserved = await ingest.in_thread(partial(space.adopt if link else space.reserve, missing))
        space = Allotment(held.enter_context(reserved))
        for blob, file in files.items():
            there = here[blob] or await ingest.bring(
                SiteBlob(path=blob.path, digest=blob.digest, link=link), site.readers, file, requester, space
            )
            file.total(there.size)
            file.reuse(there.size)
            file.finished()
        own = dataclasses.replace(
            entry,
            blobs=tuple(NamedBlob(layout.blob(blob.digest), blob.digest, blob.size) for blob in entry.blobs),
            records=ingest.records,
            trees=trees,
            site=None,
        )
        copied = await renaming.copy(source, destination, at=(own, document), **terms)
    for blob in own.blobs:
        ingest.user_spaces.named(blob.path)
    return copied
