"""The transfer as the rest of the daemon sees it: describe, then fetch; what is fetched waits to be committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.transfer.engine.assembly import Fetched, Ground
from modeld.transfer.engine.budget import Budget, Pace, Share
from modeld.transfer.engine.fetching import Fetching
from modeld.transfer.engine.progress import FileProgress, Progress, TransferObserver, Unfollowed
from modeld.transfer.routes.breaker import Breakers
from modeld.transfer.routes.condemned import Condemned
from modeld.transfer.routes.events import OnEvent, unheard
from modeld.transfer.routes.hosts import Hosts
from modeld.transfer.routes.outcomes import Net
from modeld.transfer.routes.router import Described, Route, Router
from modeld.transfer.source import FileInfo
from modeld.transfer.tuning import DEFAULT, Tuning

R = TypeVar("R")


class Transfer:
    """One for the daemon: budget, breakers and per-host limits are counted over all of its jobs."""

    def __init__(
        self,
        layout: Layout,
        space: Space,
        *,
        max_rate: int | None = None,
        keep_cache: bool = False,
        condemned: Condemned | None = None,
        tuning: Tuning = DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = Budget(max_rate)
        self.breakers = Breakers(clock, tuning.breaker_seconds)
        self.hosts = Hosts(tuning.connections_per_host)
        self.condemned = condemned or Condemned()
        self._tuning = tuning
        self._ground = Ground(layout=layout, space=space, tuning=tuning, keep_cache=keep_cache)
        self._net = Net(breakers=self.breakers, hosts=self.hosts, tuning=tuning, clock=clock)
        self._router = Router(self._net)
        self._running = 0

    # -- under the event loop

    async def describe(
        self, route: Route[R], *, observer: TransferObserver | None = None, on_event: OnEvent = unheard
    ) -> Described[R]:
        """What the reference means now. Cancelled at once: the thread that asks is left to itself."""
        stopped = (observer or Unfollowed()).stopped
        return await anyio.to_thread.run_sync(
            partial(self._router.describe, route, stopped=stopped, on_event=on_event),
            abandon_on_cancel=True,
            limiter=anyio.CapacityLimiter(1),
        )

    async def fetch(
        self,
        described: Described[R],
        files: Sequence[FileInfo],
        *,
        expected: Mapping[str, Digest] | None = None,
        observer: TransferObserver | None = None,
        share: Share | None = None,
        on_event: OnEvent = unheard,
    ) -> tuple[Fetched, ...]:
        """All of `files`, some at once, in their order. When one fails the others stop, and what is here stays for
        the next time. `expected` (by path) is stronger than what a source says.

        Ends by `observer.stopped()`, with Stopped; a cancelled scope does the same.
        """
        watched: TransferObserver = observer or Unfollowed()
        progress = Progress(watched, [file.size for file in files])
        paid = share or self.budget.share()
        done: dict[int, Fetched] = {}
        faults: list[Exception] = []
        limiter = anyio.CapacityLimiter(self._tuning.files_at_once)

        async def one(number: int, file: FileInfo) -> None:
            work = partial(
                self.fetch_file,
                described,
                file,
                expected=(expected or {}).get(file.path),
                pace=paid,
                progress=progress.file(number),
                on_event=on_event,
            )
            async with limiter:
                if faults:
                    return
                try:
                    done[number] = await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
                except Exception as fault:  # noqa: BLE001 - the first of them is raised below
                    faults.append(fault)
                    progress.quit()

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_quit_when_cancelled, progress)
                async with anyio.create_task_group() as files_group:
                    for number, file in enumerate(files):
                        files_group.start_soon(one, number, file)
                tasks.cancel_scope.cancel()
            await anyio.lowlevel.checkpoint_if_cancelled()
            if faults:
                raise faults[0]
        except BaseException:
            for fetched in done.values():
                fetched.keep()
            raise
        finally:
            self._ground.buffers.trim()
        return tuple(done[number] for number in range(len(files)))

    # -- in a byte thread

    def ask(
        self, route: Route[R], *, stopped: Callable[[], bool] = lambda: False, on_event: OnEvent = unheard
    ) -> Described[R]:
        """As `describe`, for a thread that its owner may leave to itself: a host that is silent blocks it for long."""
        return self._router.describe(route, stopped=stopped, on_event=on_event)

    def fetch_file(
        self,
        described: Described[R],
        file: FileInfo,
        *,
        expected: Digest | None = None,
        pace: Pace | None = None,
        progress: FileProgress | None = None,
        on_event: OnEvent = unheard,
    ) -> Fetched:
        """Blocks until the file is whole, verified and durable."""
        followed = progress or Progress(Unfollowed(), [file.size]).file(0)
        return Fetching(
            self._ground,
            self._net,
            self.condemned,
            described.offers(file.path, followed.stopped),
            alternatives=described.alternatives + 1,
            expected=expected,
            pace=pace or self.budget.share(),
            progress=followed,
            on_event=on_event,
        ).run()


async def _quit_when_cancelled(progress: Progress) -> None:
    """Threads cannot be cancelled; they look whether they are to go on."""
    try:
        await anyio.sleep_forever()
    finally:
        progress.quit()
