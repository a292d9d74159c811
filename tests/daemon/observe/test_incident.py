"""What an error that nothing foresaw tells a client."""

from __future__ import annotations

import threading

import pytest

from modeld.observe.incident import incident
from modelwire.errors import Internal, QueueFull


def test_an_unforeseen_error_tells_its_number_and_no_more() -> None:
    fault = incident(ValueError("s3cret"), op="model.add")
    assert isinstance(fault, Internal)
    assert fault.details["incident"] in fault.message
    assert "s3cret" not in f"{fault.message} {fault.hint} {fault.details}"


def test_a_thread_that_the_system_refuses_is_a_limit_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "_start_new_thread", refuse)
    with pytest.raises(RuntimeError) as caught:
        threading.Thread(target=print).start()
    fault = incident(caught.value, op="model.list")
    assert isinstance(fault, QueueFull)
    assert fault.retryable
    assert "threads" in fault.message
    assert "TasksMax=" in str(fault.hint)
