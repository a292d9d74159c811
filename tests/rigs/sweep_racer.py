"""A program that adds, pulls, copies, moves, removes, leases, pins and sweeps at once with others of its kind. It reads
each model that it was promised.

    python sweep_racer.py SOCKET SOURCES ADDRESS NUMBER SECONDS

Its names are its own, so it knows what each stands for; the contents are those of all, so that the others' sweeps look
at the very blobs that it is about to rely on. It prints what its names stand for in the end, and how often it did what.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from modelclient import Client
from modelwire.errors import InUse, QueueFull

Content = dict[str, str]
"""The digests of its files by their paths; of a single file by an empty path."""

NAMES = 5

DEEPEST = 3
"""Leases within leases."""


class Broken(AssertionError):
    """A promise was."""


def digests_at(path: Path) -> Content:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    found = {}
    for file in files:
        with file.open("rb") as opened:
            relative = "" if file == path else str(file.relative_to(path))
            found[relative] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


class Racer:
    def __init__(self, client: Client, sources: Path, address: str, number: int) -> None:
        self.client = client
        self.chance = random.Random(number)
        self.own = sources.parent / f"racer-{number}"
        self.own.mkdir()
        self.address = address
        self.items = {item: digests_at(item) for item in sorted(sources.iterdir())}
        self.stands: dict[str, Content | None] = {f"r{number}-{each}": None for each in range(NAMES)}
        self.pinned: set[str] = set()
        self.leased: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.actions: dict[Callable[[], None], int] = {
            self.add: 6,
            self.pull: 3,
            self.copy: 4,
            self.move: 2,
            self.remove: 6,
            self.lease: 4,
            self.pin: 1,
            self.unpin: 1,
            self.sweep: 6,
            self.read: 4,
        }

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.step()
        for name in self.stands:
            self.agree(name)

    def step(self) -> None:
        [action] = self.chance.choices([*self.actions], [*self.actions.values()])
        with suppress(QueueFull):
            action()
            self.counts[action.__name__] += 1

    def name(self, *, there: bool) -> str | None:
        """One of its names that stands for something, or for nothing; not one that it holds by a lease."""
        fit = [name for name, stands in self.stands.items() if (stands is not None) == there and not self.leased[name]]
        return self.chance.choice(fit) if fit else None

    def read(self) -> None:
        name = self.name(there=True)
        if name is not None:
            self.agree(name)

    def agree(self, name: str) -> None:
        expected = self.stands[name]
        if expected is not None:
            self.same(name, self.client.resolve(name).path, expected)

    def same(self, name: str, path: str, expected: Content) -> None:
        try:
            found = digests_at(Path(path))
        except OSError as fault:
            raise Broken(f"{name} is at {path}, which cannot be read: {fault}") from fault
        if found != expected:
            raise Broken(f"{name} at {path} is {found}, not {expected}")

    # -- what makes models

    def add(self) -> None:
        name = self.name(there=self.chance.random() < 0.3)
        if name is None:
            return
        item, move = self.chance.choice([*self.items]), self.chance.random() < 0.3
        path = item
        if move:
            path = self.own / item.name
            (shutil.copytree if item.is_dir() else shutil.copy)(item, path)
        self.client.add(str(path), name=name, replace=True, move=move).result()
        self.stands[name] = self.items[item]
        self.agree(name)

    def pull(self) -> None:
        name = self.name(there=False)
        if name is not None:
            item = self.chance.choice([item for item in self.items if item.is_file()])
            self.client.pull(f"{self.address}/{item.name}", name=name).result()
            self.stands[name] = self.items[item]
            self.agree(name)

    def copy(self) -> None:
        source, destination = self.name(there=True), self.name(there=False)
        if source is not None and destination is not None:
            self.client.copy(source, destination).result()
            self.stands[destination] = self.stands[source]
            self.agree(destination)

    def move(self) -> None:
        source, destination = self.name(there=True), self.name(there=False)
        if source is not None and destination is not None:
            self.client.move(source, destination).result()
            self.stands[destination], self.stands[source] = self.stands[source], None
            if source in self.pinned:
                self.pinned.remove(source)
                self.pinned.add(destination)
            self.agree(destination)

    # -- what keeps them

    def lease(self) -> None:
        """What is leased stays at its path without its name too, whatever happens meanwhile."""
        name = self.name(there=True)
        if name is None or self.leased.total() >= DEEPEST:
            return
        expected = self.stands[name]
        assert expected is not None
        self.leased[name] += 1
        try:
            with self.client.lease(name, purpose="a race") as lease:
                if self.chance.random() < 0.7:
                    self.refused(name)
                    self.client.remove(name, force=True, now=True).result()
                    self.stands[name] = None
                    self.pinned.discard(name)
                for _ in range(self.chance.randrange(1, 6)):
                    self.step()
                self.same(f"leased {name}", lease.path, expected)
        finally:
            self.leased[name] -= 1

    def refused(self, name: str) -> None:
        try:
            self.client.remove(name, now=True).result()
        except InUse:
            return
        raise Broken(f"{name} is held, and was removed")

    def pin(self) -> None:
        name = self.name(there=True)
        if name is not None:
            self.client.pin(name).result()
            self.pinned.add(name)

    def unpin(self) -> None:
        if self.pinned:
            name = self.chance.choice(sorted(self.pinned))
            self.client.unpin(name).result()
            self.pinned.discard(name)

    # -- what takes them away

    def remove(self) -> None:
        name = self.name(there=True)
        if name is None:
            return
        if name in self.pinned:
            self.refused(name)
            self.agree(name)
        self.client.remove(name, force=name in self.pinned, now=self.chance.random() < 0.5).result()
        self.stands[name] = None
        self.pinned.discard(name)

    def sweep(self) -> None:
        dry = self.chance.random() < 0.1
        self.counts["swept"] += self.client.sweep(grace=0.0, dry_run=dry).result().removed


def main(socket: str, sources: str, address: str, number: str, seconds: str) -> None:
    with Client(socket) as client:
        racer = Racer(client, Path(sources), address, int(number))
        racer.run(float(seconds))
        named = {name: stands for name, stands in racer.stands.items() if stands is not None}
        print(json.dumps({"stands": named, "counts": racer.counts}))


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    main(*sys.argv[1:])
