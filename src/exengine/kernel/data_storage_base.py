"""The contract of a storage backend: the ``DataStorage`` abstract base class.

A backend is a class with six methods. Every other member has an honest default: it works, or it raises
``UnsupportedOperationError``; it never returns a wrong answer. A class need not even call
``super().__init__()``. Backends that write to disk should derive from
:class:`exengine.kernel.storage.managed.ManagedStorage`, which keeps the storage promises for them.

Life cycle: created (``create`` or the class itself) -> any number of ``put`` -> ``finish`` (read
only from here) -> ``close``. The kernel passes all arguments by position.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

import numpy.typing as npt

from exengine.kernel.axes import position_order
from exengine.kernel.capabilities import PlannedLayout, StorageCapabilities
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import CoordinatesNotFoundError, UnsupportedOperationError, describe, note_stored

CoordinatesLike: TypeAlias = DataCoordinates | Mapping[str, int | str]
"""Coordinates as every method accepts them."""

JsonValue: TypeAlias = Any
"""Metadata: None, bool, int, float, str, or a list or a dict with str keys of these."""

Frame: TypeAlias = tuple[CoordinatesLike, npt.NDArray[Any], JsonValue]
"""Coordinates, pixels and metadata of one frame."""


class DatasetStatus(enum.StrEnum):
    """The status of a dataset; see the storage promises."""

    INCOMPLETE = "incomplete"
    """Being written, or its writer died; every written frame is readable."""
    COMPLETE = "complete"
    """Finished, and no frame was dropped or failed."""
    ABORTED = "aborted"
    """Finished before the end of the acquisition; every stored frame is whole."""
    FAILED = "failed"
    """Finished after an error: some frames were not stored."""
    DAMAGED = "damaged"
    """A frame or a file that the dataset names is missing or was changed."""


if TYPE_CHECKING:
    _replaceable = property
else:

    class _replaceable:  # noqa: N801 - used like property
        """A computed default; a subclass replaces it with a property, or an instance with an attribute."""

        def __init__(self, function: Callable[[Any], Any]) -> None:
            self._function = function
            self.__doc__ = function.__doc__

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            return self if instance is None else self._function(instance)


class DataStorage(ABC):
    """The base class of every storage backend: frames are put into it and read back.

    Implement the six abstract methods, describe every parameter of ``__init__`` in the class's
    docstring, and register the class under the entry-point group ``exengine.storage_backends``.
    """

    # -- identity and capabilities ---------------------------------------------------------------

    capabilities: ClassVar[StorageCapabilities] = StorageCapabilities()
    """The abilities and limits of the backend."""

    overhead_bytes_per_frame: ClassVar[int] = 8192
    """Estimated size on disk of the metadata, index and headers of one frame, in bytes; an upper bound."""

    place_parameters: ClassVar[tuple[str, ...] | None] = None
    """The parameters of ``__init__`` that name the path of the dataset, and therefore are not options. None:
    the first parameter, for a persistent backend. Override :meth:`create` as well if you set this."""

    batch_frames: ClassVar[int] = 1
    """The number of frames that :meth:`put_many` writes most efficiently at once; 1 if it is only a loop."""

    backend_name: str = ""
    """The entry-point name of the backend that writes or reads the dataset; empty if it is unknown."""

    @_replaceable
    def path(self) -> str | None:
        """The path of the dataset; None for a backend that is not persistent, or does not report it."""
        return None

    dataset_files: ClassVar[tuple[str, ...]] = ()
    """The names of all files that a dataset of this backend may have, besides those of ExEngine itself, as
    patterns relative to the folder of the dataset: ``"index"``, ``"frame-{number}.npy"``,
    ``"c/{number}/{number}"``. ``{number}`` matches digits, ``{name}`` any text, once in a pattern and next to
    letters or digits. ``if_exists: overwrite`` deletes a dataset only if every file in it matches; without
    patterns it deletes none."""

    # -- required operations ---------------------------------------------------------------------

    @abstractmethod
    def put(self, data_coordinates: CoordinatesLike, data: npt.NDArray[Any], metadata: JsonValue, /) -> None:
        """Store one frame.

        Parameters
        ----------
        data_coordinates : DataCoordinates or mapping of str to int or str
            The position of the frame on each axis.
        data : numpy.ndarray
            The pixels, conventionally ``(Y, X)`` or ``(Y, X, 3)``. The caller may change the array
            as soon as ``put`` has returned.
        metadata : JSON value
            Metadata of the frame.

        Raises
        ------
        CoordinatesExistError
            If the coordinates already hold a frame.
        UnsupportedDataError, MetadataError, CoordinatesError
            If the format cannot hold the frame; nothing is changed then.
        StorageStateError
            If the storage is finished, closed or failed.
        """

    @abstractmethod
    def get_data(self, data_coordinates: CoordinatesLike, /) -> npt.NDArray[Any]:
        """Return the pixels of one frame, bit-identical to the array that was put.

        Raises
        ------
        CoordinatesNotFoundError
            If the coordinates hold no frame. It is a ``KeyError``.
        """

    @abstractmethod
    def get_metadata(self, data_coordinates: CoordinatesLike, /) -> JsonValue:
        """Return the metadata of one frame.

        Raises
        ------
        CoordinatesNotFoundError
            If the coordinates hold no frame. It is a ``KeyError``.
        """

    @abstractmethod
    def __contains__(self, data_coordinates: object, /) -> bool:
        """Return whether a frame was put at these coordinates. Never raises."""

    @abstractmethod
    def finish(self) -> None:
        """End the dataset: it accepts no more frames and is immutable from here on. Idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Release files and memory. Idempotent."""

    def __getitem__(self, data_coordinates: CoordinatesLike) -> npt.NDArray[Any]:
        """Return the same as :meth:`get_data`."""
        return self.get_data(data_coordinates)

    # -- creating and opening datasets -----------------------------------------------------------

    @classmethod
    def create(cls, path: str | PathLike[str] | None = None, /, **options: Any) -> Self:
        """Create a storage for a new dataset.

        Parameters
        ----------
        path : path, optional
            The exact path of the new dataset. The kernel has checked that nothing exists there. None
            for a backend that is not persistent.
        **options
            The parameters of ``__init__``.
        """
        if cls.capabilities.persistent:
            return cls(path, **options)  # type: ignore[call-arg]  # of a subclass
        return cls(**options)

    @classmethod
    def can_open(cls, path: str | PathLike[str]) -> bool:
        """Return whether :meth:`open` can read the file or folder at a path. Opens as little as possible."""
        return False

    @classmethod
    def open(cls, path: str | PathLike[str]) -> "DataStorage":
        """Open an existing dataset for reading; the object may be of another class.

        Raises
        ------
        UnsupportedOperationError
            If the backend cannot.
        """
        raise UnsupportedOperationError(f"{cls.__name__} cannot open an existing dataset")

    @classmethod
    def recover_in_place(cls, path: str | PathLike[str], lost: Collection[DataCoordinates], /) -> None:
        """Repair the files of a dataset in place, so that they hold every frame except the lost ones.

        ``exengine recover --in-place`` calls it. The kernel holds the lock of the dataset, has recorded
        the lost frames in the manifest, and marks the dataset as finished afterwards.

        Parameters
        ----------
        path : path
            The dataset, which no longer has a writer.
        lost : collection of DataCoordinates
            Frames that the dataset lists but that cannot be read back. The backend removes them.

        Notes
        -----
        The process may be killed at any point; the kernel then calls the method again. It returns when
        everything is at A2 (synced), and saves entries that it removes from an index in a file beside it.

        Raises
        ------
        UnsupportedOperationError
            If the backend cannot; any dataset can be recovered into a copy.
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
        """Refuse planned frames that :meth:`put` would refuse, before anything is created.

        The kernel checks the declared capabilities. Override this for further limits; by default it has none.

        Parameters
        ----------
        layouts : iterable of (shape, dtype)
            The layouts of the frames, each once.
        coordinates : iterable of coordinates
            The coordinates of every frame.
        pixel_bytes, options : optional
            Total size of the pixels, and the options of the storage.

        Raises
        ------
        UnsupportedDataError, CoordinatesError, StorageFullError
            The error that ``put`` would raise.
        """

    # -- optional operations, with honest defaults -----------------------------------------------

    def put_many(self, frames: Iterable[Frame]) -> None:
        """Store several frames, in order, as :meth:`put` does one by one.

        Parameters
        ----------
        frames : iterable of (coordinates, data, metadata)

        Raises
        ------
        ExEngineError
            The errors of :meth:`put`, for the first frame that is not stored. Earlier frames are stored;
            ``frames_stored`` of the exception is their number.
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
        """Yield the coordinates of every frame, in the order in which they were put."""
        raise self._unsupported("does not list its coordinates")

    def __len__(self) -> int:
        """Return the number of frames."""
        raise self._unsupported("does not count its frames")

    def __bool__(self) -> bool:
        """Return True, also for an empty storage."""
        return True

    def flush(self, durable: bool = False) -> None:
        """Bring every accepted frame to level A1 (written), or A2 (synced) if ``durable``.

        Raises
        ------
        UnsupportedOperationError
            If the backend cannot.
        """
        raise self._unsupported("cannot flush")

    def abort(self, reason: str = "", *, failed: bool = False) -> None:
        """Finish early; a backend that keeps a status records it.

        Parameters
        ----------
        reason : str
            The human-readable cause.
        failed : bool
            True marks the dataset as ``failed``, False as ``aborted``.
        """
        self.finish()

    def annotate(self, name: str, value: JsonValue) -> None:
        """Store a JSON value with the dataset, such as the config of the acquisition.

        After an I/O error the value is written when the dataset ends, if the disk accepts it.

        Raises
        ------
        UnsupportedOperationError
            If the backend keeps no annotations.
        """
        raise self._unsupported("keeps no annotations")

    def is_finished(self) -> bool:
        """Return whether the dataset accepts no more frames."""
        raise self._unsupported("does not report whether it is finished")

    @property
    def status(self) -> DatasetStatus:
        """The status of the dataset."""
        raise self._unsupported("has no status")

    @_replaceable
    def status_reason(self) -> str:
        """The human-readable cause of the status; empty for a complete dataset."""
        return ""

    @_replaceable
    def annotations(self) -> Mapping[str, JsonValue]:
        """The JSON values that :meth:`annotate` stored with the dataset, such as its config and ledger."""
        return {}

    @property
    def summary_metadata(self) -> JsonValue:
        """Metadata of the whole dataset."""
        raise self._unsupported("has no summary metadata")

    @_replaceable
    def axes(self) -> Mapping[str, list[int | str]]:
        """The positions on each axis: integers ascending, then names in the order of arrival.

        Raises
        ------
        UnsupportedOperationError
            If the backend does not list its coordinates.
        """
        found: dict[str, dict[int | str, None]] = {}
        for coordinates in self:
            for axis, position in coordinates.items():
                found.setdefault(axis, {})[position] = None
        return {axis: sorted(positions, key=position_order) for axis, positions in found.items()}

    @_replaceable
    def has_checksums(self) -> bool:
        """Whether this dataset has checksums, so that a damaged frame is detected."""
        return self.capabilities.checksums

    @_replaceable
    def resolution_levels(self) -> tuple[int, ...]:
        """The resolution levels: level 0 is full resolution, level n is smaller by ``2**n``."""
        return (0,)

    def level(self, number: int) -> "DataStorage":
        """Return the frames of one resolution level.

        Raises
        ------
        CoordinatesNotFoundError
            If the dataset does not have the level.
        """
        if number != 0:
            raise CoordinatesNotFoundError(f"the levels are {self.resolution_levels}, got {number}")
        return self

    def check_structure(self) -> list[str]:
        """Check the format's own structure, apart from the frames: headers, directories, lengths.

        Returns
        -------
        list of str
            The faults, one sentence each; empty if the structure is sound.

        Raises
        ------
        UnsupportedOperationError
            If the backend cannot.
        """
        raise self._unsupported("does not check its structure")

    def await_new_data(self, timeout: float | None = None) -> bool:
        """Wait until a frame is added, by this or another process, or until the dataset is finished.

        Parameters
        ----------
        timeout : float, optional
            The longest time to wait, in seconds; None for no limit.

        Returns
        -------
        bool
            False if the time ran out.
        """
        raise self._unsupported("cannot wait for data")

    def as_array(
        self, axes: Iterable[str] | None = None, *, missing: Literal["raise", "mask"] | float = "raise"
    ) -> Any:
        """Return all frames as one array, lazily if the backend can.

        Parameters
        ----------
        axes : iterable of str, optional
            Order of the leading axes; by default the order in which they first appeared.
        missing : {'raise', 'mask'} or number
            The treatment of absent frames: an error, a mask, or this value in their place.

        Returns
        -------
        array
            ``(*axes, Y, X[, 3])``.
        """
        raise self._unsupported("cannot be read as one array")

    def _unsupported(self, what: str) -> UnsupportedOperationError:
        return UnsupportedOperationError(f"{type(self).__name__} {what}")

    # -- context manager -------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Finish and close; after an exception finish as aborted."""
        try:
            if error is None:
                self.finish()
            else:
                self.abort(describe(error))
        finally:
            self.close()
