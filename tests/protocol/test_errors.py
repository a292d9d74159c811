"""Codes and classes, in both directions, with nothing lost on the way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelwire import errors, exits
from modelwire.errors import BY_CODE, Internal, NoSpace, QueueFull, WireError, from_code
from modelwire.replies import Error

PROTOCOL = """
invalid_request unsupported unknown_operation frame_too_large unauthorized not_found already_exists
invalid_name invalid_digest digest_mismatch corrupt permission_denied queue_full draining no_space
quota_exceeded source_unavailable source_not_found source_unauthorized offline
in_use cancelled timeout interrupted internal untrusted
"""


def over_the_wire(fault: WireError) -> WireError:
    frame = msgspec.json.encode(Error.of("1", fault))
    return msgspec.json.decode(frame, type=Error).to_exception()


def test_the_codes_are_those_of_the_protocol() -> None:
    assert len(BY_CODE) == 26
    assert set(BY_CODE) == set(PROTOCOL.split())


def test_each_code_has_one_class_and_each_class_one_code() -> None:
    assert len(set(BY_CODE.values())) == len(BY_CODE)
    assert all(cls.code == code for code, cls in BY_CODE.items())
    assert set(WireError.__subclasses__()) >= set(BY_CODE.values())


@pytest.mark.parametrize("code", BY_CODE)
def test_an_error_comes_back_as_its_class_with_all_it_said(code: str) -> None:
    details: dict[str, Any] = {"path": "/srv/größe", "needed": 2**62, "list": [1, None, {"a": True}]}
    sent = BY_CODE[code]("what, which, why", hint="do this", retryable=True, retry_after_ms=1500, details=details)
    received = over_the_wire(sent)
    assert type(received) is BY_CODE[code]
    assert str(received) == received.message == "what, which, why"
    assert received.hint == "do this"
    assert received.retryable is True
    assert received.retry_after_ms == 1500
    assert received.details == details


@pytest.mark.parametrize("code", BY_CODE)
def test_what_is_not_said_stays_unsaid(code: str) -> None:
    sent = BY_CODE[code]("why")
    assert sent.retryable is BY_CODE[code].retryable_by_default
    reply = msgspec.json.decode(msgspec.json.encode(Error.of(None, sent)))
    assert reply == {"type": "error", "code": code, "message": "why", "retryable": sent.retryable}
    received = over_the_wire(sent)
    assert (received.hint, received.retry_after_ms, received.details) == (None, None, {})


def test_the_sender_decides_whether_an_error_is_retryable() -> None:
    assert over_the_wire(NoSpace("full")).retryable is True
    assert over_the_wire(NoSpace("the file is larger than the disk", retryable=False)).retryable is False


def test_what_passes_by_itself_is_retryable_by_default() -> None:
    retryable = {code for code, cls in BY_CODE.items() if cls.retryable_by_default}
    assert retryable == {
        "queue_full", "draining", "no_space", "source_unavailable", "in_use", "timeout", "interrupted",
    }  # fmt: skip


def test_a_code_of_a_newer_daemon_is_internal_and_named() -> None:
    fault = from_code("out_of_ink", "the printer is empty", hint="buy ink", retryable=True, details={"colour": "cyan"})
    assert type(fault) is Internal
    assert "the printer is empty" in fault.message
    assert "'out_of_ink'" in fault.message
    assert (fault.hint, fault.retryable, fault.details) == ("buy ink", True, {"colour": "cyan"})


def test_details_are_the_errors_own() -> None:
    details = {"a": 1}
    fault = errors.NotFound("gone", details=details)
    details["a"] = 2
    assert fault.details == {"a": 1}


def test_one_base_catches_all_that_is_raised_on_purpose() -> None:
    own: list[type[errors.ModeldError]] = [
        errors.LocalError,
        errors.RemoteError,
        errors.NoDaemon,
        errors.ConnectionLost,
    ]
    for cls in [*own, *BY_CODE.values()]:
        raised = cls("why", hint="next")
        assert isinstance(raised, errors.ModeldError)
        assert (raised.message, raised.hint, str(raised)) == ("why", "next", "why")
    assert not issubclass(errors.LocalError, WireError)
    assert not issubclass(errors.RemoteError, WireError)


def test_every_code_has_an_exit_code_of_the_table() -> None:
    """A script branches on these; 0 would report success, and 130 and 141 are those of signals."""
    known = {value for name, value in vars(exits).items() if name.isupper()} - {0, exits.INTERRUPTED, exits.BROKEN_PIPE}
    assert {cls.exit_code for cls in BY_CODE.values()} <= known


def test_a_further_subclass_inherits_its_row() -> None:
    class Narrower(QueueFull):
        pass

    assert (Narrower.code, Narrower.exit_code, Narrower.retryable_by_default) == ("queue_full", exits.BUSY, True)
    assert BY_CODE["queue_full"] is QueueFull
