"""Requests that are about the whole store."""

from __future__ import annotations

from modelwire.fields import Count, Seconds
from modelwire.requests.request import Request, Write


class StoreUsage(Request, tag="store.usage", frozen=True, kw_only=True):
    """With `plan_bytes` also what would have to go to make room for so many bytes. Nothing is removed."""

    plan_bytes: Count | None = None


class StoreQuarantine(Request, tag="store.quarantine", frozen=True, kw_only=True):
    pass


class StoreSweep(Write, tag="store.sweep", frozen=True, kw_only=True):
    """Removes what nothing holds. With `dry_run` only reports what that is.

    `grace_s` stands for the store's own grace period this once: 0 takes what lost its name a moment ago. `partials`
    also takes downloads that no open job needs, however recent they are. `quarantine` takes what is in quarantine,
    however recent, and nothing else.
    """

    dry_run: bool = False
    grace_s: Seconds | None = None
    partials: bool = False
    quarantine: bool = False


class StoreScrub(Write, tag="store.scrub", frozen=True, kw_only=True):
    """Reads all blobs that models name again, beside all other work: first those that nobody has looked at for the
    longest time, by the checksums of their blocks or, every so many times, by their hash.

    `full` hashes all of them. `due` looks only at those whose time has come by the configuration.
    """

    full: bool = False
    due: bool = False


class StoreMove(Write, tag="store.move", frozen=True, kw_only=True):
    """Moves the whole store to the directory at `path`, which is empty or not there yet; meanwhile its models are
    served. The path of the store leads there afterwards, and the directory that it was in stays.

    `drop_old` without a `path` removes that directory.
    """

    path: str | None = None
    drop_old: bool = False
