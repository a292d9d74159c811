"""The sources of a reference, in their order, each asked only while its breaker allows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from modeld.download.cancel_scope import CancelScope, Overdue
from modeld.download.routes.backoff import delay
from modeld.download.routes.events import EventKind, OnEvent, TransferEvent, unheard
from modeld.download.routes.outcomes import Network
from modeld.download.source import Description, FileInfo, Opener, Source, giver, giver_shown, kind_shown
from modeld.progress import Stopped
from modelwire.errors import Offline, SourceUnavailable, TimedOut, WireError

R = TypeVar("R")

DESCRIBE_TRIES = 3


@dataclass(frozen=True, slots=True)
class Route(Generic[R]):
    """Mirrors first, the origin last: its error is the one that is reported when all fail."""

    reference: R
    sources: Sequence[Source[R]]


@dataclass(frozen=True, slots=True)
class Offer:
    """One file as one source describes it."""

    opener: Opener
    file: FileInfo
    preferred: bool = False
    """Another way to the bytes at the same source: the source's own offer comes next."""

    @property
    def giver(self) -> str:
        return giver(self.opener, self.file)

    @property
    def shown(self) -> str:
        return giver_shown(self.giver)

    @property
    def partial_key(self) -> str | None:
        """Names the partial download of bytes whose digest is not known, where an earlier one can be resumed."""
        return None if self.file.validator is None else f"{self.giver}\0{self.file.locator}"


class Described(Generic[R]):
    """The description by the first source that answered; the others are asked only when they are needed."""

    def __init__(
        self, router: Router, route: Route[R], number: int, description: Description, on_event: OnEvent
    ) -> None:
        self.description = description
        self._router = router
        self._route = route
        self._number = number
        self._on_event = on_event
        self._lock = threading.Lock()
        self._others: dict[int, Description | None] = {}

    def offers(self, path: str, stopped: Callable[[], bool]) -> Iterator[Offer]:
        """The file at its sources, in the order in which to try them. Blocks while a source is asked."""
        first = _find(self.description, path)
        assert first is not None, path
        yield from _ways(self._route.sources[self._number], self.description, first)
        for number in range(self._number + 1, len(self._route.sources)):
            source = self._route.sources[number]
            description = self._describe(number, stopped)
            file = None if description is None else _find(description, path)
            if description is not None and file is not None:
                yield from _ways(source, description, file)
            elif description is not None:
                name = self._router.name_of(source, self._route.reference)
                self._router.tell(self._on_event, "source.skipped", path, name, "it does not have this file")

    def first_offer(self, path: str) -> Offer:
        return next(self.offers(path, lambda: True))

    @property
    def alternatives(self) -> int:
        return len(self._route.sources) - self._number - 1

    def _describe(self, number: int, stopped: Callable[[], bool]) -> Description | None:
        with self._lock:
            if number not in self._others:
                source = self._route.sources[number]
                try:
                    last = number + 1 == len(self._route.sources)
                    self._others[number] = self._router.ask(
                        source, self._route.reference, stopped, self._on_event, last=last
                    )
                except WireError as fault:
                    self._others[number] = None
                    name = self._router.name_of(source, self._route.reference)
                    self._router.tell(self._on_event, "source.skipped", "", name, fault.message)
            return self._others[number]


class Router:
    def __init__(self, network: Network) -> None:
        self._network = network

    def describe(
        self, route: Route[R], *, stopped: Callable[[], bool] = lambda: False, on_event: OnEvent = unheard
    ) -> Described[R]:
        """What the reference means now. A silent host blocks it for long, and the caller may abandon its thread. Raises
        the error of the last source when none answers; Stopped; Offline at once."""
        if not route.sources:
            raise SourceUnavailable("no source is configured for this reference", retryable=False)
        faults: list[tuple[str, WireError]] = []
        for number, source in enumerate(route.sources):
            last = number + 1 == len(route.sources)
            try:
                description = self.ask(source, route.reference, stopped, on_event, last=last)
            except Offline:
                raise
            except WireError as fault:
                faults.append((self.name_of(source, route.reference), fault))
                if not last:
                    self.tell(on_event, "source.failed", "", faults[-1][0], fault.message)
                continue
            return Described(self, route, number, description, on_event)
        final = faults[-1][1]
        if len(faults) > 1:
            final.details["tried"] = [{"source": name, "message": each.message} for name, each in faults]
        raise final

    def ask(
        self, source: Source[R], reference: R, stopped: Callable[[], bool], on_event: OnEvent, *, last: bool
    ) -> Description:
        """Asks one source. The last of a route is asked up to DESCRIBE_TRIES times when its error is worth a retry, and
        even while its breaker is open; of any other, the next source is the better second try."""
        origin = source.origin(reference)
        self._admit(origin, stopped, came=self._network.clock() if last else None)
        with CancelScope(self._network.tuning.describe_seconds) as scope:
            return self._tried(source, reference, stopped, on_event, scope, last=last)

    def _tried(
        self,
        source: Source[R],
        reference: R,
        stopped: Callable[[], bool],
        on_event: OnEvent,
        scope: CancelScope,
        *,
        last: bool,
    ) -> Description:
        breakers, origin = self._network.breakers, source.origin(reference)
        name = kind_shown(source, origin)
        probe, failures = not breakers.is_closed(origin), 0
        while True:
            try:
                if stopped():
                    raise Stopped
                description = _described(source, reference)
            except WireError as fault:
                failures += 1
                wait_s = delay(failures, fault, self._network.tuning)
                ends = not last or not fault.retryable or failures >= DESCRIBE_TRIES
                ends = ends or scope.until - time.monotonic() <= (wait_s or 0.0)
                if breakers.judge(origin, fault, last=ends or wait_s is None):
                    self.tell(
                        on_event, "source.breaker_opened", "", name, f"{origin} failed too often: {fault.message}"
                    )
                if ends or wait_s is None or not breakers.is_closed(origin):
                    raise
                probe = False
                self.tell(on_event, "transfer.retry", "", name, fault.message, attempt=failures, delay_s=wait_s)
                self._sleep(wait_s, stopped)
            except BaseException:
                if probe:
                    breakers.abandoned(origin)
                raise
            else:
                breakers.succeeded(origin)
                return description

    def _admit(self, origin: str | None, stopped: Callable[[], bool], *, came: float | None) -> None:
        """Returns when the source may be asked. Waits for a probe that is under way."""
        breakers = self._network.breakers
        while (admission := breakers.admit(origin, came)) != "yes":
            if stopped():
                raise Stopped
            if admission == "no":
                wait = breakers.wait(origin)
                raise SourceUnavailable(
                    f"{origin} failed too often and is left alone for {wait:.0f} s more",
                    hint="Try again then, or configure a mirror.",
                    retry_after_ms=round(wait * 1000),
                )
            self._sleep(self._network.tuning.poll_seconds, stopped)

    @staticmethod
    def name_of(source: Source[R], reference: R) -> str:
        return kind_shown(source, source.origin(reference))

    def _sleep(self, seconds: float, stopped: Callable[[], bool]) -> None:
        never = threading.Event()
        until = self._network.clock() + seconds
        while not stopped() and (left := until - self._network.clock()) > 0:
            never.wait(min(left, self._network.tuning.poll_seconds))

    @staticmethod
    def tell(
        on_event: OnEvent,
        kind: EventKind,
        file: str,
        source: str,
        reason: str,
        *,
        attempt: int = 1,
        delay_s: float = 0.0,
    ) -> None:
        on_event(
            TransferEvent(
                kind=kind, file=file, source=source, reason=reason, attempt=attempt, delay_s=round(delay_s, 3)
            )
        )


def _described(source: Source[R], reference: R) -> Description:
    try:
        return source.describe(reference)
    except Overdue as over:  # outside of a request: between two, or in a program that keeps passwords
        raise TimedOut(
            f"{source.name} has not described the reference within {over.seconds:g} s, the time that it has",
            hint="Try again later, or configure a mirror.",
        ) from None


def _ways(source: Opener, description: Description, file: FileInfo) -> Iterator[Offer]:
    if file.path in description.preferred:
        yield Offer(*description.preferred[file.path], preferred=True)
    yield Offer(source, file)


def _find(description: Description, path: str) -> FileInfo | None:
    return next((file for file in description.files if file.path == path), None)
