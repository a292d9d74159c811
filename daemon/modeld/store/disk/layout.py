"""The paths under the store's root. Pure: nothing here reads the disk.

The public part (blobs, manifests, locks) is shared with other tools and must not change. Everything that only modeld
needs lies under `.modeld`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from modeld.store.digest import Digest
from modeld.store.names import ModelName
from modelwire import store_root

LAYOUT_VERSION = 1
"""Version of the private part. A daemon refuses a store with a newer version."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths under `root`, which is absolute and has no trailing slash."""

    root: str

    @property
    def blobs_dir(self) -> str:
        return f"{self.root}/blobs/sha256"

    def blob(self, digest: Digest) -> str:
        return f"{self.root}/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data"

    def shared_partial_dir(self, digest: Digest) -> str:
        """Where every tool that knows the layout writes a download of this digest; so modeld does not."""
        return f"{self.root}/blobs/sha256/{digest.hex[:2]}/.partial-{digest.hex}"

    @property
    def manifests_dir(self) -> str:
        return f"{self.root}/manifests"

    def manifest(self, name: ModelName) -> str:
        return f"{self.root}/manifests/{name.stem}.json"

    @property
    def locks_dir(self) -> str:
        return f"{self.root}/locks"

    def name_lock(self, name: ModelName) -> str:
        """Shared with other tools."""
        return f"{self.root}/locks/{name.stem}.lock"

    @property
    def quarantine_dir(self) -> str:
        return f"{self.root}/locks/quarantine"

    @property
    def private(self) -> str:
        return f"{self.root}/.modeld"

    @property
    def version_file(self) -> str:
        return f"{self.root}/.modeld/version"

    @property
    def lock(self) -> str:
        """Held until the daemon ends: one daemon per store, whatever its socket."""
        return f"{self.root}/{store_root.LOCK}"

    @property
    def staging(self) -> str:
        """Unfinished bytes and manifests. Everything in it at start is from an earlier run."""
        return f"{self.root}/.modeld/staging"

    @property
    def keyed_partials(self) -> str:
        """Downloads of modeld: they survive a restart, and the next pull resumes them. Other tools write to none."""
        return f"{self.private}/partials"

    def partial_dir(self, digest: Digest) -> str:
        """A download of a known digest. One without has a directory beside it, by the identity that its source
        reports."""
        return f"{self.keyed_partials}/sha256-{digest.hex}"

    def partial(self, digest: Digest) -> str:
        return f"{self.partial_dir(digest)}/data.tmp"

    @property
    def catalog_path(self) -> str:
        return f"{self.root}/.modeld/catalog.sqlite"

    def blocks(self, digest: Digest) -> str:
        """A checksum of each 16 MiB block, from which a repair computes the ranges to fetch."""
        return f"{self.root}/.modeld/blocks/{digest.hex[:2]}/{digest.hex}"

    @property
    def trees(self) -> str:
        """Directories of hard links that show a model's files under their own names."""
        return f"{self.root}/.modeld/trees"

    @property
    def linked(self) -> str:
        """What is known of blobs that share their bytes with a name outside the store. While it is there, it is
        complete: so a start that finds none makes it from what the links show."""
        return f"{self.root}/.modeld/linked"

    def linked_blob(self, digest: Digest) -> str:
        return f"{self.root}/.modeld/linked/{digest.hex}"

    @property
    def registered(self) -> str:
        """Models whose bytes are not here: a file for each."""
        return f"{self.private}/registered"

    def registration(self, name: ModelName) -> str:
        return f"{self.registered}/{name.stem}.json"

    @property
    def moving(self) -> str:
        """In an unfinished copy of another store: see `disk.former`."""
        return f"{self.private}/moving"

    @property
    def left(self) -> str:
        """In a directory that the store was in before it was moved."""
        return f"{self.private}/left"

    @property
    def former(self) -> str:
        """Where the store was before it was moved."""
        return f"{self.private}/former"

    @property
    def site_trees(self) -> str:
        """Directories of symbolic links, for the models of sites: a directory for each site."""
        return f"{self.private}/sites"

    def trees_at_site(self, site: str) -> str:
        """Trees of the models of a site, whose own root is only read."""
        return f"{self.site_trees}/{hashlib.sha256(os.fsencode(site)).hexdigest()[:16]}"

    def trees_of(self, name: ModelName) -> str:
        """The trees of one model: more than one only until those of replaced bytes are swept."""
        return f"{self.root}/.modeld/trees/{name.stem}"

    @property
    def skeleton(self) -> tuple[str, ...]:
        """The directories that every store has, parents first."""
        return (
            self.root,
            f"{self.root}/blobs",
            self.blobs_dir,
            self.manifests_dir,
            self.locks_dir,
            self.quarantine_dir,
            self.private,
            self.staging,
            f"{self.root}/.modeld/blocks",
            self.trees,
        )
