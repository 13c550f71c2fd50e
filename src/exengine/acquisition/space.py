"""Compares the expected size of an acquisition with the available disk space or memory."""

import os
import shutil
from typing import TYPE_CHECKING

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import DatasetAccessError, StorageFullError
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system import memory
from exengine.kernel.wording import human_bytes

if TYPE_CHECKING:
    from os import PathLike

_ANYWAY = "or set storage.check_space: false to start anyway"


def existing_folder(path: "str | PathLike[str]") -> str:
    """Return the nearest existing folder at or above a path. The folder is on the same disk as the path."""
    folder = os.path.abspath(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def bytes_on_disk(plan: SourcePlan, backend: type[DataStorage]) -> int | None:
    """Return the estimated size of a dataset in bytes, or None if the plan does not determine it.

    Parameters
    ----------
    plan : SourcePlan
    backend : type
        The backend. Its ``overhead_bytes_per_frame`` is added to the size of the pixels.
    """
    if plan.total_bytes is None or plan.frames is None:
        return None
    return plan.total_bytes + plan.frames * backend.overhead_bytes_per_frame


def refuse_missing_space(path: str | None, plan: SourcePlan, backend: type[DataStorage]) -> None:
    """Reject an acquisition that would not fit on disk or, if no path is given, in memory.

    Raises
    ------
    DatasetAccessError
        If the disk has too little free space.
    StorageFullError
        If the system, or a control group of the process, has too little memory.
    """
    if path is None:
        _refuse_missing_memory(plan)
        return
    need = bytes_on_disk(plan, backend)
    if need is None or is_url(path):  # the free space in object storage is unknown
        return
    folder = existing_folder(path)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise DatasetAccessError(
            f"the acquisition needs {human_bytes(need)}, but {folder} has only {human_bytes(free)} free; "
            f"choose another disk with storage.path, acquire fewer frames, {_ANYWAY}"
        )


def _refuse_missing_memory(plan: SourcePlan) -> None:
    need, available = plan.total_bytes, memory.available_bytes()
    if need is not None and available is not None and need > available:
        raise StorageFullError(
            f"the frames need {human_bytes(need)} of memory, but only {human_bytes(available)} are "
            f"available; store them on disk with backend 'ndtiff', acquire fewer frames, {_ANYWAY}"
        )
