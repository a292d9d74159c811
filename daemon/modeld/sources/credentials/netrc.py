"""User and password for a host from ~/.netrc.

An entry counts for its host at the scheme's own port; one that is written `machine host:port` counts for that port. An
entry `default` never counts: a password for every host would go to the host that an attacker names.
"""

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
        entries = netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError, UnicodeError):
        return None
    names = [f"{url.host}:{url.port}", *([url.host] if url.has_default_port else [])]
    found = next((entries[name] for name in names if name in entries and name != "default"), None)
    if found is None:
        return None
    user, _account, password = found
    if not (user or password):
        return None
    return basic(user or "", password or "")
