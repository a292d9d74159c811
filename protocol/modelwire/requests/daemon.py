"""Requests that are about the connection, the daemon and its events."""

from __future__ import annotations

from modelwire.fields import Count, Offer, Places, RateLimit, Slots, Token
from modelwire.requests.request import Request


class Hello(Request, tag="hello", frozen=True, kw_only=True):
    protocol: int
    client: str = ""
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


class Cancel(Request, tag="cancel", frozen=True, kw_only=True):
    """Ends another request of this connection; that one still gets its terminal reply."""

    target: str


class FilesOffer(Request, tag="files.offer", frozen=True, kw_only=True):
    """Hands over files that the client has opened for reading, for a `model.add` or `model.pull` on this connection.

    The descriptors, one for each path and in that order, ride with the first byte of the line, in the same message
    (SCM_RIGHTS). A path is that of the file in the model, relative. Offers with the same `transfer`, a word of the
    client's choice, add up. `directory`: they are the files of a directory, and not of one file or a set of shards.
    """

    transfer: Token
    paths: Offer
    directory: bool = False


class DaemonStatus(Request, tag="daemon.status", frozen=True, kw_only=True):
    pass


class DaemonDescribe(Request, tag="daemon.describe", frozen=True, kw_only=True):
    pass


class DaemonDrain(Request, tag="daemon.drain", frozen=True, kw_only=True):
    """Stop in good order. `deadline_s` overrides the configured deadline for running jobs."""

    deadline_s: float | None = None


class DaemonConfigure(Request, tag="daemon.configure", frozen=True, kw_only=True):
    """Settings of the running daemon, until it stops. What is left out stays as it is.

    `max_rate` is in bytes a second over all downloads, those that run included; 0 for no limit. `running_fetches` are
    pulls at the same time, `running_bytes` jobs of each other kind; what runs or waits by then is not thrown out.
    """

    max_rate: RateLimit | None = None
    running_bytes: Slots | None = None
    running_fetches: Slots | None = None
    waiting_per_peer: Places | None = None
    waiting_total: Places | None = None


class EventsSubscribe(Request, tag="events.subscribe", frozen=True, kw_only=True):
    """Events from the log after `since`, then live ones.

    Without `since`: live only, or the newest `last` before that. `progress` adds the running jobs' progress replies.
    With `follow` false it ends with what the log holds now.
    """

    since: Count | None = None
    last: Count | None = None
    follow: bool = True
    progress: bool = False
    events: tuple[str, ...] = ()
    model: str | None = None
    job: str | None = None
