"""Each system call with which a daemon publishes, renames or removes fails once, as a dying or a full disk fails.

Whatever fails: success or an error of the wire, every name that is there is whole, no temporary is left, no restart is
needed, and the same request succeeds afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from end_to_end.test_names_killed import whole_names
from modelwire.errors import BY_CODE
from rigs.real_daemon import RealDaemon
from rigs.rough_peers import staging
from rigs.traced_daemon import failing_at, strace

__all__ = ["strace"]

pytestmark = pytest.mark.usefixtures("strace")

LONGEST = 40
MEANINGS = {"EIO": {"internal"}, "ENOSPC": {"no_space"}, "EDQUOT": {"quota_exceeded"}, "EROFS": {"permission_denied"}}


@dataclass(frozen=True)
class Verb:
    op: str
    fields: Callable[[RealDaemon, str], dict[str, Any]]
    before: Callable[[str], list[str]]
    after: Callable[[str], list[str]]
    between: Callable[[str], list[list[str]]]
    """By a number that each round has for itself."""
    calls: tuple[str, ...]


def _source(daemon: RealDaemon, number: str) -> str:
    return daemon.file(f"{number}.gguf", b"GGUF" + number.encode() * 100)


def _pair(_daemon: RealDaemon, number: str) -> dict[str, Any]:
    return {"source": f"a{number}", "destination": f"b{number}"}


VERBS = {
    "add": Verb(
        "model.add",
        lambda daemon, number: {"path": _source(daemon, number), "name": f"a{number}"},
        lambda _: [],
        lambda number: [f"a{number}"],
        lambda number: [[], [f"a{number}"]],
        ("pwritev2", "fchmod", "fsync", "renameat2", "mkdir", "fdatasync", "pwrite64"),
    ),
    "cp": Verb(
        "model.copy",
        _pair,
        lambda number: [f"a{number}"],
        lambda number: [f"a{number}", f"b{number}"],
        lambda number: [[f"a{number}"], [f"a{number}", f"b{number}"]],
        ("pwritev2", "fchmod", "fsync", "renameat2", "fdatasync", "pwrite64"),
    ),
    "mv": Verb(
        "model.move",
        _pair,
        lambda number: [f"a{number}"],
        lambda number: [f"b{number}"],
        lambda number: [[f"a{number}"], [f"b{number}"], [f"a{number}", f"b{number}"]],
        ("pwritev2", "fchmod", "fsync", "renameat2", "unlink", "fdatasync", "pwrite64"),
    ),
    "rm": Verb(
        "model.remove",
        lambda _, number: {"name": f"a{number}"},
        lambda number: [f"a{number}"],
        lambda _: [],
        lambda number: [[f"a{number}"], []],
        ("unlink", "fsync", "fdatasync", "pwrite64"),
    ),
}
OF_THE_LEDGER = ("fdatasync", "pwrite64")
"""Calls that the catalogue makes: what they come to is not the store's to tell."""

SWEPT = [(name, call) for name, verb in VERBS.items() for call in verb.calls]


@pytest.mark.parametrize(
    "code", ["EIO", *(pytest.param(code, marks=pytest.mark.torture) for code in ("ENOSPC", "EDQUOT", "EROFS"))]
)
@pytest.mark.parametrize(("name", "call"), SWEPT)
def test_whatever_fails_every_name_is_whole_and_the_next_try_succeeds(
    daemon: RealDaemon, name: str, call: str, code: str
) -> None:
    verb = VERBS[name]
    failures = 0
    for nth in range(1, LONGEST):
        number = f"{nth:02d}"
        for model in verb.before(number):
            added = daemon.ask("model.add", path=_source(daemon, number), name=model)
            assert added["type"] == "result"
        fields = verb.fields(daemon, number)
        descriptors = daemon.descriptors()
        with failing_at(daemon, call, nth, code) as trace:
            reply = daemon.ask(verb.op, **fields)
        names = whole_names(daemon)
        assert names in verb.between(number), (nth, reply)
        assert staging(daemon) == [], (nth, reply)
        assert daemon.descriptors() <= descriptors + 1, (nth, reply)
        if reply["type"] == "error":
            failures += 1
            assert trace.failed, reply
            assert reply["code"] in (MEANINGS[code] if call not in OF_THE_LEDGER else BY_CODE), (nth, reply)
            assert reply["hint"]
            again = daemon.ask(verb.op, **fields)
            assert again["type"] == "result", (nth, reply, again)
        assert whole_names(daemon) == verb.after(number), (nth, reply)
        assert staging(daemon) == []
        if not trace.failed:
            assert nth > 1, f"{call} was never made"
            assert failures or call in OF_THE_LEDGER, f"{call} failed, and nobody was told"
            return
        for model in whole_names(daemon):
            assert daemon.ask("model.remove", name=model)["type"] == "result"
        assert os.listdir(os.path.join(daemon.root, "manifests")) == []
    pytest.fail("the sweep has no end")
