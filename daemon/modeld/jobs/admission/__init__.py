"""Decides which jobs run, which wait and at which place. Pure state: the caller carries out what it returns."""

from __future__ import annotations

from modeld.jobs.admission.gate import Gate
from modeld.jobs.admission.limits import Limits
from modeld.jobs.admission.ticket import KindSnapshot, Owed, Snapshot, Standing, Ticket

__all__ = ["Gate", "KindSnapshot", "Limits", "Owed", "Snapshot", "Standing", "Ticket"]
