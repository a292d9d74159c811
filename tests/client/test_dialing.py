"""Who is not let in is told apart from nobody being there."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from modelclient import dialing
from modelclient.ctl import exits
from modelclient.locate import Endpoint
from modelwire.errors import NoDaemon


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, exits.PERMISSION), (errno.EPERM, exits.PERMISSION), (errno.EIO, 9)]
)
def test_a_refused_permission_ends_as_one(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """Root, as which a suite may run, is refused by no socket."""

    class Refusing(socket.socket):
        def connect(self, _address: Any) -> None:
            raise OSError(number, "refused")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(NoDaemon, match=r"/nowhere/modeld\.sock does not answer: refused") as caught:
        dialing.dial(Endpoint("/nowhere/modeld.sock"))
    assert exits.exit_code(caught.value) == code
    assert caught.value.hint
