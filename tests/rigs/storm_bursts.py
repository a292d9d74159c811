"""Clients of the cancel storm: one sends many requests at once, by hand; one leaves pulls that would take for ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from modelwire.vocabulary import COMING
from rigs.soak_actions import SoakClient
from rigs.soak_clients import Worker
from rigs.soak_model import Lie, Write
from rigs.soak_world import World, content_of

LEAVE_OFTEN = ("wait", "cancel", "cancel", "drop", "drop", "drop", "close", "detach")

SLOWEST = 20_000
"""Bytes a second: at this rate a big file takes longer than a settling waits, so its pull has to be ended."""

_LONGEST = 8 << 20

_READS = ("daemon.status", "model.resolve", "model.resolve", "model.show", "model.list", "job.list", "store.usage")


@dataclass
class Asked:
    """A request of a burst."""

    line: dict[str, Any]
    judge: Callable[[dict[str, Any]], None]
    write: Write | None = None
    job: str | None = None
    ended: bool = False
    cancelled: bool = False


class StormClient(SoakClient):
    """Does what a client of the soak does, and leaves most of it early."""

    def __init__(self, world: World, seed: str) -> None:
        super().__init__(world, seed, ways=LEAVE_OFTEN, patience=0.03)
        self.actions |= {self.slow_pull: 6, self.verify: 8}

    async def slow_pull(self) -> None:
        """Nobody waits for it; the last one who leaves ends it."""
        item = self.chance.choice([item for item in self.world.items if item.address and len(item.content) == 1])
        name = self.name()

        def start(client: Any, options: dict[str, Any]) -> Any:
            return client.pull(
                item.address, name=name, replace=True, max_rate=SLOWEST, **options | {"on_disconnect": "cancel"}
            )

        with self.model.step():
            write = self.model.begin(name, {item.content}, f"slow pull {item.address} {name}")
            await self.work(start, [write], lambda: (), wrote=content_of, ways=("cancel", "drop", "close"))


class Burst(Worker):
    """Sends dozens of requests in one write, cancels some of them, and reads all replies or closes the connection."""

    def __init__(self, world: World, seed: str) -> None:
        super().__init__(world, seed)
        self.actions = {self.burst: 1}

    async def burst(self) -> None:
        chance, asked = self.chance, dict[str, Asked]()
        with self.model.step() as began:
            for number in map(str, range(chance.randrange(20, 120))):
                asked[number] = self._request(began)
                asked[number].line["id"] = number
            for number in chance.sample([*asked], chance.randrange(len(asked) // 2)):
                asked[number].cancelled = True
                line = {"op": "cancel", "target": number, "id": f"c{number}"}
                asked[f"c{number}"] = Asked(line, partial(self._expect, "invalid_request"))
            self.world.counts["requests of bursts"] += len(asked)
            way = chance.choice(("answered", "answered", "close", "close", "half-close"))
            await self._send(asked, way)
            for each in asked.values():
                if each.write is not None and not each.ended:
                    self.world.learn(each.job, [each.write], told=None)
        if way != "close" and (left := [number for number, each in asked.items() if not each.ended]):
            raise Lie(f"no terminal reply to {left} of {len(asked)}")

    async def _send(self, asked: dict[str, Asked], way: str) -> None:
        stream = await anyio.connect_unix(self.world.daemon.socket)
        async with stream, anyio.create_task_group() as tasks:
            lines = BufferedByteReceiveStream(stream)
            await lines.receive_until(b"\n", _LONGEST)  # hello
            enough = self.chance.randrange(len(asked)) if way == "close" else len(asked)

            async def send() -> None:
                await stream.send(b"".join(json.dumps(each.line).encode() + b"\n" for each in asked.values()))
                if way == "half-close":
                    await stream.send_eof()

            tasks.start_soon(send)
            try:
                while enough > 0:
                    reply = json.loads(await lines.receive_until(b"\n", _LONGEST))
                    enough -= self._take(asked[reply["id"]], reply)
            except (anyio.EndOfStream, anyio.IncompleteRead):
                raise Lie("the daemon ended a connection before its last reply") from None
            tasks.cancel_scope.cancel()

    def _take(self, each: Asked, reply: dict[str, Any]) -> bool:
        """Whether the request has ended."""
        if each.ended:
            raise Lie(f"{each.line}: a reply after the last one: {reply}")
        if reply["type"] == "accepted":
            each.job = reply["job"]
            if each.cancelled:
                self.world.cancelled.add(each.job)
        if reply["type"] not in ("result", "error"):
            return False
        each.ended = True
        if reply.get("code") == "cancelled" and (each.cancelled or each.job in self.world.cancelled):
            self.world.counts["cancelled in bursts"] += 1
            if each.write is not None:
                self.world.learn(each.job, [each.write], told=None)
        else:
            each.judge(reply)
        return True

    def _request(self, began: int) -> Asked:
        chance, name = self.chance, self.name()
        kind = chance.choices(("read", "watch", "add", "remove", "verify"), (20, 2, 3, 1, 1))[0]
        if kind == "read":
            op = chance.choice(_READS)
            fields: dict[str, Any] = {"name": name} if op in ("model.resolve", "model.show") else {}
            return Asked(
                {"op": op, **fields} | ({"limit": 3} if "list" in op else {}), self._judge_read(op, name, began)
            )
        if kind == "watch":
            return Asked({"op": "events.subscribe", "last": 3, "follow": False}, partial(self._expect, ""))
        if kind == "verify":
            return Asked({"op": "model.verify", "names": [name]}, partial(self._judge_verify, name, began))
        if kind == "remove":
            write = self.model.begin(name, {None}, f"burst: rm {name}")
            made = Asked({"op": "model.remove", "name": name}, lambda _: None, write)
            made.judge = partial(self._judge_write, made, None, {"not_found"}, began)
            return made
        item = chance.choice([item for item in self.world.items if len(item.content) == 1])
        write = self.model.begin(name, {item.content}, f"burst: add {item.path} {name}")
        line = {"op": "model.add", "path": item.path, "name": name, "replace": chance.random() < 0.5}
        made = Asked(line, lambda _: None, write)
        made.judge = partial(self._judge_write, made, item.content, {"already_exists"}, began)
        return made

    # -- what an answer may be

    def _expect(self, code: str, reply: dict[str, Any]) -> None:
        if reply["type"] == "error" and reply["code"] not in (code, "queue_full"):
            raise Lie(f"answered with {reply}")

    def _judge_read(self, op: str, name: str, began: int) -> Callable[[dict[str, Any]], None]:
        def judge(reply: dict[str, Any]) -> None:
            if op not in ("model.resolve", "model.show"):
                self._expect("", reply)
            elif reply["type"] == "error":
                self._expect("not_found", reply)
                self.model.saw(name, began, None, op)
            elif reply["value"]["state"] in COMING:
                self.model.saw(name, began, None, op)
            else:
                self.model.saw_blob(name, began, reply["value"]["blob"], op)

        return judge

    def _judge_verify(self, name: str, began: int, reply: dict[str, Any]) -> None:
        absent = self.model.may_be_absent(name, began)
        self._expect("not_found" if absent else "", reply)
        if reply["type"] == "result" and not reply["value"]["ok"] and not absent:
            self.model.lie(name, f"verify: {reply}")

    def _judge_write(
        self, asked: Asked, value: tuple[str, ...] | None, codes: set[str], began: int, reply: dict[str, Any]
    ) -> None:
        assert asked.write is not None
        if reply["type"] == "result":
            self.world.finish([asked.write], value if value is None else content_of(reply["value"]))
            self.world.learn(asked.job, [asked.write], told="done")
            return
        code, name = reply["code"], asked.write.name
        possible = self.model.possible(name, began)
        allowed = code in codes and (None in possible if value is None else bool(possible - {None, value}))
        if not allowed and (code != "queue_full" or asked.job is not None):
            self.model.lie(name, f"{asked.line} ends with {reply}")
        self.model.undone(asked.write, code)
        if code != "queue_full":
            self.world.learn(asked.job, [], told=code)
