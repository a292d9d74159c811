"""The gate: admits, refuses, orders and starts jobs. Pure state, no I/O, the clock passed in.

Rules:
- A running slot that is free is never left empty while a ticket of its kind waits, unless one job is to be alone: then
  only tickets that had stepped aside get slots, because their work is not finished.
- While several peers wait, one that runs half of a kind's slots or more gets none that is free.
- A queue that is full for others admits a peer that has less than an equal part of its places: those that fill it
  keep nobody out. With as many peers as places none is admitted, so the queue has less than four times its places.
- A ticket is admitted once, is started once, and leaves by `finish` or `withdraw`. In between it may step aside: then
  it counts as waiting, until it has come back and has a slot again.
- A call returns what the caller has to do for other jobs because of it.

Ageing changes the order without a call. The next call that touches the kind returns such moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace
from types import MappingProxyType

from modeld.jobs.admission.limits import Limits
from modeld.jobs.admission.pace import Pace
from modeld.jobs.admission.ticket import NOTHING, Clock, KindSnapshot, Owed, Snapshot, Standing, Ticket
from modeld.jobs.admission.waiting_queue import Place, WaitingQueue
from modelwire.errors import QueueFull
from modelwire.vocabulary import clamp_priority


class Gate:
    """Not thread-safe: for the event loop's thread."""

    def __init__(self, limits: Limits, clock: Clock, *, first_order: int = 1) -> None:
        self._limits = limits
        self._clock = clock
        self._next_order = first_order
        self._queues: dict[str, WaitingQueue] = {}
        self._running: dict[str, dict[str, Ticket]] = {}
        self._aside: dict[str, Ticket] = {}
        """Started tickets without a slot."""

        self._kind_of: dict[str, str] = {}
        self._alone: str | None = None
        self._waiting = 0
        self._waiting_of: dict[Hashable, int] = {}
        self._pace = Pace()
        self.on_wait: Callable[[], None] = lambda: None
        """Called when one more ticket waits."""

    def __contains__(self, id_: str) -> bool:
        return id_ in self._kind_of

    def __len__(self) -> int:
        return len(self._kind_of)

    def holds_slot(self, id_: str) -> bool:
        """Whether the job has a running slot."""
        kind = self._kind_of.get(id_)
        return kind is not None and id_ in self._running[kind]

    def offer(self, ticket: Ticket) -> Standing:
        """Admits a job that is new, or that comes back after a pause, or raises `QueueFull`. Position 0 means that it
        holds a running slot already."""
        if not self._slot_free(ticket.kind):
            self._refuse_when_full(ticket.peer)
        return self._admit(ticket)

    def restore(self, ticket: Ticket) -> Standing:
        """Admits a job that an earlier run of the daemon had admitted. Never refuses it.

        The job goes to the end of its queue, so call this in admission order.
        """
        return self._admit(ticket)

    def finish(self, id_: str) -> Owed:
        """Removes a started job that has ended. A second call does nothing."""
        kind = self._kind_of.get(id_)
        if kind is None:
            return NOTHING
        if id_ not in self._running[kind] and id_ not in self._aside:
            raise ValueError(f"job {id_} waits: it cannot finish before it started")
        return self._remove(id_, kind)

    def withdraw(self, id_: str) -> Owed:
        """Removes a job, waiting or running: it was cancelled, paused, or never made durable."""
        kind = self._kind_of.get(id_)
        if kind is None:
            return NOTHING
        return self._remove(id_, kind)

    def is_aside(self, id_: str) -> bool:
        return id_ in self._aside

    def step_aside(self, id_: str) -> Owed:
        """Gives the slot of a running job to others, while it waits for something outside."""
        kind = self._kind_of[id_]
        ticket = self._aside[id_] = self._running[kind].pop(id_)
        self._count_waiting(ticket.peer, +1)
        return self._settle(kind)

    def come_back(self, id_: str) -> Owed:
        """Gives a job that has stepped aside a slot again, at once or when its turn comes: then it is in `starts`."""
        ticket = self._aside[id_]
        self._queues[ticket.kind].join(Place(ticket, clamp_priority(ticket.priority), self._clock()))
        return self._settle(ticket.kind)

    def leave_alone(self, id_: str) -> tuple[str, ...]:
        """Starts no job until `leave_together`. Returns the jobs that have started beside this one, with or without a
        slot: call it again to see which of them are left."""
        self._alone = id_
        return tuple(other for each in (*self._running.values(), self._aside) for other in each if other != id_)

    def leave_together(self) -> Owed:
        """Starts jobs again. A second call does nothing."""
        self._alone = None
        return self.set_limits(self._limits)

    def runs_beside(self, kind: str) -> bool:
        """Whether a job of another kind runs. For any thread."""
        return any(running for other, running in list(self._running.items()) if other != kind)

    def gives_way(self, id_: str) -> None:
        """Lets the peer of a running job that is to end for others not have its slot again before them."""
        kind = self._kind_of[id_]
        self._queues[kind].go_behind((self._running[kind].get(id_) or self._aside[id_]).peer)

    def above_share(self, kind: str, waited: float) -> tuple[str, ...]:
        """The running jobs, the latest started first, of peers that run more than half of the slots, while a peer that
        runs less has waited for that many seconds."""
        running, now = self._running[kind], self._clock()
        count = Counter(ticket.peer for ticket in running.values())
        share = self._share(kind)
        if not any(count[place.ticket.peer] < share and now - place.since >= waited for place in self._queues[kind]):
            return ()
        return tuple(id_ for id_, ticket in reversed(running.items()) if count[ticket.peer] > share)

    def shut_out(self, kind: str, waited: float) -> bool:
        """Whether a peer that runs no job of the kind has waited for that many seconds."""
        served, now = {ticket.peer for ticket in self._running[kind].values()}, self._clock()
        return any(place.ticket.peer not in served and now - place.since >= waited for place in self._queues[kind])

    def contended(self) -> set[str]:
        """The kinds of which jobs wait for a slot."""
        return {kind for kind, queue in self._queues.items() if queue}

    def prioritize(self, id_: str, priority: int) -> Owed:
        """Changes the requested priority; the time already waited keeps counting.

        Does nothing for a job that runs, or that is not at the gate: paused, ended, not yet resumed.
        """
        kind = self._kind_of.get(id_)
        if kind is None or id_ not in self._queues[kind]:
            return NOTHING
        queue = self._queues[kind]
        queue[id_].priority = clamp_priority(priority)
        return self._settle(kind)

    @property
    def limits(self) -> Limits:
        return self._limits

    def set_limits(self, limits: Limits) -> Owed:
        """Sets new limits. Running and waiting jobs stay; more slots start more jobs."""
        self._limits = limits
        starts: list[str] = []
        moves: list[tuple[str, int]] = []
        for kind, queue in self._queues.items():
            queue.change_ageing(limits.ageing)
            owed = self._settle(kind)
            starts.extend(owed.starts)
            moves.extend(owed.moves)
        return Owed(tuple(starts), tuple(moves))

    def snapshot(self) -> Snapshot:
        now = self._clock()
        kinds = {
            kind: KindSnapshot(
                limit=self._limits.running_of(kind),
                running=tuple(self._running[kind]),
                waiting=tuple(place.ticket.id for place in self._ranked(kind, now)),
            )
            for kind in self._queues
        }
        return Snapshot(
            running=sum(len(running) for running in self._running.values()),
            waiting=self._waiting,
            waiting_limit=self._limits.waiting_total,
            kinds=MappingProxyType(kinds),
        )

    def _share(self, kind: str) -> int:
        """Slots of one peer while others wait."""
        return max(1, self._limits.running_of(kind) // 2)

    def _ranked(self, kind: str, now: float) -> list[Place]:
        count = Counter(ticket.peer for ticket in self._running[kind].values())
        served_enough = {peer for peer, slots in count.items() if slots >= self._share(kind)}
        return self._queues[kind].ranked(now, served_enough)

    def _slot_free(self, kind: str) -> bool:
        return self._alone is None and len(self._running.get(kind, ())) < self._limits.running_of(kind)

    def _refuse_when_full(self, peer: Hashable) -> None:
        limits, mine = self._limits, self._waiting_of.get(peer, 0)
        peers = len(self._waiting_of.keys() | {peer})
        if self._waiting >= limits.waiting_total and mine >= limits.waiting_total // peers:
            message = f"{self._waiting} jobs are waiting already and the limit is {limits.waiting_total}"
            places = 1
        elif mine >= limits.waiting_per_peer:
            message = f"{mine} jobs of this user are waiting already, and waiting_per_peer is {limits.waiting_per_peer}"
            # Places become free for all peers in turn: one in as many as there are peers is this peer's.
            places = len(self._waiting_of)
        else:
            return
        raise QueueFull(
            message,
            hint="Wait for a job to end, or cancel one that is no longer wanted.",
            retry_after_ms=self._pace.retry_after_ms(self._clock(), places),
            details={
                "depth": self._waiting,
                "limit": limits.waiting_total,
                "peer_depth": mine,
                "peer_limit": limits.waiting_per_peer,
            },
        )

    def _admit(self, ticket: Ticket) -> Standing:
        if ticket.id in self._kind_of:
            raise ValueError(f"job {ticket.id} is at the gate already")
        if not ticket.order:
            ticket = replace(ticket, order=self._next_order)
        self._next_order = max(self._next_order, ticket.order + 1)
        kind = ticket.kind
        queue = self._queues.get(kind)
        if queue is None:
            queue = self._queues[kind] = WaitingQueue(self._limits.ageing)
            self._running[kind] = {}
        self._kind_of[ticket.id] = kind
        if self._slot_free(kind):
            # Free slots are filled at once, so no job of this kind waits here.
            self._running[kind][ticket.id] = ticket
            return Standing(0, ticket.order)
        now = self._clock()
        place = Place(ticket, clamp_priority(ticket.priority), now)
        queue.join(place)
        self._count_waiting(ticket.peer, +1)
        moves = queue.renumber(self._ranked(kind, now))
        return Standing(place.position, ticket.order, tuple(move for move in moves if move[0] != ticket.id))

    def _remove(self, id_: str, kind: str) -> Owed:
        del self._kind_of[id_]
        if self._running[kind].pop(id_, None) is None:
            waiting = self._aside.pop(id_, None)
            if id_ in self._queues[kind]:
                waiting = self._queues[kind].leave(id_).ticket
            if waiting is not None:
                self._count_waiting(waiting.peer, -1)
            self._pace.freed(self._clock())
        return self._settle(kind)

    def _settle(self, kind: str) -> Owed:
        """Fills the free slots of a kind from the head of its queue and numbers the rest."""
        queue = self._queues[kind]
        if not queue:
            return NOTHING
        now = self._clock()
        running = self._running[kind]
        ranking = self._ranked(kind, now)
        starting: list[str] = []
        while len(running) < self._limits.running_of(kind) and (first := self._first(ranking)) is not None:
            ranking.remove(first)
            ticket = first.ticket
            queue.start(ticket.id)
            running[ticket.id] = ticket
            self._aside.pop(ticket.id, None)
            self._count_waiting(ticket.peer, -1)
            self._pace.freed(now)
            starting.append(ticket.id)
            has_share = sum(other.peer == ticket.peer for other in running.values()) == self._share(kind)
            if has_share or self._alone is not None:  # which passes over others
                ranking = self._ranked(kind, now)
        return Owed(tuple(starting), queue.renumber(ranking))

    def _first(self, ranking: list[Place]) -> Place | None:
        """The one that starts next."""
        return next((place for place in ranking if self._alone is None or place.ticket.id in self._aside), None)

    def _count_waiting(self, peer: Hashable, change: int) -> None:
        self._waiting += change
        count = self._waiting_of.get(peer, 0) + change
        if count:
            self._waiting_of[peer] = count
        else:
            del self._waiting_of[peer]
        if change > 0:
            self.on_wait()
