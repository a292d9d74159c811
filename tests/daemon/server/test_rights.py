"""Who may do what: each operation of the wire, by each kind of user, on what is their own and on what is another's.

A real server answers; the kernel's word about who connected is the test's. An operation without a line here fails.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import msgspec
import pytest
from msgspec.structs import replace

from modeld.config.settings import AccessSettings
from modeld.operations.operation import Caller
from modeld.platform import peers
from modeld.platform.posix.endpoint import connections
from modeld.server.peer_limits import PeerLimits
from modeld.server.server import Server
from modeld.store import Requester
from modelwire import requests
from modelwire.knowledge.document import built
from modelwire.operations import OPERATIONS
from rigs.account_database import AccountDatabase
from rigs.operations_rig import MODEL_FILE, UID, OperationsRig, operations_rig
from rigs.signers import new_key, public_pem, resources_of, signed_with_key, statement
from rigs.update_commands import command

USERS: Final = {
    "daemon's user": peers.Peer(UID, UID, 1),
    "root": peers.Peer(0, 0, 1),
    "admin": peers.Peer(2001, 2001, 1),
    "write": peers.Peer(2002, 2002, 1),
    "read": peers.Peer(2003, 2003, 1),
    "none": peers.Peer(2004, 2004, 1),
    "unknown account": peers.Peer(2005, 2005, 1),
    "subordinate uid": peers.Peer(100_001, 600, 1),
}
"""The last one runs in a container of a user who is in the group 600, which has the role admin."""

ANOTHER: Final = 3000
ACCESS: Final = AccessSettings(users={"ada": "admin", "ben": "write", "cid": "read"}, groups={"staff": "admin"})


@dataclass
class Case:
    """What one user asks about: a model, jobs and a lease that are their own, or another's."""

    file: str
    model: str
    job: str = ""
    ended_job: str = ""
    lease: str = ""


Make = Callable[[Case], dict[str, Any]]

# In the order of USERS: + answered, r the role does not suffice, m the model is another's, j the job or the lease is
# another's, d to be handed over, o for the daemon's own user and root, - not let in, i refused as a wrong request: the
# right was there, n as one about what
# is not there: the right was there.
READ = "+ + + + + - - -"
WRITE = "+ + + + r - - -"
ADMIN = "+ + + r r - - -"
OTHERS_MODEL = "+ + + m r - - -"
OTHERS_JOB = "+ + + j r - - -"
OTHERS_LEASE = "+ + + j j - - -"
BY_PATH = "+ + d d r - - -"
OWN = "i i o r r - - -"
NOT_HERE = "i i i i i - - -"
NOT_ASKED = "n n n n r - - -"

DOCUMENT: Final = msgspec.to_builtins(built("m", "M", "llm"))
HANDED: Final = {"transfer": "t", "replace": True}


def _signature() -> dict[str, Any]:
    """Of the one file that each model has."""
    key = new_key()
    signed = signed_with_key(key, statement(resources_of({"m.gguf": MODEL_FILE})))
    return {"signature": json.dumps(signed), "key": public_pem(key).decode()}


LINES: Final[dict[str, tuple[str, str, Make]]] = {
    "hello": (READ, READ, lambda case: {"protocol": 1}),
    "cancel": (NOT_HERE, NOT_HERE, lambda case: {"target": "of another connection"}),
    "daemon.status": (READ, READ, lambda case: {}),
    "daemon.describe": (READ, READ, lambda case: {}),
    "daemon.drain": (ADMIN, ADMIN, lambda case: {}),
    "daemon.configure": (ADMIN, ADMIN, lambda case: {"waiting_total": 60}),
    "files.offer": (WRITE, WRITE, lambda case: {"transfer": "t", "paths": ["other.gguf"]}),
    "model.add": (WRITE, OTHERS_MODEL, lambda case: HANDED | {"path": case.file, "name": case.model}),
    "model.pull": (WRITE, OTHERS_MODEL, lambda case: HANDED | {"ref": case.file, "name": case.model}),
    "model.register": (WRITE, WRITE, lambda case: {"manifest": DOCUMENT, "name": f"{case.model}-coming"}),
    "model.update": (WRITE, WRITE, lambda case: {"command": command("1.0", {"target_nodes": ["another"]})}),
    "model.updates": (READ, READ, lambda case: {}),
    "model.refuse_load": (NOT_ASKED, NOT_ASKED, lambda case: {"command_id": "x", "reason": "too big"}),
    "model.list": (READ, READ, lambda case: {}),
    "model.show": (READ, READ, lambda case: {"name": case.model}),
    "model.provision": (WRITE, WRITE, lambda case: {"transfer": "t", "ref": case.file}),
    "model.fit": (READ, READ, lambda case: {"name": case.model}),
    "model.resolve": (READ, READ, lambda case: {"name": case.model}),
    "lease.acquire": (READ, READ, lambda case: {"name": case.model}),
    "lease.release": (READ, OTHERS_LEASE, lambda case: {"lease": case.lease}),
    "model.copy": (WRITE, WRITE, lambda case: {"source": case.model, "destination": f"{case.model}-copy"}),
    "model.move": (WRITE, OTHERS_MODEL, lambda case: {"source": case.model, "destination": f"{case.model}-moved"}),
    "model.remove": (WRITE, OTHERS_MODEL, lambda case: {"name": case.model}),
    "model.pin": (WRITE, OTHERS_MODEL, lambda case: {"name": case.model}),
    "model.unpin": (WRITE, OTHERS_MODEL, lambda case: {"name": case.model}),
    "model.verify": (WRITE, WRITE, lambda case: {"names": [case.model]}),
    "model.verify_signature": (WRITE, WRITE, lambda case: _signature() | {"name": case.model}),
    "model.repair": (WRITE, WRITE, lambda case: {"names": [case.model]}),
    "store.usage": (READ, READ, lambda case: {}),
    "store.quarantine": (READ, READ, lambda case: {}),
    "store.sweep": (ADMIN, ADMIN, lambda case: {}),
    "store.scrub": (ADMIN, ADMIN, lambda case: {}),
    "store.move": (OWN, OWN, lambda case: {"path": "/"}),
    "job.list": (READ, READ, lambda case: {}),
    "job.show": (READ, READ, lambda case: {"job": case.job}),
    "job.attach": (READ, READ, lambda case: {"job": case.ended_job}),
    "job.cancel": (WRITE, OTHERS_JOB, lambda case: {"job": case.job}),
    "job.pause": (WRITE, OTHERS_JOB, lambda case: {"job": case.job}),
    "job.resume": (WRITE, OTHERS_JOB, lambda case: {"job": case.job}),
    "job.prioritize": (WRITE, OTHERS_JOB, lambda case: {"job": case.job, "priority": 1}),
    "job.configure": (WRITE, OTHERS_JOB, lambda case: {"job": case.job, "priority": 1}),
    "events.subscribe": (READ, READ, lambda case: {"follow": False}),
}


@pytest.fixture
def room() -> Iterator[Path]:
    """One that other users may enter: those of pytest are for their owner only."""
    with tempfile.TemporaryDirectory(prefix="modeld-", dir="/tmp") as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[AccountDatabase]:
    made = AccountDatabase()
    made.users = {"modeld": UID, "root": 0, "ada": 2001, "ben": 2002, "cid": 2003, "dan": 2004}
    made.groups, made.members = {"staff": 600}, {}
    made.subordinate = range(100_000, 165_536)
    made.plant(monkeypatch)
    yield made
    made.release()


class Asked:
    """A served daemon that takes each connection for one of the user that the test names."""

    def __init__(self, at: OperationsRig, path: str) -> None:
        self.at, self._path = at, path
        self.peer = USERS["root"]
        self._cases = 0

    async def ask(self, user: str, operation: str, fields: dict[str, Any]) -> str:
        """What comes of it, as LINES writes it."""
        self.peer = USERS[user]
        async with await anyio.connect_unix(self._path) as stream:
            lines = self._lines(stream)
            first = await anext(lines)
            if first["type"] == "error":
                return "-" if first["code"] == "unauthorized" else first["code"]
            assert first["peer"]["uid"] == self.peer.uid
            if "transfer" in fields and operation != "files.offer":
                offer = {"id": "0", "op": "files.offer", **LINES["files.offer"][2](Case("", ""))}
                await self._send(stream, offer)
                if (offered := await anext(lines))["type"] == "error":
                    return _refusal(offered)
            await self._send(stream, {"id": "1", "op": operation, **fields})
            async for reply in lines:
                if reply["type"] == "result":
                    return "+"
                if reply["type"] == "error":
                    return _refusal(reply)
        return "closed"

    async def _send(self, stream: anyio.abc.UNIXSocketStream, request: dict[str, Any]) -> None:
        """With an open file, where the request offers one."""
        line = json.dumps(request).encode() + b"\n"
        if request["op"] != "files.offer":
            await stream.send(line)
            return
        with open(self.at.file("other.gguf", b"GGUF other"), "rb") as file:
            await stream.send_fds(line, [file])

    @staticmethod
    async def _lines(stream: anyio.abc.ByteStream) -> AsyncIterator[dict[str, Any]]:
        rest = b""
        with suppress(anyio.EndOfStream):
            while True:
                *lines, rest = (rest + await stream.receive()).split(b"\n")
                for line in lines:
                    yield json.loads(line)

    async def case(self, operation: str, user: str, *, own: bool) -> Case:
        """A model and jobs of that user or of another, made with rights that the user may have lost since."""
        owner = USERS[user].uid if own else ANOTHER
        self._cases += 1
        case = Case(self.at.file("other.gguf", b"GGUF other"), f"m{self._cases}")
        if operation.startswith(("model.", "lease.")):
            file = self.at.file("m.gguf")
            await self.at.services.store.add(file, name=case.model, requester=Requester(peer=owner))
        if operation == "lease.release":
            leased = await self.at.ask(
                requests.LeaseAcquire(name=case.model, detached=True), Caller(owner, owner, "read")
            )
            case.lease = leased.lease
        if operation.startswith("job."):
            caller = Caller(owner, owner, "write")
            await self.at.ask(requests.ModelVerify(all=True), caller)
            case.ended_job = (await self.at.services.board.recent(1, None))[0].id
            case.job = await self._paused(case, caller)
        return case

    async def _paused(self, case: Case, caller: Caller) -> str:
        pull = requests.ModelPull(ref=f"hf:org/{case.model}", on_disconnect="continue")
        before = set(self.at.services.board.jobs)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.at.ask, pull, caller)
            while not (jobs := set(self.at.services.board.jobs) - before):
                await anyio.lowlevel.checkpoint()
            job = jobs.pop()
            await self.at.services.board.pause(job)
            while job.state != "paused":
                await job.changed.wait()
            tasks.cancel_scope.cancel()
        return job.id


def _refusal(reply: dict[str, Any]) -> str:
    match reply["code"]:
        case "unauthorized":
            if "needs the role" not in reply["message"]:
                return "j"
            needed = reply["message"].partition("needs the role ")[2].partition(";")[0]
            assert f"for the role {needed}" in reply["hint"]
            return "r"
        case "permission_denied" if reply["details"].get("by") == "descriptors":
            return "d"
        case "permission_denied":
            if "only the daemon's own user and root can" in reply["message"]:
                return "o"
            return "m" if f"belongs to uid {ANOTHER}" in reply["message"] else reply["message"]
        case "invalid_request":
            return "i"
        case "not_found":
            return "n"
        case code:
            return f"{code}: {reply['message']}"


@asynccontextmanager
async def asked(room: Path, monkeypatch: pytest.MonkeyPatch, access: AccessSettings = ACCESS) -> AsyncIterator[Asked]:
    async with operations_rig(room, access) as at, anyio.create_task_group() as tasks:
        path = str(room / "s")
        with _listening(path) as listening:
            made = Asked(at, path)
            monkeypatch.setattr(connections, "identify", lambda _: made.peer)
            limits = PeerLimits(connections_per_peer=64, requests_per_peer=64)
            server = Server(listening, at.services, at.operations, limits, at.services.access, tasks)
            server.open()
            yield made
            server.stop_accepting()
            await server.end_connections()
            tasks.cancel_scope.cancel()


@contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        yield listening


def test_each_operation_has_a_line() -> None:
    assert set(LINES) == set(OPERATIONS)
    assert all(len(line.split()) == len(USERS) for *lines, _ in LINES.values() for line in lines)


@pytest.mark.parametrize("operation", LINES)
async def test_who_may(operation: str, room: Path, database: AccountDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    own, another, make = LINES[operation]
    found = {}
    async with asked(room, monkeypatch) as daemon:
        for user in USERS:
            for whose in ("own", "another's"):
                case = await daemon.case(operation, user, own=whose == "own")
                found[user, whose] = await daemon.ask(user, operation, make(case))
    expected = {
        (user, whose): outcome
        for whose, line in (("own", own), ("another's", another))
        for user, outcome in zip(USERS, line.split(), strict=True)
    }
    assert found == expected


@pytest.mark.parametrize("operation", [name for name, line in LINES.items() if line[1] == OTHERS_MODEL])
async def test_where_names_are_shared_a_writer_changes_the_models_of_all(
    operation: str, room: Path, database: AccountDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked(room, monkeypatch, replace(ACCESS, shared_names=True)) as daemon:
        for user, expected in (("write", "+"), ("read", "r"), ("none", "-")):
            case = await daemon.case(operation, user, own=False)
            assert await daemon.ask(user, operation, LINES[operation][2](case)) == expected


@pytest.mark.parametrize(("operation", "field"), [("model.add", "path"), ("model.pull", "ref")])
async def test_a_path_is_opened_for_the_daemons_user_and_root_alone(
    operation: str, field: str, room: Path, database: AccountDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked(room, monkeypatch) as daemon:
        found = []
        for user in USERS:
            case = await daemon.case("", user, own=True)
            found.append(await daemon.ask(user, operation, {field: case.file, "name": case.model}))
    assert found == BY_PATH.split()
