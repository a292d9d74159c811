"""The program of the child: `python -m modeld.download.xet.child`. It reads one order, writes frames, and exits.

It needs no orderly end: the daemon kills it when it needs no more bytes. It exits by itself when the daemon is gone,
whatever hf-xet is doing at that moment.
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
"""Parts of the range that are read at the same time. One stream over all of it gives its bytes in the blocks of the
storage, 64 MiB each, and holds several of them. Measured over 1 GiB in a local store: 1.6 s and
250 MiB this way, 4 to 7 s and 400 MiB in one stream, 800 to 1,200 MiB with hf-xet's own settings."""

QUICK_SECONDS: Final = 2.0
SLOW_SECONDS: Final = 8.0
"""The time that a part should take, so that the daemon can distinguish a slow network from a child that hangs."""

RETRIES: Final = 2
"""Those of hf-xet. More retries are up to the daemon, which also has another way to the bytes."""

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
    children.make_expendable()  # its memory holds the token, and its work can be repeated
    # The lifeline thread needs the interpreter lock; if hf-xet holds that, the kernel still ends the child.
    children.end_with_parent()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return  # the daemon ended before it had written the order
    threading.Thread(target=_exit_with_daemon, name="lifeline", daemon=True).start()
    output = Output(sys.stdout.fileno())
    order: Order = json.loads(line)
    with contextlib.suppress(BrokenPipeError):
        try:
            _send_range(order, output)
        except BrokenPipeError:
            raise
        except BaseException as fault:  # noqa: BLE001 - also what hf-xet's panics become
            output.send(FAULT, json.dumps(fault_of(fault, order["token"])).encode())
    # Without waiting for the background threads of hf-xet.
    os._exit(0)


def _send_range(order: Order, output: Output) -> None:
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
    """The range in parts, in file order. The first are small: the speed of the network is not known yet."""

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
        self.adapt(end - start, time.monotonic() - began)
        return blocks

    def adapt(self, size: int, seconds: float) -> None:
        """Sets the size of the next parts by how long this one took. From any of the threads that read."""
        if seconds < QUICK_SECONDS:
            self._size = min(LARGEST, max(self._size, 2 * size))
        elif seconds > SLOW_SECONDS:
            self._size = max(SMALLEST, min(self._size, size // 2))


def _reader(order: Order) -> Read:
    hf_xet: Any = import_module("hf_xet")  # imported here: a broken installation is reported as a fault like any other
    config = hf_xet.XetConfig()
    known = set(config.keys())
    wanted = {name: value for name, value in _settings(order).items() if name in known}
    session = hf_xet.XetSession(config.with_config(wanted))
    group = session.new_download_stream_group(
        endpoint=order["endpoint"],
        token=order["token"],
        # When it expires the store answers so, and the daemon gets another; a wrong clock must not matter.
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


def fault_of(fault: BaseException, token: str) -> Fault:
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


def _exit_with_daemon() -> None:
    while sys.stdin.buffer.read(1 << 10):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
