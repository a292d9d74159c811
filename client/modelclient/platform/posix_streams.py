"""A connected Unix socket as an anyio program uses it."""

from __future__ import annotations

import _socket
import socket
from collections.abc import Sequence

import anyio
from anyio.abc import UNIXSocketStream

from modelclient.platform.interface import Channel
from modelclient.platform.posix import send_files

_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)


class SocketStream:
    def __init__(self, raw: socket.socket, stream: UNIXSocketStream) -> None:
        self._raw = raw
        self._stream = stream

    def push(self, data: bytes, descriptors: Sequence[int] = ()) -> bytes:
        try:
            if descriptors:
                return send_files(self._raw, data, descriptors)
            return data[self._raw.send(data) :]
        except (BlockingIOError, InterruptedError):
            return data

    async def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        try:
            if descriptors:
                await self._stream.send_fds(data[:1], list(descriptors))
                data = data[1:]
            await self._stream.send(data)
        except _BROKEN as error:
            raise BrokenPipeError(str(error)) from None

    async def receive(self, size: int) -> bytes:
        try:
            return await self._stream.receive(size)
        except (anyio.EndOfStream, *_BROKEN, OSError):
            return b""

    async def aclose(self) -> None:
        await self._stream.aclose()


async def open_stream(channel: Channel) -> SocketStream:
    assert isinstance(channel, _socket.socket)
    raw = socket.socket(fileno=channel.detach())
    try:
        raw.setblocking(False)
        return SocketStream(raw, await UNIXSocketStream.from_socket(raw))
    except BaseException:  # a cancel too must not leak the socket
        raw.close()
        raise
