"""Runs the daemon and returns its exit code. A start that fails ends within a second, with one line that says why."""

from __future__ import annotations

import os
import uuid

import anyio
import structlog

from modeld.app.compose import opened
from modeld.app.event_loop import event_loop
from modeld.app.interpreter import share_time
from modeld.app.readiness import Readiness
from modeld.app.serve import serve
from modeld.config import ConfigError
from modeld.config.load import Loaded
from modeld.observe import logs
from modeld.observe.incident import incident
from modeld.observe.notify import inherited_socket
from modeld.observe.redact import redact
from modeld.platform import files, memory
from modeld.store.disk.durable import store_fault
from modelwire import exits
from modelwire.errors import InUse, ModeldError, NoSpace, PermissionDenied, QuotaExceeded, WireError

log = structlog.get_logger("modeld.app")

OWN_EXITS = (InUse, NoSpace, QuotaExceeded, PermissionDenied)
"""Errors of a start with an exit code of their own; every other one exits with `FAILED`."""


def run(loaded: Loaded, readiness: Readiness, *, auto_started: bool) -> int:
    output = logs.configure(loaded.settings.log, redact=redact)
    try:
        return _run(loaded, readiness, output, auto_started=auto_started)
    except Exception as error:  # noqa: BLE001 - every error of a start is reported in one line
        return _failed(readiness, error, output)
    finally:
        output.close()


def _run(loaded: Loaded, readiness: Readiness, output: logs.Output, *, auto_started: bool) -> int:
    memory.keep_heap_small()
    files.allow_as_many_as_possible()
    for warning in loaded.warnings:
        log.warning(warning)
    instance = str(uuid.uuid4())
    inherited = inherited_socket()
    with opened(loaded, os.environ, instance=instance, inherited=inherited) as rooms:
        pauses = share_time()
        return anyio.run(
            lambda: serve(rooms, loaded, readiness, output, pauses, instance=instance, auto_started=auto_started),
            backend="asyncio",
            backend_options={"loop_factory": event_loop},
        )


def _failed(readiness: Readiness, error: Exception, output: logs.Output) -> int:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ConfigError):
        return readiness.failed(error.message, hint=error.hint, code="invalid_request", exit_code=exits.USAGE)
    if isinstance(error, OSError) and error.filename is not None:
        error = store_fault(error, "use", os.fsdecode(error.filename))
    if not isinstance(error, ModeldError):
        error = incident(error)
    code = error.code if isinstance(error, WireError) else "internal"
    endpoint = error.details.get("endpoint") if isinstance(error, WireError) else None
    output.flush()  # the lines before the last one
    exit_code = error.exit_code if isinstance(error, OWN_EXITS) else exits.FAILED
    return readiness.failed(error.message, hint=error.hint, code=code, exit_code=exit_code, endpoint=endpoint)
