"""Disk space of an acquisition: the size of its dataset, and the free space for it."""

import os
import shutil
from typing import TYPE_CHECKING

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import DatasetAccessError
from exengine.kernel.frame_source_base import SourcePlan
from exengine.kernel.wording import human_bytes

if TYPE_CHECKING:
    from os import PathLike


def existing_folder(path: "str | PathLike[str]") -> str:
    """Return the nearest existing folder at or above a path; the path will be on its disk."""
    folder = os.path.abspath(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def bytes_on_disk(plan: SourcePlan, backend: type[DataStorage]) -> int | None:
    """Return the estimated size of a dataset, in bytes; None if the plan does not determine it.

    Parameters
    ----------
    plan : SourcePlan
    backend : type
        The backend; its ``overhead_bytes_per_frame`` is added to the pixels.
    """
    if plan.total_bytes is None or plan.frames is None:
        return None
    return plan.total_bytes + plan.frames * backend.overhead_bytes_per_frame


def refuse_full_disk(path: str, plan: SourcePlan, backend: type[DataStorage]) -> None:
    """Reject an acquisition that does not fit on the disk.

    Raises
    ------
    DatasetAccessError
    """
    need = bytes_on_disk(plan, backend)
    if need is None:
        return
    folder = existing_folder(path)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise DatasetAccessError(
            f"the acquisition needs {human_bytes(need)}, and {folder} has {human_bytes(free)} free; "
            "choose another disk with storage.path, or acquire fewer frames"
        )
