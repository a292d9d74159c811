"""Opens the rooms of the daemon, each after those that it needs, and closes them in reverse order.

The store's lock comes first: its holder is the only daemon of this store, whatever its endpoint. The endpoint comes
last, so that no client connects before recovery is complete.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from modeld import platform
from modeld.access.accounts import Accounts
from modeld.access.lending import Lending
from modeld.access.roles import Access
from modeld.activity import Activity
from modeld.app import root_user
from modeld.app.log_lock import sole_writer
from modeld.app.trust import trust_rules
from modeld.config import Settings
from modeld.config.load import Loaded
from modeld.config.places import log_directory
from modeld.jobs.ledger import Ledger
from modeld.machine.machine import ThisMachine
from modeld.pulls.context import PullContext
from modeld.store import Store, resolve_root
from modeld.store.catalog.catalog import Catalog
from modeld.store.disk.layout import Layout
from modeld.store.disk.reserve import Reserve
from modelwire.endpoint import SYSTEM_CONFIG, socket_path
from modelwire.errors import NoSpace, PermissionDenied
from modelwire.values import RecoveryView


@dataclass(frozen=True, slots=True)
class Rooms:
    """The open rooms: everything whose opening blocks."""

    store: Store
    catalog: Catalog
    ledger: Ledger
    activity: Activity
    endpoint: platform.endpoint.Endpoint
    warnings: tuple[str, ...]
    """What keeps users whom [access] names from the models, or a signature from being verified."""
    accounts: Accounts
    access: Access
    lending: Lending
    pulls: PullContext
    machine: ThisMachine
    recovery: RecoveryView


def endpoint_path(settings: Settings, environ: Mapping[str, str]) -> str:
    """Without MODELD_SOCKET: the settings hold it already, below the flags; `socket_path` would put it above them."""
    uid = os.getuid()
    rest = {name: value for name, value in environ.items() if name != "MODELD_SOCKET"}
    return socket_path(rest, settings.socket, uid, run_user_exists=os.path.isdir(f"/run/user/{uid}"))


def rights(loaded: Loaded) -> tuple[Accounts, Access, Lending]:
    """What the configuration grants. Blocks while the system looks up the users and groups that it names."""
    granted, accounts, own = loaded.settings.access, Accounts(), os.getuid()
    path, quotas = loaded.path or SYSTEM_CONFIG, loaded.settings.quota
    access = Access(granted.users, granted.groups, own, accounts, quotas=quotas, config_path=path)
    loans = ((loan.match, loan.users, loan.groups) for loan in granted.credentials)
    return accounts, access, Lending(loans, own, accounts)


@contextmanager
def opened(
    loaded: Loaded, environ: Mapping[str, str], *, instance: str, inherited: int | None = None
) -> Iterator[Rooms]:
    settings = loaded.settings
    root_user.refuse_others(settings, os.getuid())
    rules = trust_rules(settings.trust)
    path = endpoint_path(settings, environ)
    root = resolve_root(settings.models_home, environ, sys.platform)
    with ExitStack() as closing:
        layout, lock = Store.claim(root, settings.store, endpoint=path)
        closing.callback(lock.close)
        catalog = _open_catalog(layout)
        closing.callback(catalog.close)
        ledger = Ledger(catalog)
        store = Store.open(
            root,
            settings.store,
            catalog,
            lock=lock,
            byte_threads=settings.limits.running_bytes,
            scrub=settings.scrub,
            rules=rules,
        )
        pulls = PullContext(store, catalog, settings, environ)
        closing.callback(pulls.close)
        accounts, access, lending = rights(loaded)
        log = os.path.join(log_directory(settings, environ), "activity.ndjson")
        closing.enter_context(sole_writer(log, root))
        activity = Activity.open(
            log,
            max_bytes=settings.activity.max_bytes,
            generations=settings.activity.generations,
            watcher_queue=settings.limits.watcher_queue,
            user_of=access.user_of,
        )
        closing.callback(activity.close)
        if inherited is not None:
            endpoint = platform.endpoint.Endpoint.inherited(inherited)
        else:
            holder = {"instance": instance, "store": root}
            endpoint = platform.endpoint.Endpoint.acquire(path, shared=settings.access.opens_to_others, holder=holder)
        closing.callback(endpoint.close)
        warnings = (*endpoint.warnings, *rules.faults())
        if settings.access.opens_to_others and (private := platform.files.private_directory(root)) is not None:
            warnings += (
                f"other users cannot open the models in {root}, although [access] names some: they cannot enter"
                f" {private} (chmod 0711, or put the store elsewhere with models_home)",
            )
        yield Rooms(
            store=store,
            catalog=catalog,
            ledger=ledger,
            activity=activity,
            endpoint=endpoint,
            warnings=warnings,
            accounts=accounts,
            access=access,
            lending=lending,
            pulls=pulls,
            machine=ThisMachine(environ, vram_mb=settings.node.vram_mb, ram_mb=settings.node.ram_mb),
            recovery=_recovery(store, catalog),
        )


def _open_catalog(layout: Layout) -> Catalog:
    """On a disk without a free block or inode, with what the reserve gives back: the catalogue's log needs a file."""
    reserve = Reserve(layout)
    try:
        return Catalog.open(layout.catalog_path, reserve.release_part)
    except (NoSpace, PermissionDenied):
        if not reserve.release():
            raise
        return Catalog.open(layout.catalog_path, reserve.release_part)


def _recovery(store: Store, catalog: Catalog) -> RecoveryView:
    report = store.recovery
    return RecoveryView(
        seconds=round(report.seconds, 3),
        staging_removed=report.staging_removed,
        staging_bytes=report.staging_bytes,
        models_failed=report.models_failed,
        catalog_set_aside=catalog.set_aside,
        notes=(*report.notes, *(f"{path} cannot be read" for path in report.damaged)),
    )
