"""The content-addressed store. It knows nothing of jobs, sockets or events.

Other rooms take what they need from here; its own modules import each other directly.
"""

from modeld.store.digest import Digest
from modeld.store.entries import Unproven
from modeld.store.history import Asker
from modeld.store.names import ModelName
from modeld.store.observer import Observer, Stopped
from modeld.store.readers import OwnReader, PeerReader, Reader
from modeld.store.recover import RecoveryReport
from modeld.store.root import RootUnusable, resolve_root
from modeld.store.store import Store

__all__ = [
    "Asker",
    "Digest",
    "ModelName",
    "Observer",
    "OwnReader",
    "PeerReader",
    "Reader",
    "RecoveryReport",
    "RootUnusable",
    "Stopped",
    "Store",
    "Unproven",
    "resolve_root",
]
