"""All operations of the daemon, and how the server finds the one for a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from modeld.jobs.job import Kind
from modeld.operations import (
    configure,
    daemon_describe,
    daemon_drain,
    daemon_status,
    events_subscribe,
    job_control,
    job_list,
    lease,
    model_add,
    model_copy,
    model_fit,
    model_list,
    model_move,
    model_pin,
    model_provision,
    model_pull,
    model_register,
    model_remove,
    model_repair,
    model_resolve,
    model_show,
    model_update,
    model_updates,
    model_verify,
    model_verify_signature,
    store_move,
    store_quarantine,
    store_scrub,
    store_sweep,
    store_usage,
)
from modeld.operations.operation import Call, Caller, Operation, QuickOperation, SlowOperation
from modeld.operations.services import Services
from modelwire.operations import OPERATIONS
from modelwire.requests import Request
from modelwire.values import Value

_ALL: tuple[type[Operation[Any, Any]], ...] = (
    daemon_status.ShowStatus,
    daemon_describe.Describe,
    daemon_drain.Drain,
    configure.ConfigureDaemon,
    model_add.Add,
    model_pull.Pull,
    model_provision.Provision,
    model_register.Register,
    model_update.UpdateModel,
    model_updates.ListUpdates,
    model_updates.Refuse,
    model_list.List,
    model_show.Show,
    model_fit.Fit,
    model_resolve.Resolve,
    lease.Acquire,
    lease.Release,
    model_copy.Copy,
    model_move.Move,
    model_remove.Remove,
    model_pin.Pin,
    model_pin.Unpin,
    model_verify.Verify,
    model_verify_signature.VerifySignature,
    model_repair.Repair,
    store_usage.ShowUsage,
    store_quarantine.ListQuarantine,
    store_sweep.Sweep,
    store_scrub.Scrub,
    store_move.MoveStore,
    job_list.List,
    job_list.Show,
    job_control.Attach,
    job_control.Cancel,
    job_control.Pause,
    job_control.Resume,
    job_control.Prioritize,
    configure.ConfigureJob,
    events_subscribe.Subscribe,
)

Answer = Callable[[Caller, Any], Value]
Run = Callable[[Call, Any], Awaitable[Value]]


class Operations:
    """The operations by the type of their request."""

    def __init__(self, operations: Iterable[Operation[Any, Any]]) -> None:
        """Raises RuntimeError unless they are those of the wire, with its types, and each once."""
        self.quick: dict[type[Request], Answer] = {}
        self.slow: dict[type[Request], Run] = {}
        known: dict[type[Request], type[Value]] = {}
        lookups = set()
        for operation in operations:
            if operation.request in known:
                raise RuntimeError(f"two operations for {operation.request.__name__}")
            known[operation.request] = operation.value
            if isinstance(operation, QuickOperation):
                self.quick[operation.request] = operation.answer
            if isinstance(operation, SlowOperation):
                self.slow[operation.request] = operation.serve
                if operation.is_lookup:
                    lookups.add(operation.request)
        self.lookups = frozenset(lookups)
        wire = {row.request: row.value for row in OPERATIONS.values() if row.kind != "connection"}
        if wrong := sorted(each.__name__ for each, _ in wire.items() ^ known.items()):
            raise RuntimeError(f"the wire and the daemon differ in their operations: {', '.join(wrong)}")


def all_operations(services: Services) -> Operations:
    """Makes every operation, and registers with the board the kinds of work that its ledger may hold."""
    made = [operation(services) for operation in _ALL]
    for operation in made:
        if isinstance(operation, Kind):
            services.board.register(operation)
    return Operations(made)
