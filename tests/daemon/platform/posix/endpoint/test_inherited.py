"""Sockets of the service manager: served, never unlinked."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from modeld.platform.posix.endpoint import Endpoint, UnusableEndpoint
from rigs.listeners import connects, listening


def test_an_inherited_socket_is_served_and_never_unlinked(path: str, directory: str) -> None:
    with listening(path) as made_by_the_manager:
        endpoint = Endpoint.inherited(os.dup(made_by_the_manager.fileno()))
        assert endpoint.path == path
        assert endpoint.still_ours()
        assert endpoint.socket.getblocking() is False
        assert not endpoint.socket.get_inheritable()
        endpoint.close()
        assert connects(path)
        assert os.listdir(directory) == ["modeld.sock"]


def test_an_inherited_socket_whose_path_was_taken_away_is_noticed(path: str) -> None:
    with listening(path) as made_by_the_manager:
        endpoint = Endpoint.inherited(os.dup(made_by_the_manager.fileno()))
        os.unlink(path)
        assert not endpoint.still_ours()
        endpoint.close()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses exist on Linux only")
def test_an_inherited_abstract_socket_has_no_path_to_lose() -> None:
    with listening(f"\0modeld-test-{os.getpid()}") as made_by_the_manager:
        endpoint = Endpoint.inherited(os.dup(made_by_the_manager.fileno()))
        assert endpoint.path == ""
        assert endpoint.still_ours()
        endpoint.close()


def test_what_cannot_be_inherited(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(path)
        with pytest.raises(UnusableEndpoint, match="it does not listen"):
            Endpoint.inherited(os.dup(deaf.fileno()))
    with (
        socket.socket(socket.AF_INET) as network,
        pytest.raises(UnusableEndpoint, match="it is not a Unix stream socket"),
    ):
        Endpoint.inherited(os.dup(network.fileno()))
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(UnusableEndpoint, match=f"descriptor {reading} "):
        Endpoint.inherited(reading)
    os.close(reading)
