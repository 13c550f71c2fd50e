"""The hooks that a backend overrides to check, write, sync and finish frames in its format.

:class:`exengine.kernel.storage.managed.ManagedStorage` calls these hooks and handles everything else.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import JsonValue
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.reading import IndexedStorage
from exengine.kernel.system import files

CheckedFrame = tuple[DataCoordinates, npt.NDArray[Any], Any]
"""Coordinates, pixels and the result of ``check_frame``."""


class FormatHooks(IndexedStorage):
    """The format-specific part of a storage class.

    The hooks are called with the storage's lock held, so that no two of them run at the same time.
    """

    batch_frames: ClassVar[int] = 1
    """The maximum number of frames that ``put_many`` and a data handler pass to :meth:`write_frames` in one
    call. With 1, the default, every frame is passed to :meth:`write_frame` instead."""

    continues: ClassVar[bool] = False
    """Whether a storage of this class continues an existing dataset instead of creating one. It is True only
    for the class that ``resume`` returns. The ``__init__`` of that class takes over and checks the dataset at
    the path, calls ``begin_continuing``, opens the files for writing, and passes the frames to
    ``continue_from``."""

    def prepare_frames(self, plan: SourcePlan) -> None:
        """Prepare for the planned frames, for example by creating arrays at full length.

        Called at most once, before the first frame; see :meth:`~exengine.DataStorage.expect`. Does nothing by
        default.

        Parameters
        ----------
        plan : SourcePlan
            Every field may be unknown, and the frames that arrive may differ from the plan.

        Raises
        ------
        UnsupportedDataError, CoordinatesError
            If the format cannot store the planned frames. The storage must remain usable.
        OSError
            Any such error makes the storage fail.
        """

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: JsonValue) -> Any:
        """Before anything changes, reject a frame that the format cannot store.

        Parameters
        ----------
        coordinates : DataCoordinates
            A private copy.
        data : numpy.ndarray
            An array with an accepted dtype and number of dimensions; it need not be contiguous.
        metadata : JSON value
            A private copy, which consists of plain Python objects.

        Returns
        -------
        object
            The last argument of ``write_frame``, such as the encoded metadata.

        Raises
        ------
        UnsupportedDataError, MetadataError, CoordinatesError
        """
        return metadata

    @abstractmethod
    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        """Write frame ``number``, so that it survives the death of the process (A1).

        Parameters
        ----------
        number : int
            The number of the frame, counted from 0 without gaps. After a failed write, the next frame gets
            the same number.
        coordinates : DataCoordinates
        data : numpy.ndarray
            The caller's array, which is valid only during this call.
        checked : object
            The result of ``check_frame``.

        Raises
        ------
        OSError
            Any such error makes the storage fail.
        """

    def write_owned_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        """Write a frame from a data handler. Unlike ``write_frame``, this method may keep the array.

        No other code changes the array afterward. A storage in memory overrides this method to avoid a copy.
        The default implementation calls ``write_frame``. This method is not called if ``batch_frames`` is
        greater than 1.

        Parameters
        ----------
        number, coordinates, data, checked
            See :meth:`write_frame`.
        """
        self.write_frame(number, coordinates, data, checked)

    def write_frames(self, number: int, batch: list[CheckedFrame]) -> int:
        """Write the first frames of a batch. Override this method together with ``batch_frames``.

        Parameters
        ----------
        number : int
            The number of the first frame.
        batch : list of (coordinates, data, checked)
            At least one frame, as passed to ``write_frame``. All frames are checked before the first is
            written.

        Returns
        -------
        int
            The number of frames written, at least one. The method is called again for the remaining frames.

        Raises
        ------
        OSError
            Any such error makes the storage fail. In this case, no frame of the batch counts as written.
        UnsupportedDataError, CoordinatesError
            If the first frame is incompatible with frames of the batch that were written before it.
        """
        self.write_frame(number, *batch[0])
        return 1

    def sync_frames(self) -> None:
        """Sync every written frame to the disk (A2). By default, the whole file system is synced."""
        if self.path is not None:
            files.sync_filesystem(self.path)

    def finish_frames(self) -> None:
        """Finish the format's files and sync them to the disk. The manifest is written afterward.

        Called when ``finish`` or ``abort`` ends the dataset, and by ``close`` after a failed write. After
        a failed write, the files may contain a part of the frame that was not stored, and the disk may still
        be full. All frames that were stored earlier must remain readable. The method is not called when an
        intact storage is closed without ``finish``, or in a forked child.

        Raises
        ------
        OSError
            The dataset then ends as failed.
        """
        self.sync_frames()

    def claimed_files(self) -> tuple[str, ...]:
        """Return patterns for the files that this dataset may contain; the manifest records them.

        Called once, before the dataset exists. Override this method if a dataset uses only some of the names
        that ``dataset_files`` allows, such as names that begin with text chosen by the user.

        Returns
        -------
        tuple of str
            Patterns as in ``dataset_files``; a file that matches none of them is not part of the dataset.
        """
        return self.dataset_files

    def initial_files(self) -> Mapping[str, bytes]:
        """Return the files that the dataset contains as soon as it becomes visible.

        If a dataset is one file, return only the initial content of that file, under the key ``{file}``.

        Called once, before the dataset exists, and therefore before ``super().__init__`` returns. Override
        this method if readers of the format need a file, such as an index or a description of the array, to
        open the empty dataset. The files are synced before the dataset appears.

        Returns
        -------
        mapping of str to bytes
            Maps the path of each file, relative to the dataset folder and with ``/`` between its parts, to
            its content. Each path must match a pattern of :meth:`claimed_files`.
        """
        return {}

    def finished_facts(self) -> dict[str, JsonValue]:
        """Return facts that readers verify later, such as a checksum of the index.

        Called after ``finish_frames``. The manifest records the facts, and a reader finds them in
        :attr:`exengine.base_classes.Manifest.facts`. If the storage has failed, the method is not called, and
        there are no facts.
        """
        return {}
