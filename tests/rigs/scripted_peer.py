"""A peer on a real socket that does what a test tells it: for the faults that no good daemon shows."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from modelwire import limits, operations, replies, requests, values
from modelwire.connection import ServerConnection
from modelwire.encoding import encode
from modelwire.errors import WireError
from modelwire.requests import Request

COUNTERS = values.Counters(phase="copy", bytes_done=5, bytes_total=10, rate_bps=1000, eta_s=0.5)
STATUS = values.Status(
    state="ready",
    server="modeld/9.9.9",
    instance="11111111-2222-3333-4444-555555555555",
    pid=os.getpid(),
    store="/srv/models",
    socket="/run/x.sock",
    started_at="2026-11-20T00:00:00Z",
    uptime_s=1.5,
    connections=1,
    watchers=0,
    models=2,
    queue=values.QueueView(),
    log=values.LogView(),
    recovery=values.RecoveryView(),
)
ADDED = values.Added(
    name="tiny", blob="sha256:" + "a" * 64, size_bytes=10, format="gguf", path="/srv/models/tiny", job="j1"
)
RESOLVED = values.Resolved(name="tiny", path="/srv/models/tiny", blob="sha256:" + "a" * 64, state="ready")
LEASED = values.Leased(
    lease="0123456789abcdef", name="tiny", path="/srv/models/tiny", blob="sha256:" + "a" * 64, state="loaded"
)
VIEW = values.ModelView(name="tiny", format="gguf", blob="sha256:" + "a" * 64, size_bytes=10, state="ready")
FIT = values.FitView(
    name="tiny", fits=True, requirements_from="defaults", machine=values.Machine(architecture="x86_64", ram_mb=16000)
)
JOB = values.JobView(
    id="j1", kind="model.add", state="done", priority=3, created_at="2026-11-20T00:00:00Z", model="tiny"
)


class Conversation:
    """One connection, as the script sees it."""

    def __init__(self, peer: ScriptedPeer, connection: socket.socket) -> None:
        self.peer = peer
        self.socket = connection
        self.wire = ServerConnection()

    def send(self, reply: replies.Reply) -> None:
        self.raw(self.wire.reply(reply))

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def result(self, request: Request, value: values.Value) -> None:
        self.send(replies.Result(id=request.id, value=value))

    def fail(self, request: Request, fault: WireError) -> None:
        self.send(replies.Error.of(request.id, fault))

    def accepted(self, request: Request, position: int = 0, *, joined: bool = False) -> None:
        self.send(replies.Accepted(id=request.id, job="j1", position=position, joined=joined))

    def progress(self, request: Request, **counters: Any) -> None:
        now = values.Counters(phase="copy", **counters) if counters else COUNTERS
        self.send(replies.Progress.of(request.id, "j1", now))

    def event(self, request: Request, seq: int, event: str = "model.published", **fields: Any) -> None:
        frame = encode(replies.Event(id=request.id, seq=seq, time="2026-11-20T00:00:00Z", event=event, **fields))
        self.raw(frame)

    def hang_up(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)


Script = Callable[[Conversation, Request], None]


class ScriptedPeer:
    """Listens when it is made, and calls the script for each request. `requests` has all that came, in order."""

    def __init__(self, path: str, script: Script, *, hello: bytes | None = None) -> None:
        self.path = path
        self.script = script
        self.requests: list[Request] = []
        self.faults: list[BaseException] = []
        self._hello = hello if hello is not None else encode(hello_of())
        self._ended = threading.Event()
        self._news = threading.Condition()
        self._open: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(path)
        self._listening.listen(64)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def saw(self, kind: type[Request], seconds: float = 10.0) -> Request:
        """Waits until a request of that kind has come."""

        def found() -> Request | None:
            return next((request for request in self.requests if isinstance(request, kind)), None)

        with self._news:
            assert self._news.wait_for(lambda: found() is not None, seconds), f"no {kind.__name__} came"
        request = found()
        assert request is not None
        return request

    def hang_up(self) -> None:
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def close(self) -> None:
        self._ended.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        for thread in self._threads:
            thread.join(10)
        self._listening.close()
        for connection in self._open:
            connection.close()
        os.unlink(self.path)

    def __enter__(self) -> ScriptedPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        assert self.faults == []

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        conversation = Conversation(self, connection)
        try:
            conversation.raw(self._hello)
            while data := connection.recv(65536):
                conversation.wire.feed(data)
                while (request := conversation.wire.next_request()) is not None:
                    with self._news:
                        self.requests.append(request)
                        self._news.notify_all()
                    self.script(conversation, request)
        except OSError:
            return  # the client has gone: what it makes of that is what the tests look at
        except BaseException as error:
            self.faults.append(error)
            conversation.hang_up()
            raise


def hello_of(**changes: Any) -> replies.Hello:
    fields: dict[str, Any] = {
        "protocol": replies.ProtocolRange(),
        "server": "modeld/9.9.9",
        "instance": STATUS.instance,
        "store": STATUS.store,
        "max_request": limits.MAX_REQUEST,
        "max_reply": limits.MAX_REPLY,
        "capabilities": operations.CAPABILITIES,
        "peer": values.PeerView(uid=os.getuid(), role="admin"),
    }
    return replies.Hello(**(fields | changes))


PULLED = values.Pulled(name="tiny", blob=ADDED.blob, size_bytes=3, format="gguf", path="/x", source="hf:org/repo")

COMMAND_ID = "1c9e1e2e-6f0f-4a30-8a59-0c6a3c1d2b4f"

UPDATED = values.Updated(
    command_id=COMMAND_ID,
    outcome="applied",
    node="tower",
    name="tiny",
    version="tiny-2_0-q4_k_m",
    at="2026-11-20T00:00:00.000Z",
    blob=VIEW.blob,
    loaded=True,
    job="j1",
)

VALUES: dict[type[Request], values.Value] = {
    requests.DaemonStatus: STATUS,
    requests.DaemonDescribe: values.Description(protocol=1, operations={}, schema={}),
    requests.DaemonDrain: values.Drained(running=1, waiting=2, deadline_s=3.0),
    requests.DaemonConfigure: values.Configured(settings={"max_rate": values.Change(new=1000)}),
    requests.ModelAdd: ADDED,
    requests.ModelRegister: values.Registered(name="tiny", model_id="tiny", changed=True),
    requests.ModelUpdate: UPDATED,
    requests.ModelUpdates: values.Updates(
        node="tower",
        labels=("lab",),
        pending=(values.PendingUpdate(command_id=COMMAND_ID, name="tiny", version="tiny-2_0-q4_k_m", job="j1"),),
        updates=(UPDATED,),
    ),
    requests.RefuseLoad: values.Done(target=COMMAND_ID, state="refused"),
    requests.ModelList: values.ModelList(models=(VIEW,)),
    requests.ModelShow: VIEW,
    requests.ModelFit: FIT,
    requests.ModelResolve: RESOLVED,
    requests.LeaseAcquire: LEASED,
    requests.ModelPin: values.Pinned(name="tiny", blob="sha256:" + "a" * 64, pinned=True, changed=True),
    requests.ModelUnpin: values.Pinned(name="tiny", blob="sha256:" + "a" * 64, pinned=False, changed=True),
    requests.LeaseRelease: values.Released(lease=LEASED.lease),
    requests.ModelCopy: values.Copied(name="b", source="tiny", blob=VIEW.blob, size_bytes=10),
    requests.ModelMove: values.Moved(name="b", source="tiny", blob=VIEW.blob, size_bytes=10),
    requests.ModelRemove: values.Removed(name="tiny", blob=VIEW.blob, size_bytes=10),
    requests.ModelPull: PULLED,
    requests.ModelProvision: values.Provisioned(
        id="hf:org/repo", local_path="/srv/models/tiny", digest=VIEW.blob, outcome="unchecked", name="tiny"
    ),
    requests.ModelVerify: values.Verification(checked=1),
    requests.ModelVerifySignature: values.SignatureVerified(
        name="tiny", blob="sha256:" + "a" * 64, signature="sha256:" + "b" * 64, by="key", signer="c" * 64, read=False
    ),
    requests.ModelRepair: values.Repaired(checked=1),
    requests.StoreUsage: values.Usage(logical_bytes=20, physical_bytes=10),
    requests.StoreQuarantine: values.QuarantineList(size_bytes=3),
    requests.StoreSweep: values.Swept(freed_bytes=3, kept=1),
    requests.StoreScrub: values.Scrubbed(checked=2, size_bytes=20),
    requests.StoreMove: values.Relocated(store="/models", path="/mnt/models", former="/models.old", models=2),
    requests.JobList: values.JobList(jobs=(JOB,)),
    requests.JobShow: JOB,
    requests.JobAttach: JOB,
    requests.JobCancel: JOB,
    requests.JobPause: JOB,
    requests.JobResume: JOB,
    requests.JobPrioritize: JOB,
    requests.JobConfigure: values.Configured(job="j1", lasts_until="end"),
    requests.EventsSubscribe: values.EventsEnd(last_seq=7, delivered=0),
}


def good(talk: Conversation, request: Request) -> None:
    talk.result(request, VALUES[type(request)])
