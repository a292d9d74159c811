"""A client without access gets another error than one that finds no daemon."""

from __future__ import annotations

import _socket
import errno
from typing import Any

import pytest

from modelclient import dialing
from modelclient.locate import Endpoint
from modelwire import exits
from modelwire.errors import NoDaemon


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, exits.PERMISSION), (errno.EPERM, exits.PERMISSION), (errno.EIO, 9)]
)
def test_a_refused_permission_ends_as_one(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """Root, as which a suite may run, is refused by no socket."""

    class Refusing(_socket.socket):
        def connect(self, _address: Any) -> None:
            raise OSError(number, "refused")

    monkeypatch.setattr(_socket, "socket", Refusing)
    with pytest.raises(NoDaemon, match=r"/nowhere/modeld\.sock does not answer: refused") as caught:
        dialing.dial(Endpoint("/nowhere/modeld.sock"))
    assert caught.value.exit_code == code
    assert caught.value.hint
