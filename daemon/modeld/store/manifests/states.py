"""The states of a model on this machine, and their transitions.

No state is stored. Other tools publish, remove and rewrite files of the store at any time, so each look decides from
the files on disk: `Entry.look` finds a condition, and `STATES` alone maps it to a state and an answer.

condition   found when                                                   state     its path
WHOLE       each blob is there, and none may have other bytes            ready     given out
CHANGED     a blob may have other bytes: its file is not as it was when  suspect   given out once it is verified
            its bytes were last found good (inode, size and both times),
            or it is not of the size that the manifest says and this
            run has not found it good
LACKING     a blob is missing, unreadable or no file                     failed    refused, with the reason
DAMAGED     the manifest cannot be read, or is of another version        none      refused, with the manifest's fault

A blob that no record says anything about is believed, as another tool has left it or as a store without its catalogue
has it: to read all bytes first would take hours. From its first look in a run on, a change of its file counts. What the
store itself does to the links of a blob, for trees and moves, is no change.

While the root of a store or of a site cannot be read, no look takes place: a list shows the models as they were last
seen, with the state unavailable, and the root's fault as the reason. Nothing is forgotten, and the next look that
succeeds finds what is there.

A damaged manifest is no model: a list names it apart, and only its removal or replacement changes that. A size in a
manifest is a hint, the digest decides: a blob of another size whose digest is proven is given out, and its model is
ready with the contradiction as the reason.

event                                            ready      suspect    failed
a blob is written to, by whichever name, or      suspect    suspect    failed
its file is touched or replaced
a blob disappears                                failed     failed     failed
a blob changes its size                          suspect    suspect    failed
verify finds all bytes good                      ready      ready      -
verify finds a corrupt blob, and sets it aside   failed     failed     -
verify finds a blob missing or unreadable        -          -          failed
a client asks for its path, and it is given out  ready      ready      -
its bytes are added or pulled again              ready      ready      ready
  of a linked blob: the mark stays               ready      suspect    suspect
its manifest is copied or moved: the new name is ready      suspect    failed; a copy is refused
its manifest is replaced by one of other bytes   ready      ready      ready
its manifest is removed, or damaged              no model   no model   no model

A state that a model has before its bytes are here, or while a client uses it, is one more condition: its row here, its
test in `Entry.look`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from modelwire.vocabulary import ModelState


class Condition(Enum):
    """What a look at a model finds."""

    WHOLE = auto()
    CHANGED = auto()
    LACKING = auto()
    DAMAGED = auto()


class Answer(Enum):
    """What a request for the path gets."""

    PATH = auto()
    VERIFY = auto()
    REFUSAL = auto()


@dataclass(frozen=True, slots=True)
class State:
    name: ModelState | None
    """The name that clients see; None when no list of models has the model."""
    answer: Answer


READY: Final[ModelState] = "ready"

STATES: Final[Mapping[Condition, State]] = {
    Condition.WHOLE: State(READY, Answer.PATH),
    Condition.CHANGED: State("suspect", Answer.VERIFY),
    Condition.LACKING: State("failed", Answer.REFUSAL),
    Condition.DAMAGED: State(None, Answer.REFUSAL),
}


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a model found. `reason` is empty when it is whole and the manifest contradicts nothing."""

    condition: Condition
    reason: str = ""

    @property
    def state(self) -> State:
        return STATES[self.condition]

    @property
    def has_bytes(self) -> bool:
        return self.state.answer is not Answer.REFUSAL


WHOLE: Final = Look(Condition.WHOLE)
