"""The durable log of events, and its bounded fan-out to watchers."""

from __future__ import annotations

from modeld.activity.activity import EVERYTHING, Activity
from modeld.activity.fanout import Item, Watcher
from modeld.activity.record import Filter, Lagged, Latest, Recorded
from modeld.activity.subscription import Subscription

__all__ = ["EVERYTHING", "Activity", "Filter", "Item", "Lagged", "Latest", "Recorded", "Subscription", "Watcher"]
