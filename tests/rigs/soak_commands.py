"""A client of the soak that is a person: what it does is a `modelctl` process each time, which may be ended early."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from typing import Any

import anyio

from modelwire import errors
from modelwire.vocabulary import COMING
from rigs.command import COMMAND
from rigs.soak_clients import Worker
from rigs.soak_model import Content, Lie, Write
from rigs.soak_world import NAMES, World, content_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)

ABSENT = {"no_daemon", "connection_lost", "draining", "interrupted"}
"""What a command reports when the daemon went away."""


class CommandClient(Worker):
    def __init__(self, world: World, seed: str, *, impatient: float = 0.2) -> None:
        super().__init__(world, seed)
        self._impatient = impatient
        """How often a process is ended before its time."""

        self.actions = {
            self.add: 6,
            self.pull: 5,
            self.rename: 5,
            self.remove: 4,
            self.path: 5,
            self.list: 2,
            self.looks: 3,
            self.verify: 1,
        }

    async def command(
        self,
        *arguments: str,
        writes: list[Write] = [],  # noqa: B006 - never changed
        allowed: Callable[[], Collection[str]] = lambda: (),
        wrote: Callable[[Any], Content | str] = lambda value: str(value["blob"]),
    ) -> Any:
        """The document that it printed; None when it was refused, as the model allows, or ended."""
        began = self.model.now()
        process = await anyio.open_process(
            [*COMMAND, *arguments, "--json", "--no-start"],
            env=self.world.daemon.environ,
            cwd=self.world.daemon.room,
            stdin=subprocess.DEVNULL,
        )
        ended = False
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(process)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            assert process.stdout is not None
            assert process.stderr is not None
            out, err = bytearray(), bytearray()
            tasks.start_soon(_collect, process.stdout, out)
            tasks.start_soon(_collect, process.stderr, err)
            if self.chance.random() < self._impatient:
                with anyio.move_on_after(self.chance.expovariate(1 / self._patience)):
                    await process.wait()
                if process.returncode is None:
                    ended = True
                    process.send_signal(self.chance.choice(SIGNALS))
            await process.wait()
        code, shown = process.returncode, err.decode(errors="replace")
        if b"Traceback" in err and not ended:
            raise Lie(f"modelctl {arguments} ends with {code}:\n{shown}")
        self.world.counts[f"modelctl exit {code}"] += 1
        document = None
        if out:
            try:
                document = json.loads(out)
            except ValueError:
                if not ended:
                    raise Lie(f"modelctl {arguments} prints no document: {bytes(out)!r} {shown}") from None
        if code == 0:
            if document is None:
                raise Lie(f"modelctl {arguments} ends with 0 and prints nothing: {shown}")
            if writes:
                self.world.finish(writes, wrote(document))
                self.world.learn(document.get("job"), writes, told="done")
            return document
        if ended:
            return None  # whatever it asked for may be done, or not
        self._judge(arguments, code, document, shown, began, writes, allowed())
        return None

    def _judge(
        self,
        arguments: Collection[str],
        code: int | None,
        document: Any,
        shown: str,
        began: int,
        writes: list[Write],
        allowed: Collection[str],
    ) -> None:
        failure = document.get("error", {}) if isinstance(document, dict) else {}
        word = failure.get("code", "")
        self.world.counts[f"answer {word}"] += 1
        known = errors.BY_CODE.get(word)
        if known is not None and known.exit_code != code:
            raise Lie(f"modelctl {arguments} ends with {code} for {word}: {shown}")
        if word in allowed or word == "queue_full":
            for write in writes if word != "queue_full" else ():
                self.model.undone(write, word)
        elif word in ABSENT and self.world.broke(began):
            pass
        elif word == "cancelled" and self.world.cancelled:
            pass  # by somebody who cancels jobs: a command does not say which one was its own
        else:
            try:
                self.model.lie(writes[0].name if writes else "?", f"modelctl {arguments} ends with {code}: {shown}")
            except Lie as lie:
                raise Lie(f"{lie}\n  document: {document}") from None

    async def add(self) -> None:
        item, name, replace = self.chance.choice(self.world.items), self.name(), self.chance.random() < 0.5
        await self._new("add", item.path, name, item.content, replace=replace)

    async def pull(self) -> None:
        item = self.chance.choice([item for item in self.world.items if item.address])
        await self._new("pull", str(item.address), self.name(), item.content, replace=self.chance.random() < 0.5)

    async def _new(self, verb: str, what: str, name: str, content: tuple[str, ...], *, replace: bool) -> None:
        with self.model.step() as began:
            write = self.model.begin(name, {content}, f"modelctl {verb} {what} {name}")
            await self.command(
                verb,
                what,
                "--name",
                name,
                *(("--replace",) if replace else ()),
                writes=[write],
                allowed=lambda: (
                    self.world.faults_of(what)
                    | (set() if replace or not self.model.may_differ(name, began, content) else {"already_exists"})
                ),
                wrote=content_of,
            )

    async def rename(self) -> None:
        verb, source, destination = self.chance.choice(("cp", "mv")), self.name(), self.name()
        with self.model.step() as began:
            what = f"modelctl {verb} {source} {destination}"
            writes = [self.model.begin(destination, (), what, source=source)]
            if verb == "mv":
                writes.append(self.model.begin(source, {None}, what))

            def allowed() -> set[str]:
                codes = {"not_found"} if self.model.may_be_absent(source, began) else set()
                exists = source == destination or self.model.possible(destination, began) != {None}
                return codes | ({"already_exists"} if exists else set())

            await self.command(verb, source, destination, writes=writes, allowed=allowed)

    async def remove(self) -> None:
        name, now = self.name(), self.chance.random() < 0.4
        with self.model.step() as began:
            await self.command(
                "rm",
                name,
                *(("--now",) if now else ()),
                writes=[self.model.begin(name, {None}, f"modelctl rm {name}")],
                allowed=lambda: {"not_found"} if self.model.may_be_absent(name, began) else (),
                wrote=lambda _: None,
            )

    async def path(self) -> None:
        name = self.name()
        with self.model.step() as began:
            allowed = {"not_found"}
            found = await self.command("path", name, allowed=lambda: allowed & self._if_absent(name, began))
            if found is not None:
                self.model.saw_blob(name, began, found["blob"], "modelctl path")
                await self._read(name, began, found["path"], found["blob"])

    def _if_absent(self, name: str, began: int) -> set[str]:
        return {"not_found"} if self.model.may_be_absent(name, began) else set()

    async def list(self) -> None:
        with self.model.step() as began:
            found = await self.command("list")
            if found is not None:
                here = [view for view in found if view["state"] not in COMING]
                self.judge_list(began, {view["name"]: content_of(view) for view in here})

    async def looks(self) -> None:
        verbs = (("status",), ("usage",), ("jobs",), ("quarantine",), ("log", "-n", "20"), ("sweep", "--dry-run"))
        await self.command(*self.chance.choice(verbs))

    async def verify(self) -> None:
        name = self.chance.choice(NAMES)
        with self.model.step() as began:
            await self.command("verify", name, allowed=lambda: self._if_absent(name, began))


async def _collect(stream: anyio.abc.ByteReceiveStream, into: bytearray) -> None:
    async for chunk in stream:
        into.extend(chunk)
