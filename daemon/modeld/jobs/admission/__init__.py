"""Who may run, who waits and at which place: decided synchronously, told as the I/O that is owed."""

from __future__ import annotations

from modeld.jobs.admission.gate import Gate
from modeld.jobs.admission.limits import Limits
from modeld.jobs.admission.ticket import KindSnapshot, Owed, Snapshot, Standing, Ticket

__all__ = ["Gate", "KindSnapshot", "Limits", "Owed", "Snapshot", "Standing", "Ticket"]
