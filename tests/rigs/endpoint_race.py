"""A race for one endpoint, in a process of its own: `python endpoint_race.py DIRECTORY ROUNDS SEED`.

Apart from the suite because it forks, which a process with threads (pytest-xdist has some) had better not do.
Prints one JSON object: rounds by scenario, and every breach of the rule "exactly one owner".
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import sys
import traceback
from collections import Counter

from modeld.platform.posix.endpoint import AlreadyServing, Endpoint

RACERS = 8
SCENARIOS = ("absent", "stale", "live")


class Racer:
    """A child that waits for the start, tries once, and if it wins holds the endpoint until it is killed."""

    def __init__(self, path: str) -> None:
        start_read, self.start = os.pipe()
        self.verdicts, verdict_write = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(start_read)
            os.close(verdict_write)
            return
        try:
            os.close(self.start)
            os.read(start_read, 1)
            try:
                endpoint = Endpoint.acquire(path)
            except AlreadyServing:
                os.write(verdict_write, b"lost")
            else:
                os.write(verdict_write, b"won" if endpoint.still_ours() else b"not ours")
                signal.pause()
        except BaseException:
            os.write(verdict_write, traceback.format_exc().encode())
        finally:
            os._exit(0)

    def go(self) -> None:
        os.write(self.start, b"x")

    def verdict(self) -> str:
        return os.read(self.verdicts, 65536).decode()

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.start)
        os.close(self.verdicts)


def listener_pid(path: str) -> int | None:
    """Who answers there, by the kernel's word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        pid: int = struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid


def play(path: str, scenario: str, shuffle: random.Random) -> str | None:
    """One round; returns what was wrong with it."""
    if scenario == "absent":
        for leftover in (path, f"{path}.lock"):
            if os.path.lexists(leftover):
                os.unlink(leftover)
    elif scenario == "stale":  # a daemon that was killed
        before = Racer(path)
        before.go()
        first = before.verdict()
        before.end()
        if first != "won" or not os.path.lexists(path) or listener_pid(path) is not None:
            return f"no stale socket to start from: {first}"
    holder = None
    if scenario == "live":
        holder = Racer(path)
        holder.go()
        if (first := holder.verdict()) != "won":
            holder.end()
            return f"the first holder did not win: {first}"
    racers = [Racer(path) for _ in range(RACERS)]
    try:
        shuffle.shuffle(racers)
        for racer in racers:
            racer.go()
        verdicts = {racer.pid: racer.verdict() for racer in racers}
        counted = Counter(verdicts.values())
        expected = {"lost": RACERS} if holder else {"won": 1, "lost": RACERS - 1}
        if counted != expected:
            return f"{scenario}: {dict(counted)}"
        owner = holder.pid if holder else next(pid for pid, verdict in verdicts.items() if verdict == "won")
        if (answers := listener_pid(path)) != owner:
            return f"{scenario}: {owner} owns it, {answers} answers"
        if leftovers := [name for name in os.listdir(os.path.dirname(path)) if name.startswith(".modeld-")]:
            return f"{scenario}: left behind {leftovers}"
        return None
    finally:
        for racer in racers:
            racer.end()
        if holder:
            holder.end()


def main(directory: str, rounds: int, seed: int) -> None:
    shuffle = random.Random(seed)
    path = os.path.join(directory, "modeld.sock")
    played: Counter[str] = Counter()
    breaches = []
    for number in range(rounds):
        scenario = SCENARIOS[number % len(SCENARIOS)]
        played[scenario] += 1
        if breach := play(path, scenario, shuffle):
            breaches.append(breach)
    print(json.dumps({"played": played, "breaches": breaches}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
