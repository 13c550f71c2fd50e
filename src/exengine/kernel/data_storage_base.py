"""The contract of a storage backend: the ``DataStorage`` abstract base class.

A backend is a class that implements six methods. Every other member has a safe default, which either works or
raises ``UnsupportedOperationError``, but never returns a wrong answer. A backend need not call
``super().__init__()``. Backends that write to disk should derive from ``ManagedStorage``, which keeps the
storage promises for them.

Life cycle: created (by ``create`` or by calling the class) -> any number of ``put`` calls -> ``finish``
(read-only from then on) -> ``close``. The kernel passes all arguments by position.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from os import PathLike
from typing import Any, ClassVar, Self

import numpy.typing as npt

from exengine.kernel.axes import positions_on_axes
from exengine.kernel.capabilities import PlannedLayout, StorageCapabilities
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import CoordinatesNotFoundError, UnsupportedOperationError, describe, note_stored
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage_types import CoordinatesLike, DatasetStatus, Frame, JsonValue, replaceable
from exengine.kernel.storage_views import StorageViews

__all__ = ["CoordinatesLike", "DataStorage", "DatasetStatus", "Frame", "JsonValue"]


class DataStorage(StorageViews, ABC):
    """The base class of all storage backends. A backend stores frames and reads them back.

    Implement the six abstract methods, describe every parameter of ``__init__`` in the class's
    docstring, and register the class under the entry-point group ``exengine.storage_backends``.
    """

    # -- identity and capabilities ---------------------------------------------------------------

    capabilities: StorageCapabilities = StorageCapabilities()
    """The capabilities and limits of the backend with its default options. If they depend on the options, an
    instance sets its own capabilities, and :meth:`exengine.DataStorage.capabilities_for` returns them."""

    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named sets of options, such as ``{"lz4": {"codec": "lz4"}}``. The conformance kit tests the backend
    with each set, in addition to the default options, and the documentation shows the results."""

    overhead_bytes_per_frame: ClassVar[int] = 8192
    """An upper bound on the disk space for the metadata, index and headers of one frame, in bytes."""

    place_parameters: ClassVar[tuple[str, ...] | None] = None
    """The parameters of ``__init__`` that specify the dataset path and are therefore not options. None means
    the first parameter if the backend is persistent. If you set this, also override :meth:`create`."""

    batch_frames: ClassVar[int] = 1
    """The batch size at which :meth:`put_many` is most efficient; 1 if it only loops over :meth:`put`."""

    foreign_reader: ClassVar[str] = ""
    """A function, given as ``module:name``, that reads a frame with an independent reader of the format. The
    function takes a path and coordinates, and returns the pixels. The conformance kit tests C6 with it."""

    backend_name: str = ""
    """The entry-point name of the backend that writes or reads the dataset; empty if unknown."""

    @replaceable
    def path(self) -> str | None:
        """The path of the dataset; None if the backend is not persistent or does not report its path."""
        return None

    dataset_files: ClassVar[tuple[str, ...]] = ()
    """Patterns for the names of all files that a dataset of this backend may contain, apart from ExEngine's
    own files. The patterns are relative to the dataset folder: ``"index"``, ``"frame-{number}.npy"``,
    ``"c/{number}/{number}"``. ``{number}`` matches digits. ``{name}`` matches any characters; it may occur
    only once in a pattern, next to letters or digits. ``if_exists: overwrite`` deletes a dataset only if
    every file in it matches; without patterns, it deletes no dataset. If a dataset is one file, the patterns
    are ``"{file}"``, and ``"{file}.exengine.NAME"`` for files next to it.
    """

    # -- required operations ---------------------------------------------------------------------

    @abstractmethod
    def put(self, data_coordinates: CoordinatesLike, data: npt.NDArray[Any], metadata: JsonValue, /) -> None:
        """Store one frame.

        Parameters
        ----------
        data_coordinates : DataCoordinates or mapping of str to int or str
            The frame's position on each axis.
        data : numpy.ndarray
            The pixels, conventionally ``(Y, X)`` or ``(Y, X, 3)``. The caller may change the array
            as soon as ``put`` has returned.
        metadata : JSON value
            The frame's metadata.

        Raises
        ------
        CoordinatesExistError
            If a frame already exists at the coordinates.
        UnsupportedDataError, MetadataError, CoordinatesError
            If the format cannot store the frame; nothing is changed in this case.
        StorageStateError
            If the storage is finished or closed, or has failed.
        """

    @abstractmethod
    def get_data(self, data_coordinates: CoordinatesLike, /) -> npt.NDArray[Any]:
        """Return the pixels of one frame, bit-identical to the array that was stored.

        Raises
        ------
        CoordinatesNotFoundError
            If no frame exists at the coordinates. The error is also a ``KeyError``.
        """

    @abstractmethod
    def get_metadata(self, data_coordinates: CoordinatesLike, /) -> JsonValue:
        """Return the metadata of one frame.

        Raises
        ------
        CoordinatesNotFoundError
            If no frame exists at the coordinates. The error is also a ``KeyError``.
        """

    @abstractmethod
    def __contains__(self, data_coordinates: object, /) -> bool:
        """Return whether a frame was stored at these coordinates. Never raises an exception."""

    @abstractmethod
    def finish(self) -> None:
        """Finish the dataset. From then on, it accepts no more frames and is immutable. Idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Release files and memory. Idempotent."""

    def __getitem__(self, data_coordinates: CoordinatesLike) -> npt.NDArray[Any]:
        """Return the pixels of one frame, as :meth:`get_data` does."""
        return self.get_data(data_coordinates)

    # -- creating and opening datasets -----------------------------------------------------------

    @classmethod
    def create(cls, path: str | PathLike[str] | None = None, /, **options: Any) -> Self:
        """Create a storage for a new dataset.

        Parameters
        ----------
        path : path, optional
            The exact path of the new dataset. The kernel has already checked that nothing exists there. None
            if the backend is not persistent.
        **options
            Keyword arguments for ``__init__``.
        """
        if cls.capabilities.persistent:
            return cls(path, **options)  # type: ignore[call-arg]  # the subclass defines __init__
        return cls(**options)

    @classmethod
    def capabilities_for(cls, options: Mapping[str, Any], path: str | None = None, /) -> StorageCapabilities:
        """Return the capabilities that a dataset created with these options would have.

        Override this if capabilities depend on options or on the path. ``persistent`` and ``path_suffixes``
        must not depend on them.

        Parameters
        ----------
        options : mapping
            Keyword arguments for :meth:`create`; omitted options have their default values.
        path : str, optional
            The requested path of the dataset.
        """
        return cls.capabilities

    @classmethod
    def can_open(cls, path: str | PathLike[str]) -> bool:
        """Return whether :meth:`open` can read the file or folder at a path. The check opens few files."""
        return False

    @classmethod
    def open(cls, path: str | PathLike[str]) -> "DataStorage":
        """Open an existing dataset for reading. The returned object may be an instance of another class.

        Raises
        ------
        UnsupportedOperationError
            If the backend does not support this.
        """
        raise UnsupportedOperationError(f"{cls.__name__} cannot open an existing dataset")

    @classmethod
    def resume(cls, path: str | PathLike[str], /, **options: Any) -> "DataStorage":
        """Open an existing dataset in order to store the frames that it lacks.

        The dataset has at least one frame, and its writer has ended: it was killed, or it finished the
        dataset as aborted or failed.

        Parameters
        ----------
        path : path
            The dataset.
        **options
            The options with which the dataset was created.

        Returns
        -------
        DataStorage
            A storage that is open for :meth:`put` and contains every frame of the dataset. The method must
            mark the dataset as incomplete before it changes any other file.

        Raises
        ------
        UnsupportedOperationError
            If the backend does not support this.
        DatasetLockedError
            If the writer of the dataset is active.
        OptionError, StorageFinishedError
            If the dataset was created with other options, or is complete; nothing is changed in this case.
        """
        raise UnsupportedOperationError(f"{cls.__name__} cannot continue an existing dataset")

    @classmethod
    def recover_in_place(
        cls, path: str | PathLike[str], lost: Collection[DataCoordinates], notes: Any = None, /
    ) -> None:
        """Repair a dataset's files in place, for ``exengine recover --in-place``.

        The kernel holds the lock and has recorded the damage in the manifest. It marks the dataset as
        repaired afterward. If the process is killed, the next recovery calls the method again. The method
        must sync everything before it returns (A2), and must save removed data in files next to the index.

        Parameters
        ----------
        path : path
            The path of the dataset.
        lost : collection of DataCoordinates
            The frames whose pixels cannot be read back. The backend removes them.
        notes : mapping of DataCoordinates to JSON value, optional
            New metadata, or an empty dict if it would not fit, for frames whose own metadata cannot be read.

        Raises
        ------
        UnsupportedOperationError
            If the backend does not support this; any dataset can be recovered into a copy instead.
        """
        raise UnsupportedOperationError(f"{cls.__name__} cannot recover a dataset in place")

    @classmethod
    def check_plan(
        cls,
        layouts: Iterable[PlannedLayout],
        coordinates: Iterable[CoordinatesLike],
        /,
        *,
        pixel_bytes: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Before anything is created, reject planned frames that ``put`` would reject.

        The kernel checks the declared capabilities. Override this to check any further limits.

        Parameters
        ----------
        layouts : iterable of (shape, dtype)
            The distinct layouts of the frames.
        coordinates : iterable of coordinates
            The coordinates of every frame.
        pixel_bytes : int or None
            The total size of the pixel data, in bytes.
        options : mapping or None
            The storage options.

        Raises
        ------
        UnsupportedDataError, CoordinatesError, StorageFullError
            The error that ``put`` would raise.
        """

    # -- optional operations, with safe defaults -------------------------------------------------

    def expect(self, plan: SourcePlan, /) -> None:
        """Receive the plan of the frames that are about to be stored. Does nothing by default.

        Called at most once, before the first frame. Every field of the plan may be unknown. A storage must
        also work without a plan, and with frames that the plan does not list.

        Raises
        ------
        ExEngineError
            If the format cannot store the planned frames.
        """

    def put_many(self, frames: Iterable[Frame]) -> None:
        """Store several frames in order, as if :meth:`put` were called for each of them.

        Parameters
        ----------
        frames : iterable of (coordinates, data, metadata)

        Raises
        ------
        ExEngineError
            Any error of :meth:`put`, for the first frame that is not stored. All earlier frames are stored;
            the exception's ``frames_stored`` attribute gives their number.
        """
        stored = 0
        try:
            for coordinates, data, metadata in frames:
                self.put(coordinates, data, metadata)
                stored += 1
        except BaseException as error:
            note_stored(error, stored)
            raise

    def __iter__(self) -> Iterator[DataCoordinates]:
        """Yield the coordinates of every frame, in the order in which the frames were stored."""
        raise self._unsupported("does not list its coordinates")

    def __len__(self) -> int:
        """Return the number of frames."""
        raise self._unsupported("does not count its frames")

    def flush(self, durable: bool = False) -> None:
        """Bring every accepted frame to level A1 (written), or to level A2 (synced) if ``durable``."""
        raise self._unsupported("cannot flush")

    def abort(self, reason: str = "", *, failed: bool = False) -> None:
        """Finish the dataset early. A backend that records a status sets it to ``aborted`` or ``failed``.

        Parameters
        ----------
        reason : str
            The human-readable reason.
        failed : bool
            Whether to mark the dataset as ``failed`` instead of ``aborted``.
        """
        self.finish()

    def annotate(self, name: str, value: JsonValue) -> None:
        """Store a JSON value with the dataset, such as the acquisition's config.

        After an I/O error, the value is written together with the final status, if the disk accepts it.

        Raises
        ------
        UnsupportedOperationError
            If the backend does not store annotations.
        """
        raise self._unsupported("keeps no annotations")

    def is_finished(self) -> bool:
        """Return whether the dataset is finished and therefore accepts no more frames."""
        raise self._unsupported("does not report whether it is finished")

    @property
    def status(self) -> DatasetStatus:
        """The status of the dataset."""
        raise self._unsupported("has no status")

    @replaceable
    def status_reason(self) -> str:
        """The human-readable reason for the status; empty for a complete dataset."""
        return ""

    @replaceable
    def annotations(self) -> Mapping[str, JsonValue]:
        """The JSON values that :meth:`annotate` stored with the dataset, such as its config and ledger."""
        return {}

    @property
    def summary_metadata(self) -> JsonValue:
        """The metadata of the dataset as a whole."""
        raise self._unsupported("has no summary metadata")

    @replaceable
    def recorded_plan(self) -> SourcePlan:
        """The parts of the plan that the format records, such as the pixel size and the colors."""
        return SourcePlan()

    @replaceable
    def axes(self) -> Mapping[str, list[int | str]]:
        """The positions on each axis: integers in ascending order, then names in order of arrival.

        Raises
        ------
        UnsupportedOperationError
            If the backend does not list its coordinates.
        """
        return positions_on_axes(self)

    @replaceable
    def has_checksums(self) -> bool:
        """Whether this dataset has checksums, so that damaged frames are detected."""
        return self.capabilities.checksums

    @replaceable
    def resolution_levels(self) -> tuple[int, ...]:
        """The resolution levels. Level 0 has full resolution; level n is smaller by a factor of ``2**n``."""
        return (0,)

    def level(self, number: int) -> "DataStorage":
        """Return the dataset's frames at one resolution level.

        Raises
        ------
        CoordinatesNotFoundError
            If the dataset does not have this level.
        """
        if number != 0:
            raise CoordinatesNotFoundError(f"level must be one of {self.resolution_levels}, got {number}")
        return self

    def check_structure(self) -> list[str]:
        """Check the structure of the files (headers, directories and lengths), but not the frames.

        Returns
        -------
        list of str
            The faults, one sentence each; empty if there are none.
        """
        raise self._unsupported("does not check its structure")

    def await_new_data(self, timeout: float | None = None) -> bool:
        """Wait until a frame is added, by this or another process, or until the dataset is finished.

        Parameters
        ----------
        timeout : float, optional
            The maximum time to wait, in seconds; None means no limit.

        Returns
        -------
        bool
            False if the wait timed out.
        """
        raise self._unsupported("cannot wait for data")

    # -- context manager -------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Finish and close the storage. After an exception, abort it instead of finishing it."""
        try:
            if error is None:
                self.finish()
            else:
                self.abort(describe(error))
        finally:
            self.close()
