"""A host that allows only so many connections: each file that is fetched from it has at least one of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace

from daemon.conftest import MakeRig
from modeld.download.routes.hosts import Hosts
from modeld.download.source import FileInfo
from modeld.download.tuning import MIB
from modeld.progress import Stopped
from rigs.chaos_server import Chaos
from rigs.download_rig import SIZE, Rig, content_of, leave, quick
from rigs.waiting import wait_until
from rigs.watcher import Watcher

MOST = 6


def begin(rig: Rig, file: FileInfo, watcher: Watcher) -> threading.Thread:
    def fetch() -> None:
        with contextlib.suppress(Stopped):
            leave(rig.fetch(file, watcher=watcher))

    thread = threading.Thread(target=fetch)
    thread.start()
    return thread


def test_who_comes_when_all_connections_are_taken_gets_one_of_them(make_rig: MakeRig) -> None:
    rig = make_rig(replace(quick(4), connections_per_host=MOST))
    most_open = [0]

    def seen(condition: Callable[[], bool]) -> Callable[[], bool]:
        def look() -> bool:
            most_open[0] = max([most_open[0], *rig.transfer.hosts.open_connections().values()])
            return condition()

        return look

    with Chaos(content_of(), rate=MIB // 4) as chaos:
        watchers, threads = [Watcher(), Watcher(), Watcher()], []
        for number, watcher in enumerate(watchers):
            file = replace(rig.info(chaos.url), locator=f"{chaos.url}/{number}", size=SIZE, validator=chaos.etag)
            threads.append(begin(rig, file, watcher))
            if number < 2:
                taken = min(MOST, 4 * (number + 1))
                wait_until(lambda: sum(rig.transfer.hosts.open_connections().values()) == taken, 10, f"{taken} taken")  # noqa: B023
        wait_until(seen(lambda: watchers[2].done > 0), 10, "a byte of the third")
        assert watchers[0].done < SIZE, "not because another was ready"
        assert watchers[1].done < SIZE
        for watcher in watchers:
            watcher._stop_after = 0
        for thread in threads:
            thread.join(20)
    assert most_open[0] == MOST


def test_a_place_is_given_up_once_for_each_who_waits() -> None:
    hosts = Hosts(2)
    assert not hosts.give_up("h")
    assert hosts.take("h")
    assert hosts.take("h")
    hosts.join_queue("h")
    assert [hosts.give_up("h"), hosts.give_up("h")] == [True, False]
    hosts.release("h")
    assert not hosts.take("h"), "who is in line comes first"
    assert hosts.take("h", queued=True)
    hosts.leave_queue("h")
    assert not hosts.give_up("h")
    hosts.release("h")
    assert hosts.take("h")
