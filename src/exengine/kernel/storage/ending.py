"""Functions that a data handler calls at the end, to store the ledger or to end the dataset early.

A storage class written for ExEngine 0.4.0, or a test double, may lack ``annotate`` and ``abort``, or have
methods with these names but different meanings. Such methods are not called.
"""

import inspect
from typing import Any

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import MetadataError
from exengine.kernel.frames.ledger import Ledger


def end_early(storage: DataStorage, reason: str, *, failed: bool) -> None:
    """Abort the dataset, or finish it if the storage cannot abort."""
    if _accepts(storage, "abort", reason, failed=failed):
        storage.abort(reason, failed=failed)
    else:
        storage.finish()


def keep_ledger(storage: DataStorage, ledger: Ledger) -> None:
    """Store a ledger with the dataset; omit the list of lost frames if the manifest has no space for it."""
    if not _accepts(storage, "annotate", "ledger", {}):
        return
    content = ledger.to_dict()
    try:
        storage.annotate("ledger", content)
    except MetadataError:
        storage.annotate("ledger", {**content, "not_stored": []})


def _accepts(storage: object, name: str, *arguments: Any, **named: Any) -> bool:
    """Return whether a storage has a method that accepts these arguments."""
    method = getattr(storage, name, None)
    if not callable(method):
        return False
    try:
        inspect.signature(method).bind(*arguments, **named)
    except (TypeError, ValueError):
        return False
    return True
