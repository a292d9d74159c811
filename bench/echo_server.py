"""The reference for an answer: a bare anyio server on a Unix socket that sends back a fixed line for each line."""

from __future__ import annotations

import sys
from contextlib import suppress

import anyio
from anyio.abc import SocketStream


async def main(path: str, reply: bytes) -> None:
    async def serve(stream: SocketStream) -> None:
        with suppress(anyio.BrokenResourceError):  # the load ends in the middle of its replies
            async with stream:
                async for data in stream:
                    if count := data.count(b"\n"):
                        await stream.send(reply * count)

    listener = await anyio.create_unix_listener(path)
    print("READY", flush=True)
    await listener.serve(serve)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2].encode() + b"\n")
