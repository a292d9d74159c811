"""What an strace log (`-f -y`) says against the order of a publication: sync the file, name it, sync the directories,
the manifest after the blob, and only then the reply."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from modeld.store.disk.layout import Layout

TRACED = (
    "trace=openat,fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat,unlink,unlinkat"
    ",sendto,sendmsg,write,writev"
)

_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += \d+(?:<.*>)?$")
_UNFINISHED = re.compile(r"^(\d+) +(.*?) *<unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_PATH_OF_DESCRIPTOR = re.compile(r"^\d+<(.*)>$")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_CUT = re.compile(r"(?: *<(?:unfinished|detached) \.\.\.>|\) += -?\d+.*)$")
SUCCESS = r"{\"type\":\"result\""
_MARK = "the mark"
_NAMING = ("renameat2", "rename", "renameat", "link", "linkat")
_SENDING = ("sendto", "sendmsg", "write", "writev")


def finished_calls(log: str) -> Iterator[str]:
    """One line for each call, where it ended: strace splits those that other threads interrupt. A reply counts from
    its beginning: the peer may have it, and end the trace, before the call returns."""
    begun: dict[str, str] = {}
    for line in log.splitlines():
        if SUCCESS in line:
            yield f"{_CUT.sub('', line)}) = 0"
        elif (split := _UNFINISHED.match(line)) is not None:
            begun[split[1]] = split[2]
        elif (resumed := _RESUMED.match(line)) is not None:
            if resumed[1] in begun:
                yield f"{resumed[1]} {begun.pop(resumed[1])}{resumed[2]}"
        else:
            yield line


@dataclass
class _Order:
    layout: Layout
    adopted: str | None = None
    synced: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    all_synced: int = 0
    owed: dict[str, dict[str, int]] = field(default_factory=dict)
    """By what was done: the directories that have to be synced after it."""
    changes: int = 0
    replies: int = 0
    faults: list[str] = field(default_factory=list)

    def sync(self, path: str, number: int) -> None:
        self.synced[path] = number

    def named(self, source: str, target: str, number: int) -> None:
        self.changes += 1
        if self.adopted is not None and os.path.basename(source).startswith("adopted-"):
            source = self.adopted
        if max(self.all_synced, self.synced.get(source, 0)) <= self.made.get(source, 0):
            self.faults.append(f"{target} got its name before its bytes were synced")
        if target.startswith(self.layout.manifests_dir):
            self._settle(f"the manifest {target} got its name")
            self.owed[f"{target} got its name"] = {self.layout.manifests_dir: number}
            return
        if target.startswith(self.layout.linked):
            self.owed[f"{_MARK} {target} got its name"] = {self.layout.linked: number, self.layout.private: number}
            return
        # After a crash nobody may take a file that is linked from elsewhere for the store's alone.
        self._settle(f"the blob {target} got its name", only=_MARK)
        directories = {}
        directory = os.path.dirname(target)
        while len(directory) >= len(self.layout.blobs_dir):
            directories[directory] = number
            directory = os.path.dirname(directory)
        self.owed[f"{target} got its name"] = directories

    def removed(self, path: str, number: int) -> None:
        self.changes += 1
        self._settle(f"{path} was removed")
        self.owed[f"{path} was removed"] = {os.path.dirname(path): number}

    def replied(self) -> None:
        self.replies += 1
        self._settle("the reply")

    def _settle(self, before: str, only: str = "") -> None:
        """Nothing of this kind may be owed any more when this comes."""
        for change in [change for change in self.owed if change.startswith(only)]:
            directories = self.owed.pop(change)
            for directory, number in directories.items():
                if max(self.all_synced, self.synced.get(directory, 0)) < number:
                    self.faults.append(f"{directory} was not synced after {change} and before {before}")


def order_faults(log: str, layout: Layout, *, replies: int = 0, adopted: str | None = None) -> list[str]:
    """`replies`: how many successes are told in it; without any, its end stands for one. `adopted`: the file that
    became a blob itself: it is synced under its own name."""
    order = _Order(layout, adopted)
    for number, line in enumerate(finished_calls(log), 1):
        if (match := _CALL.match(line)) is None:
            continue
        call, arguments = match.groups()
        if call in ("fsync", "fdatasync") and (path := _PATH_OF_DESCRIPTOR.match(arguments)):
            order.sync(path[1], number)
        elif call == "openat" and "O_CREAT" in arguments:
            order.made[_QUOTED.findall(arguments)[0]] = number
        elif call == "syncfs":
            order.all_synced = number
        elif call in _NAMING:
            source, target = _QUOTED.findall(arguments)
            if target.startswith((layout.blobs_dir, layout.manifests_dir, layout.linked)):
                order.named(source, target, number)
        elif call in ("unlink", "unlinkat"):
            (path_gone,) = _QUOTED.findall(arguments)
            if path_gone.startswith(layout.manifests_dir):
                order.removed(path_gone, number)
        elif call in _SENDING and SUCCESS in arguments:
            order.replied()
    if not replies:
        order.replied()
        replies = 1
    if order.replies != replies:
        order.faults.append(f"{order.replies} replies were sent, not {replies}")
    if not order.changes:
        order.faults.append("nothing changed")
    return order.faults


def without_syncs_of(log: str, path: str) -> str:
    """As it would be if the daemon never synced this file or directory."""
    return "\n".join(
        line for line in finished_calls(log) if not (re.search(r"\bf(data)?sync\(", line) and f"<{path}>)" in line)
    )


def synced_paths(log: str) -> set[str]:
    found = (re.search(r"\bf(?:data)?sync\(\d+<(.*)>\)", line) for line in finished_calls(log))
    return {match[1] for match in found if match}
