"""The public paths are a contract with other tools: they are written out here once more."""

from __future__ import annotations

from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.names import ModelName

DIGEST = Digest("ab" + "0" * 62)


def test_the_paths_that_other_tools_share() -> None:
    layout = Layout("/m")
    assert layout.blob(DIGEST) == f"/m/blobs/sha256/ab/{DIGEST.hex}/data"
    assert layout.shared_partial_dir(DIGEST) == f"/m/blobs/sha256/ab/.partial-{DIGEST.hex}"
    assert layout.manifest(ModelName.parse("llama:8b")) == "/m/manifests/llama+8b.json"
    assert layout.name_lock(ModelName.parse("llama:8b")) == "/m/locks/llama+8b.lock"
    assert layout.quarantine_dir == "/m/locks/quarantine"


def test_everything_private_lies_in_one_directory() -> None:
    layout = Layout("/m")
    private = [
        layout.lock,
        layout.version_file,
        layout.staging,
        layout.partial(DIGEST),
        layout.catalog_path,
        layout.trees,
        layout.blocks(DIGEST),
    ]
    assert all(path.startswith("/m/.modeld/") for path in private)
    assert len(set(private)) == len(private)


def test_directories_agree_with_the_files_in_them() -> None:
    layout = Layout("/m")
    assert layout.partial(DIGEST).startswith(layout.partial_dir(DIGEST) + "/")
    assert layout.blob(DIGEST).startswith(layout.blobs_dir + "/")


def test_parents_come_before_children_in_the_skeleton() -> None:
    skeleton = Layout("/m").skeleton
    for position, path in enumerate(skeleton[1:], 1):
        assert path.rsplit("/", 1)[0] in skeleton[:position]
