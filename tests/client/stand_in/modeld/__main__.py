from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys

from msgspec.structs import replace

from rigs.scripted_peer import STATUS, ScriptedPeer


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--auto-started", action="store_true", required=True)
    flags = parser.parse_args()
    count = os.open(os.environ["STAND_IN_STARTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(count, f"{os.getpid()} {os.getsid(0)} {os.getcwd()}\n".encode())
    mode = os.environ.get("STAND_IN", "good")
    if mode == "dies":
        sys.stderr.write("something\nthe stars are wrong\n")
        return 3
    if mode == "hangs":
        signal.pause()
    if mode == "refuses":
        return tell(flags.ready_fd, "no right to the root", "permission_denied", 13)
    lock = os.open(flags.socket + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return tell(flags.ready_fd, "another one has it", "in_use", 5)
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps({"pid": os.getpid()}).encode(), 0)
    status = replace(STATUS, pid=os.getpid())
    with ScriptedPeer(flags.socket, lambda talk, request: talk.result(request, status)):
        os.write(flags.ready_fd, b"READY " + json.dumps({"socket": flags.socket, "pid": os.getpid()}).encode() + b"\n")
        os.close(flags.ready_fd)
        signal.pause()
    return 0


def tell(descriptor: int, message: str, code: str, exit_code: int) -> int:
    said = {"message": message, "hint": "chmod", "code": code, "exit": exit_code}
    os.write(descriptor, f"ERROR {json.dumps(said)}\n".encode())
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
