"""Frames of a conversation, for both sides of the state table."""

from __future__ import annotations

from typing import Any

import msgspec

from modelwire import limits, replies, requests
from modelwire.client import ClientConnection
from modelwire.errors import Cancelled
from modelwire.values import Counters, PeerView

HELLO = replies.Hello(
    protocol=replies.ProtocolRange(),
    server="modeld/0.1.0",
    instance="5d3f",
    store="/srv/models",
    max_request=limits.MAX_REQUEST,
    max_reply=limits.MAX_REPLY,
    capabilities=("core",),
    peer=PeerView(uid=1000, role="write"),
)


def frame(**fields: Any) -> bytes:
    return msgspec.json.encode(fields) + b"\n"


def allowed_before_the_end(request_id: str) -> list[replies.Reply]:
    return [
        replies.Accepted(id=request_id, job="j", position=0),
        replies.Progress.of(request_id, "j", Counters()),
        replies.Event(id=request_id, seq=1, time="t", event="job.done"),
        replies.Lagged(id=request_id, dropped=1, resume_from=2),
    ]


def terminals(request_id: str) -> list[replies.Reply]:
    return [
        replies.Result(id=request_id, value={"a": 1}),
        replies.Error.of(request_id, Cancelled("by the client")),
    ]


def client_with(*ids: str) -> ClientConnection:
    client = ClientConnection()
    for request_id in ids:
        client.request(requests.DaemonStatus(id=request_id))
    return client
