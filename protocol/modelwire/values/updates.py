"""What update commands have made of this machine."""

from __future__ import annotations

from typing import Literal

from modelwire.values.fit import FitLine
from modelwire.values.jobs import Failure
from modelwire.values.value import Value

UpdateOutcome = Literal["applied", "not_targeted", "does_not_fit", "rolled_back", "failed"]


class Updated(Value, frozen=True, kw_only=True):
    """The outcome of a command on the machine `node`, which does not change when the command comes again.

    `name` is the name that the command moves, `version` the one that its version of the model has for good. `blob` is
    what `name` stands for with this outcome. `loaded` is true when an engine has taken a lease of the new version, and
    left out when none was asked; while an engine is asked, the job has it as false. `lines` are the requirements that
    the machine does not meet, `error` is what failed before a rollback.
    """

    command_id: str
    outcome: UpdateOutcome
    node: str
    name: str
    version: str
    at: str
    blob: str | None = None
    rollback: str | None = None
    loaded: bool | None = None
    lines: tuple[FitLine, ...] = ()
    error: Failure | None = None
    job: str | None = None
    repeated: bool = False
    """Whether the command had this outcome before, and nothing was done now."""


class PendingUpdate(Value, frozen=True, kw_only=True):
    """A command that waits or is being carried out."""

    command_id: str
    name: str
    version: str
    job: str


class Updates(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The commands of this machine, which commands name by its id or a label. The newest outcomes come first."""

    node: str
    labels: tuple[str, ...]
    pending: tuple[PendingUpdate, ...]
    updates: tuple[Updated, ...]
