"""Where added files are from, as the rules of [trust] see it: all their paths, and the signature beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from modeld.platform import files
from modeld.signatures.document import MAX_BUNDLE
from modeld.signatures.rules import Rules
from modeld.store.disk.durable import source_faults
from modeld.store.ingest.collect import Collection
from modeld.store.ingest.readers import HandedReader
from modeld.store.ingest.trusted import Origin, names_beside
from modelwire.errors import SourceNotFound

_SCHEME = "local:"


def local_origin(collection: Collection, rules: Rules, signature: bytes | None) -> Origin:
    """Blocking. `signature` is that of the request. One beside the files is read where a rule asks for it: that of a
    directory is among its files, and what a client has handed over has nothing beside it."""
    spellings = tuple(dict.fromkeys(f"{_SCHEME}{path}" for path in _paths(collection)))
    if signature is None and not collection.directory and rules.matching(spellings) is not None:
        signature = _signature_beside(collection)
    return Origin(
        reference=f"{_SCHEME}{_shown(collection)}",
        spellings=spellings,
        signature=signature,
        whole=collection.directory,
    )


def _shown(collection: Collection) -> str:
    return collection.root if collection.directory else collection.where(collection.parts[0])


def _paths(collection: Collection) -> Iterator[str]:
    """As they are written, without `..`, and, when the daemon itself opens them, as they were opened: without symbolic
    links, which may lead elsewhere by now. A directory above the one that a rule names has the files that it names."""
    for path in [collection.root] * collection.directory + [collection.where(part) for part in collection.parts]:
        yield path
        yield f"/{os.path.normpath(path).lstrip('/')}"
    # The client alone knows what a path means to it; the daemon looks at none of them, which might hang.
    if isinstance(collection.reader, HandedReader):
        return
    if collection.descriptor is not None:
        # Below it there are none: the listing has refused them.
        root = files.path_of(collection.descriptor, collection.root)
        yield root
        yield from (f"{root}/{part.path}" for part in collection.parts)
    else:
        yield from (part.real_path for part in collection.parts if part.real_path is not None)


def _signature_beside(collection: Collection) -> bytes | None:
    if isinstance(collection.reader, HandedReader):
        return None
    for name in names_beside(collection.parts[0].path if collection.alone else None):
        path = f"{collection.root}/{name}"
        with suppress(SourceNotFound), files.closing(collection.reader.open(path)) as descriptor:
            with source_faults(path), open(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_BUNDLE + 1)
    return None
