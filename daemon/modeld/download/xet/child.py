"""The program of the child: `python -m modeld.download.xet.child`. Reads one order, writes frames, ends.

It holds nothing that is worth an orderly end: the daemon kills it when it wants no more. It ends by itself when the
daemon is gone, whatever hf-xet is doing at that moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from importlib import import_module
from typing import Any, Final

from modeld.download.xet.frames import DATA, END, FAULT, HEADER, LONGEST, Fault, Order
from modeld.platform import children

SMALLEST: Final = 1 << 20
LARGEST: Final = 8 << 20
AT_ONCE: Final = 8
"""Parts of the range that are read at the same time. One stream over all of it gives its bytes in the blocks that
they are stored in, 64 MiB, nothing in between, and holds several. Measured over 1 GiB in a local store: 1.6 s and
250 MiB this way, 4 to 7 s and 400 MiB in one stream, 800 to 1,200 MiB with hf-xet's own settings."""

QUICK_SECONDS: Final = 2.0
SLOW_SECONDS: Final = 8.0
"""Within what a part is to come, so that the daemon can tell a slow network from a child that hangs."""

RETRIES: Final = 2
"""Left to hf-xet. Patience beyond that is the daemon's, which also has another way to the bytes."""

Read = Callable[[int, int], list[bytes]]
_ADDRESS = re.compile(r"\S+://\S+")
_STATUS = re.compile(r"\((\d{3}) [A-Z]")


class Output:
    """Frames."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, kind: bytes, payload: bytes | memoryview = b"") -> None:
        self._write(memoryview(HEADER.pack(kind, len(payload))))
        self._write(memoryview(payload))

    def _write(self, view: memoryview) -> None:
        while view:
            view = view[os.write(self._descriptor, view) :]


def main() -> None:
    children.make_expendable()  # its memory holds the token, and its work can be had again
    # The lifeline needs the interpreter; should hf-xet ever hold that, the kernel ends the child all the same.
    children.end_with_parent()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return  # the daemon went before it had said what it wants
    threading.Thread(target=_wait_for_the_end, name="lifeline", daemon=True).start()
    output = Output(sys.stdout.fileno())
    order: Order = json.loads(line)
    with contextlib.suppress(BrokenPipeError):
        try:
            _give(order, output)
        except BrokenPipeError:
            raise
        except BaseException as fault:  # noqa: BLE001 - also what hf-xet's panics become
            output.send(FAULT, json.dumps(told(fault, order["token"])).encode())
    # What hf-xet still does in the background nobody waits for.
    os._exit(0)


def _give(order: Order, output: Output) -> None:
    os.environ.update(order["proxies"])
    read = _reader(order)
    windows = Windows(order["start"], order["end"])
    running: deque[Future[list[bytes]]] = deque()
    pool = ThreadPoolExecutor(AT_ONCE)
    while True:
        while len(running) < AT_ONCE and (window := windows.next()) is not None:
            running.append(pool.submit(windows.timed, read, *window))
        if not running:
            break
        for block in running.popleft().result():
            view = memoryview(block)
            for offset in range(0, len(view), LONGEST):
                output.send(DATA, view[offset : offset + LONGEST])
    output.send(END)


class Windows:
    """The range in parts, in file order. Small ones first: how fast the network is nobody knows yet."""

    def __init__(self, start: int, end: int) -> None:
        self._at, self._end = start, end
        self._size = SMALLEST

    def next(self) -> tuple[int, int] | None:
        if self._at >= self._end:
            return None
        start, self._at = self._at, min(self._at + self._size, self._end)
        return start, self._at

    def timed(self, read: Read, start: int, end: int) -> list[bytes]:
        began = time.monotonic()
        blocks = read(start, end)
        self.judge(end - start, time.monotonic() - began)
        return blocks

    def judge(self, size: int, seconds: float) -> None:
        """From any of the threads that read."""
        if seconds < QUICK_SECONDS:
            self._size = min(LARGEST, max(self._size, 2 * size))
        elif seconds > SLOW_SECONDS:
            self._size = max(SMALLEST, min(self._size, size // 2))


def _reader(order: Order) -> Read:
    hf_xet: Any = import_module("hf_xet")  # here: a broken installation is told as a fault like any other
    config = hf_xet.XetConfig()
    known = set(config.keys())
    wanted = {name: value for name, value in _settings(order).items() if name in known}
    session = hf_xet.XetSession(config.with_config(wanted))
    group = session.new_download_stream_group(
        endpoint=order["endpoint"],
        token=order["token"],
        # When it ends the store says so, and the daemon gets another; a clock that is wrong must not matter.
        token_expiry_unix_secs=1 << 40,
        custom_headers={"User-Agent": order["agent"]},
    )
    info = hf_xet.XetFileInfo(order["hash"], order["size"])
    return lambda start, end: list(group.download_stream(info, start=start, end=end))


def _settings(order: Order) -> dict[str, Any]:
    memory, stall = order["memory"], timedelta(seconds=order["stall_seconds"])
    return {
        "reconstruction.download_buffer_size": memory,
        "reconstruction.download_buffer_perfile_size": memory,
        "reconstruction.download_buffer_limit": memory,
        "reconstruction.min_prefetch_buffer": memory,
        "reconstruction.min_reconstruction_fetch_size": memory,
        "client.ac_max_download_concurrency": 2 * AT_ONCE,
        "client.connect_timeout": stall,
        "client.read_timeout": stall,
        "client.retry_max_attempts": RETRIES,
        "client.retry_base_delay": timedelta(seconds=0.5),
        "chunk_cache.size_bytes": 0,
        "telemetry.enabled": False,
    }


# -- faults


def told(fault: BaseException, token: str) -> Fault:
    """hf-xet's sentences quote addresses, and those may be signed."""
    text = _ADDRESS.sub("…", str(fault)).replace(token, "…") if token else _ADDRESS.sub("…", str(fault))
    found = _STATUS.search(text)
    status = int(found[1]) if found else None
    if status is None and (type(fault).__name__ == "XetAuthenticationError" or "Auth error" in text):
        status = 401
    unusable = isinstance(fault, ImportError | AttributeError | TypeError)
    message = f"{type(fault).__name__}: {text}"[:300]
    return {"kind": "unusable" if unusable else "failed", "status": status, "message": message}


# -- the end


def _wait_for_the_end() -> None:
    while sys.stdin.buffer.read(1 << 10):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
