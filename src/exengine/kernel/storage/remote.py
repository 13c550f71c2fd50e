"""Datasets at URLs: the operations of a backend that stores datasets in object storage.

The kernel recognizes a URL and passes it on to the class. Only the class opens or changes anything at the
URL.
"""

import os
import re
from dataclasses import dataclass
from typing import Any

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import UnsupportedOperationError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # at least two letters, because ``C://`` is a drive


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a URL rather than a file or a folder.

    Examples
    --------
    >>> is_url("s3://bucket/demo.ome.zarr"), is_url("C://data"), is_url("data/demo.ome.zarr")
    (True, False, False)
    """
    text = os.fspath(path)
    return isinstance(text, str) and _URL.match(text) is not None


@dataclass(frozen=True)
class RecoveredRemote:
    """The result of :meth:`RemoteDatasets.recover_remote`.

    Attributes
    ----------
    frames : int
        The number of frames in the finished dataset.
    lost : list of (dict, str)
        The coordinates of each frame that was lost, and the reason.
    reason : str
        The human-readable reason for the status.
    """

    frames: int
    lost: list[tuple[dict[str, int | str], str]]
    reason: str


class RemoteDatasets:
    """The operations on datasets at URLs. A backend inherits from this class in addition to its base class.

    ``create`` and ``open`` of such a backend accept URLs, and ``capabilities_for`` reports ``remote`` for
    them. All methods raise ``DatasetAccessError`` if the store cannot be reached or refuses access. Their
    messages contain no credentials.
    """

    @classmethod
    def replace(cls, url: str, /, **options: Any) -> DataStorage:
        """Create a dataset in place of an old one.

        Everything is checked first, and the old dataset is deleted only if ExEngine wrote it, it is finished,
        and nothing else is at its URL. If several processes try to replace the same dataset, all but one are
        rejected.

        Raises
        ------
        DatasetExistsError, DatasetLockedError
            If the old dataset must not be replaced.
        """
        raise UnsupportedOperationError(f"{cls.__name__} cannot replace a dataset at a URL")

    @classmethod
    def bytes_at(cls, url: str, /) -> int:
        """Return the size of a dataset, in bytes."""
        raise UnsupportedOperationError(f"{cls.__name__} does not report the size of a dataset at a URL")

    @classmethod
    def recover_remote(cls, url: str, /, *, dry_run: bool, in_place: bool) -> RecoveredRemote:
        """Finish an incomplete dataset whose writer has died, with all frames from this machine.

        Parameters
        ----------
        url : str
        dry_run : bool
            Whether to report the result without changing anything.
        in_place : bool
            Whether to abandon frames that the writer has left on another machine.

        Raises
        ------
        DatasetLockedError
            If the writer is active.
        UnsupportedOperationError
            If the writer has left frames on another machine, and ``in_place`` is false.
        """
        raise UnsupportedOperationError(f"{cls.__name__} cannot recover a dataset at a URL")
