"""The content-addressed store. It knows nothing of jobs, sockets or events.

Other packages import from here or from its modules; its own modules import each other directly.
"""

from modeld.store.catalog.history import Requester
from modeld.store.digest import Digest
from modeld.store.disk.root import RootUnusable, resolve_root
from modeld.store.ingest.readers import Reader
from modeld.store.maintain.checking import Manner
from modeld.store.maintain.recover import RecoveryReport
from modeld.store.manifests.entries import WouldBlock
from modeld.store.names import ModelName
from modeld.store.store import Store

__all__ = [
    "Digest",
    "Manner",
    "ModelName",
    "Reader",
    "RecoveryReport",
    "Requester",
    "RootUnusable",
    "Store",
    "WouldBlock",
    "resolve_root",
]
