"""The waiting tickets of one kind of work, and the order in which they will start.

Four rules, in this sequence:
0. Peers that have their share of the running slots go behind all others.
1. The effective priority decides: the requested one, raised by one level for every `ageing` seconds of waiting.
2. Within a level, the peer that was served longest ago goes first. A peer that has no ticket waiting is forgotten, and
   joins as if served just now: otherwise a stream of new peers, never served before, would pass all that wait.
3. Within a level and a peer, first come, first served.

No ticket starves. Those of a peer that has its share wait for its own jobs to end, or for all others. After at most
4 x `ageing` any other is at the highest level; from then on only earlier tickets of its own peer, and for each of these
one of every other waiting peer, go first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from modeld.jobs.admission.ticket import Ticket
from modelwire.vocabulary import PRIORITY_HIGHEST


@dataclass(slots=True)
class Place:
    """One waiting ticket; `position` is the last that the caller got."""

    ticket: Ticket
    priority: int
    since: float
    position: int = 0


class WaitingQueue:
    """Places in order of arrival, and when each peer was served last, as a count and not as a time."""

    def __init__(self, ageing: float) -> None:
        self._ageing = ageing
        self._places: dict[str, Place] = {}
        self._served: dict[Hashable, int] = {}
        self._waiting_of: dict[Hashable, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._places

    def __getitem__(self, id_: str) -> Place:
        return self._places[id_]

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places.values())

    def change_ageing(self, ageing: float) -> None:
        self._ageing = ageing

    def join(self, place: Place) -> None:
        peer = place.ticket.peer
        self._places[place.ticket.id] = place
        if peer not in self._served:
            self._turn += 1
            self._served[peer] = self._turn
        self._waiting_of[peer] = self._waiting_of.get(peer, 0) + 1

    def leave(self, id_: str) -> Place:
        """Takes a ticket out that does not start: its peer keeps its turn while it has others waiting."""
        place = self._places.pop(id_)
        peer = place.ticket.peer
        self._waiting_of[peer] -= 1
        if not self._waiting_of[peer]:
            del self._waiting_of[peer], self._served[peer]
        return place

    def start(self, id_: str) -> Place:
        """Takes a ticket out that starts: its peer goes behind the other peers."""
        place = self.leave(id_)
        self.go_behind(place.ticket.peer)
        return place

    def go_behind(self, peer: Hashable) -> None:
        """Counts a peer that has tickets waiting as served just now."""
        if peer in self._served:
            self._turn += 1
            self._served[peer] = self._turn

    def effective(self, place: Place, now: float) -> int:
        risen = int(max(0.0, now - place.since) / self._ageing)
        return max(PRIORITY_HIGHEST, place.priority - risen)

    def ranked(self, now: float, served_enough: Collection[Hashable] = ()) -> list[Place]:
        """All places in the order in which they start, by simulating the starts: O(n log n). The peers in
        `served_enough` have their share of the slots now."""
        levels: dict[tuple[bool, int], dict[Hashable, deque[Place]]] = {}
        for place in self._places.values():
            level = (place.ticket.peer in served_enough, self.effective(place, now))
            queues = levels.setdefault(level, {})
            queues.setdefault(place.ticket.peer, deque()).append(place)
        served, turn = dict(self._served), self._turn
        ranking: list[Place] = []
        for key in sorted(levels):
            queues = levels[key]
            if len(queues) == 1:
                ((peer, queue),) = queues.items()
                ranking.extend(queue)
                turn += len(queue)
                served[peer] = turn
                continue
            # A turn belongs to one peer only, so the heap never compares peers, which may have no order.
            heap = [(served[peer], peer) for peer in queues]
            heapify(heap)
            while heap:
                peer = heap[0][1]
                queue = queues[peer]
                ranking.append(queue.popleft())
                turn += 1
                served[peer] = turn
                if queue:
                    heapreplace(heap, (turn, peer))
                else:
                    heappop(heap)
        return ranking

    def renumber(self, ranking: list[Place]) -> tuple[tuple[str, int], ...]:
        """Numbers the ranking from 1, and returns the tickets whose number has changed."""
        moves: list[tuple[str, int]] = []
        for position, place in enumerate(ranking, 1):
            if place.position != position:
                place.position = position
                moves.append((place.ticket.id, position))
        return tuple(moves)
