"""What the daemon can do, one module for each family of operations."""

from modeld.operations import configuring, daemon, events, integrity, jobs, models, naming, space
from modeld.operations import pull as pulling
from modeld.operations.calling import Call, Caller, Handlers
from modeld.operations.house import House


def all_handlers(house: House) -> Handlers:
    handlers = daemon.handlers(house) | models.handlers(house) | naming.handlers(house) | integrity.handlers(house)
    handlers |= configuring.handlers(house)
    return handlers | pulling.handlers(house) | space.handlers(house) | jobs.handlers(house) | events.handlers(house)


__all__ = ["Call", "Caller", "Handlers", "House", "all_handlers"]
