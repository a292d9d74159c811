"""Who may run, who waits and where in the line: decided synchronously, told as the I/O that is owed."""

from __future__ import annotations

from modeld.admission.gate import Gate
from modeld.admission.limits import Limits
from modeld.admission.ticket import KindSnapshot, Owed, Snapshot, Standing, Ticket

__all__ = ["Gate", "KindSnapshot", "Limits", "Owed", "Snapshot", "Standing", "Ticket"]
