"""A daemon that is killed at each system call of an update: the name stands for the old version or the new one, and
the same command again ends with the new one, once."""

from __future__ import annotations

from typing import Any

import pytest

from end_to_end.test_names_killed import all_ended, whole_models
from rigs.real_daemon import RealDaemon
from rigs.real_jobs import staging
from rigs.rough_peers import SHORT
from rigs.traced_daemon import killed_at, strace
from rigs.update_commands import command, content, digits
from rigs.waiting import wait_until

__all__ = ["strace"]

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600), pytest.mark.usefixtures("strace")]

CALLS = ("renameat2", "fdatasync") if SHORT else ("renameat2", "fsync", "fdatasync", "unlink", "pwrite64", "pwritev2")
STRIDE = 4 if SHORT else 1
LONGEST = 60


def version(daemon: RealDaemon, number: int, **changes: Any) -> dict[str, Any]:
    path = daemon.file("m.gguf", content(f"{number}.0"))
    return command(f"{number}.0", changes, download_url=f"file:{path}")


def ask(daemon: RealDaemon, given: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return daemon.ask("model.update", command=given)
    except (EOFError, OSError):
        return None


def stands_for(daemon: RealDaemon) -> str:
    (digest,) = whole_models(daemon)["m-3b"]
    return digest


@pytest.mark.parametrize("call", CALLS)
def test_whenever_the_daemon_dies_the_name_stands_for_a_version(daemon: RealDaemon, call: str) -> None:
    first = daemon.ask("model.update", command=version(daemon, 0))
    assert first["value"]["outcome"] == "applied", first
    last = 0
    for nth in range(1, LONGEST, STRIDE):
        before, after = digits(f"{last}.0"), digits(f"{nth}.0")
        given = version(daemon, nth, rollback_model_id=f"m-3b-{last}_0-q4_k_m")
        last = nth
        with killed_at(daemon, call, nth) as trace:
            answer = ask(daemon, given)
        assert stands_for(daemon) in (before, after)
        if answer is not None:
            assert answer["value"]["outcome"] == "applied"
            assert stands_for(daemon) == after
        if not trace.killed:
            assert answer is not None
            assert nth > 1, f"{call} was never made"
            return
        daemon.start()
        assert stands_for(daemon) in (before, after)
        wait_until(lambda: all_ended(daemon), what="the end of all jobs")
        assert staging(daemon) == []
        again = daemon.ask("model.update", command=given)
        assert again["value"]["outcome"] == "applied", again
        assert stands_for(daemon) == after
        listed = daemon.ask("model.updates")["value"]
        assert [each["command_id"] for each in listed["updates"]].count(given["command_id"]) == 1
        assert listed["pending"] == []
    pytest.fail("the daemon dies each time")
