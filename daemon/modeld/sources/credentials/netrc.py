"""User and password for a host from ~/.netrc, as curl and git read it."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping

from modeld.download.http.headers import basic
from modeld.download.urls import Url


def netrc_authorization(url: Url, environ: Mapping[str, str]) -> str | None:
    """The value of an Authorization header. None also for an unreadable file: most addresses need no credentials."""
    path = environ.get("NETRC") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".netrc")
    try:
        found = netrc.netrc(path).authenticators(url.host)
    except (OSError, netrc.NetrcParseError, UnicodeError):
        return None
    if found is None:
        return None
    user, _account, password = found
    if not (user or password):
        return None
    return basic(user or "", password or "")
