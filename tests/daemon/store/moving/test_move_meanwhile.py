"""Others write to the store in the last moments before it is in its new directory."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from pathlib import Path

import anyio
import anyio.from_thread
import pytest

from modeld.progress import JobProgress
from modeld.store.disk import durable
from modeld.store.moving.other_files import OtherFiles
from modelwire.errors import Internal, ModeldError
from rigs.foreign_producer import Producer
from rigs.moving_rig import digest_of, faults, fill, move, opened, path_of
from rigs.waiting import wait_until


class Foreign:
    """Another tool that publishes a model, by the common layout's steps."""

    def __init__(self, root: str, sources: str, name: str, content: bytes) -> None:
        self.name, self.content = name, content
        source = os.path.join(sources, f"{name}.foreign")
        Path(source).write_bytes(content)
        self.producer = Producer(root, name, digest_of(content), source)

    def publish(self) -> None:
        self.producer.lock()
        self.write()
        self.producer.unlock()

    def write(self) -> None:
        for step in ("begin", "finish", "name", "clear", "publish"):
            getattr(self.producer, step)()


async def test_a_model_that_another_tool_publishes_after_the_copy_of_the_manifests_is_not_lost(
    root: str, target: str, sources: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        new = Foreign(root, sources, "foreign", b"GGUF foreign")
        again = Foreign(root, sources, "small", b"GGUF small, replaced")
        copy, done = OtherFiles.copy, list[bool]()

        def copying(self: OtherFiles) -> None:
            copy(self)
            if not done:
                done.append(True)
                new.publish()
                again.publish()

        monkeypatch.setattr(OtherFiles, "copy", copying)
        await move(store, target)
        for foreign in (new, again):
            contents[foreign.name] = foreign.content
        assert faults(root, contents) == []
        assert sorted(store.index.names()) == sorted(contents)
        assert os.path.samefile(await path_of(store, "foreign"), store.layout.root + path_below(root, b"GGUF foreign"))


async def test_a_tree_that_is_made_in_the_last_moment_is_not_missed(
    root: str, target: str, sources: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path is given out, and read without the daemon."""
    with opened(root) as store:
        contents = await fill(store, sources)
        for name in ("a", "b"):
            os.makedirs(os.path.join(sources, f"late-{name}"))
            Path(sources, f"late-{name}", "weights.gguf").write_bytes(b"GGUF late")
            Path(sources, f"late-{name}", "config.json").write_bytes(name.encode())
            await store.add(os.path.join(sources, f"late-{name}"), name=f"late-{name}")
            shutil.rmtree(f"{store.layout.trees}/late-{name}")
        copy, paths = OtherFiles.copy, list[str]()

        async def resolve() -> None:
            for name in ("a", "b"):
                paths.append((await store.resolver.resolve(f"late-{name}")).path)
                assert os.path.isfile(f"{paths[-1]}/weights.gguf")

        def copying(self: OtherFiles) -> None:
            copy(self)
            anyio.from_thread.run_sync(tasks.start_soon, resolve)
            turn = store.ingest.publishing.publisher
            wait_until(lambda: bool(paths or turn._waiting), what="a tree, or a wait for the turn to make it")

        monkeypatch.setattr(OtherFiles, "copy", copying)
        async with anyio.create_task_group() as tasks:
            await move(store, target)
        assert len(paths) == 2
        assert [path for path in paths if not os.path.isfile(f"{path}/weights.gguf")] == []
        assert faults(root, contents) == []


async def test_a_name_that_is_locked_in_the_last_moment_is_waited_for(
    root: str, target: str, sources: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        foreign = Foreign(root, sources, "foreign", b"GGUF foreign")
        copy, rounds = OtherFiles.copy, list[bool]()

        def copying(self: OtherFiles) -> None:
            copy(self)
            rounds.append(True)
            if len(rounds) == 1:
                descriptor = os.open(f"{root}/locks/foreign.lock", os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                threading.Timer(0.4, finish, [descriptor]).start()

        def finish(descriptor: int) -> None:
            foreign.write()
            os.close(descriptor)

        monkeypatch.setattr(OtherFiles, "copy", copying)
        await move(store, target)
        contents["foreign"] = foreign.content
        assert faults(root, contents) == []
        assert len(rounds) == 2


async def test_another_store_at_the_path_is_not_switched(
    root: str, target: str, sources: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its filesystem was unmounted, and another mounted, after the last look."""
    with opened(root) as store:
        contents = await fill(store, sources)
        carry_out = OtherFiles.copy

        def copying(self: OtherFiles) -> None:
            carry_out(self)
            os.rename(root, f"{root}-away")
            os.makedirs(f"{root}/manifests")

        with monkeypatch.context() as failing:
            failing.setattr(OtherFiles, "copy", copying)
            with pytest.raises(ModeldError):
                await move(store, target)
        assert not os.path.islink(root)
        shutil.rmtree(root)
        os.rename(f"{root}-away", root)
        await move(store, target)
        assert faults(root, contents) == []


async def test_what_fails_after_the_switch_does_not_undo_it(
    root: str, target: str, sources: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        parent, sync = os.path.dirname(root), durable.sync_directory

        def failing(path: str) -> None:
            if os.path.islink(root) and path in (parent, f"{target}/.modeld"):
                raise OSError(errno.EIO, "Input/output error", path)
            sync(path)

        with monkeypatch.context() as bad_disk:
            bad_disk.setattr(durable, "sync_directory", failing)
            with pytest.raises(Internal) as unknown:
                await move(store, target)
        assert unknown.value.details["outcome"] == "unknown"
        assert faults(root, contents) == []
        await store.add(os.path.join(sources, "big.gguf"), name="again")
        assert os.path.exists(f"{target}/manifests/again.json")
        assert (await store.mover.drop(JobProgress())).former == f"{root}.old"
    with opened(root) as store:
        assert (await store.verifier.verify(None)).models


def path_below(root: str, content: bytes) -> str:
    digest = digest_of(content)
    return f"/blobs/sha256/{digest[:2]}/{digest}/data"
