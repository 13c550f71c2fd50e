"""The contract of a storage backend: the ``DataStorage`` abstract base class.

A backend is a class with six methods. Everything else here has an honest default: it works, or it
raises ``UnsupportedOperationError``; it never gives a wrong answer. A class need not even call
``super().__init__()``. Backends that write to disk do better to start from
:class:`exengine.kernel.storage.managed.ManagedStorage`, which keeps the storage promises for them.

Life cycle: created (``create`` or the class itself) -> any number of ``put`` -> ``finish`` (read
only from here) -> ``close``. The kernel passes all arguments by position.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import UnsupportedOperationError, describe

CoordinatesLike: TypeAlias = DataCoordinates | Mapping[str, int | str]
"""What every method takes as coordinates."""

JsonValue: TypeAlias = Any
"""Metadata: None, bool, int, float, str, or a list or a dict with str keys of these."""

Frame: TypeAlias = tuple[CoordinatesLike, npt.NDArray[Any], JsonValue]
"""Coordinates, pixels and metadata of one frame."""


class DatasetStatus(enum.StrEnum):
    """In which state a dataset is; see the storage promises."""

    INCOMPLETE = "incomplete"
    """Being written, or its writer died; every written frame is readable."""
    COMPLETE = "complete"
    """Finished, and no frame was dropped or failed."""
    ABORTED = "aborted"
    """Finished before the end of the acquisition; what is there is whole."""
    FAILED = "failed"
    """Finished after an error: some frames were not stored."""
    DAMAGED = "damaged"
    """Something that the dataset names is missing or was changed."""


@dataclass(frozen=True, kw_only=True)
class StorageCapabilities:
    """What a backend can do. The defaults claim the least.

    What is declared here is tested by the conformance kit and shown in the documentation.
    """

    persistent: bool = False
    """The dataset outlives the process and lies at a path."""
    dtypes: tuple[str, ...] | None = None
    """Names of the numpy dtypes it holds; None: any."""
    ndim: tuple[int, ...] | None = None
    """Numbers of dimensions of a frame; None: any."""
    same_shape: bool = False
    """All frames must have the shape and dtype of the first."""
    string_axes: bool = False
    """Positions may be str."""
    negative_indices: bool = False
    """Positions may be negative."""
    metadata: bool = False
    """Metadata of each frame is kept: any JSON value."""
    iterable: bool = False
    """``iter`` gives the coordinates and ``len`` their number."""
    reopen: bool = False
    """``open`` reads a dataset that was left behind."""
    read_while_writing: bool = False
    """A second process can read while the first writes."""
    concurrent_readers: bool = False
    """Several threads may read at once."""
    checksums: bool = False
    """A damaged frame is recognised."""
    safety_of_put: Literal["accepted", "written", "synced"] = "accepted"
    """What a frame survives when ``put`` has returned: nothing, the death of the process, power loss."""
    durable_flush: bool = False
    """``flush(durable=True)`` makes every frame survive power loss."""
    compression: tuple[str, ...] = ()
    """Names of the compressions it offers."""
    pyramids: bool = False
    """Datasets may hold resolution levels."""
    remote: bool = False
    """The path may be a URL."""
    path_suffixes: tuple[str, ...] = ()
    """What the path of a dataset ends in, if anything, such as ``.ome.zarr``."""
    readers: tuple[str, ...] = ()
    """Programs that open the dataset."""

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and the value of each capability, in order."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)


class DataStorage(ABC):
    """Where frames are put and read back: the base class of every storage backend.

    Implement the six abstract methods, describe every parameter of ``__init__`` in the class's
    docstring, and register the class under the entry-point group ``exengine.storage_backends``.
    """

    # -- identity and capabilities ---------------------------------------------------------------

    capabilities: ClassVar[StorageCapabilities] = StorageCapabilities()
    """What the backend can do."""

    place_parameters: ClassVar[tuple[str, ...] | None] = None
    """The parameters of ``__init__`` that say where the dataset lies, and so are no options. None: the
    first one, for a persistent backend. Whoever names others overrides :meth:`create` too."""

    # -- required operations ---------------------------------------------------------------------

    @abstractmethod
    def put(self, data_coordinates: CoordinatesLike, data: npt.NDArray[Any], metadata: JsonValue, /) -> None:
        """Store one frame.

        Parameters
        ----------
        data_coordinates : DataCoordinates or mapping of str to int or str
            Where the frame belongs.
        data : numpy.ndarray
            The pixels, conventionally ``(Y, X)`` or ``(Y, X, 3)``. The caller may change the array
            as soon as ``put`` has returned.
        metadata : JSON value
            What is known of the frame.

        Raises
        ------
        CoordinatesExistError
            When a frame is there already.
        UnsupportedDataError, MetadataError, CoordinatesError
            When the frame cannot be held; then nothing was changed.
        StorageStateError
            When the storage is finished, closed or failed.
        """

    @abstractmethod
    def get_data(self, data_coordinates: CoordinatesLike, /) -> npt.NDArray[Any]:
        """Return the pixels of one frame, bit-equal to what was put.

        Raises
        ------
        CoordinatesNotFoundError
            When nothing was put there. It is a ``KeyError``.
        """

    @abstractmethod
    def get_metadata(self, data_coordinates: CoordinatesLike, /) -> JsonValue:
        """Return the metadata of one frame.

        Raises
        ------
        CoordinatesNotFoundError
            When nothing was put there. It is a ``KeyError``.
        """

    @abstractmethod
    def __contains__(self, data_coordinates: object, /) -> bool:
        """Return whether a frame was put at these coordinates. Never raises."""

    @abstractmethod
    def finish(self) -> None:
        """Say that no more frames will come. The dataset is immutable from here. Idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Release what the storage holds. Idempotent."""

    def __getitem__(self, data_coordinates: CoordinatesLike) -> npt.NDArray[Any]:
        """Return the same as :meth:`get_data`."""
        return self.get_data(data_coordinates)

    # -- making and opening datasets -------------------------------------------------------------

    @classmethod
    def create(cls, path: str | PathLike[str] | None = None, /, **options: Any) -> Self:
        """Make a storage for a new dataset.

        Parameters
        ----------
        path : path, optional
            Where the dataset will lie, exactly. The kernel has checked that nothing is there. None
            for a backend that keeps nothing.
        **options
            The parameters of ``__init__``.
        """
        if cls.capabilities.persistent:
            return cls(path, **options)  # type: ignore[call-arg]  # of a subclass
        return cls(**options)

    @classmethod
    def can_open(cls, path: str | PathLike[str]) -> bool:
        """Return whether :meth:`open` can read what lies at the path. Cheap; opens no more than it must."""
        return False

    @classmethod
    def open(cls, path: str | PathLike[str]) -> "DataStorage":
        """Open an existing dataset to read; the object may be of another class.

        Raises
        ------
        UnsupportedOperationError
            When the backend cannot.
        """
        raise UnsupportedOperationError(f"{cls.__name__} cannot open an existing dataset")

    @classmethod
    def recover_in_place(cls, path: str | PathLike[str], lost: Collection[DataCoordinates], /) -> None:
        """Bring the format of a dataset in order, in place: all its frames but those that are lost.

        ``exengine recover --in-place`` calls it. The kernel holds the lock of the dataset, has kept
        what is lost in the manifest, and marks the dataset as finished afterwards.

        Parameters
        ----------
        path : path
            Of the dataset; its writer is gone.
        lost : collection of DataCoordinates
            Frames that the dataset names, and that cannot be read back. They are taken out.

        Notes
        -----
        The process may be killed at any point, and the call comes again then. It returns when all is
        at A2 (synced). What it takes out of an index it keeps beside it.

        Raises
        ------
        UnsupportedOperationError
            When the backend cannot; a copy can be made of any dataset.
        """
        raise UnsupportedOperationError(f"{cls.__name__} cannot recover a dataset in place")

    # -- optional operations, with honest defaults -----------------------------------------------

    def put_many(self, frames: Iterable[Frame]) -> None:
        """Store several frames, in order, as :meth:`put` does one by one.

        Parameters
        ----------
        frames : iterable of (coordinates, data, metadata)

        Raises
        ------
        ExEngineError
            As :meth:`put`. The frames before the one that was refused are stored.
        """
        for coordinates, data, metadata in frames:
            self.put(coordinates, data, metadata)

    def __iter__(self) -> Iterator[DataCoordinates]:
        """Yield the coordinates of every frame, in the order in which they were put."""
        raise self._unsupported("does not list its coordinates")

    def __len__(self) -> int:
        """Return the number of frames."""
        raise self._unsupported("does not count its frames")

    def __bool__(self) -> bool:
        """Return True: a storage is not False because it is empty."""
        return True

    def flush(self, durable: bool = False) -> None:
        """Bring every accepted frame to level A1 (written), or A2 (synced) if ``durable``.

        Raises
        ------
        UnsupportedOperationError
            When the backend cannot.
        """
        raise self._unsupported("cannot flush")

    def abort(self, reason: str = "", *, failed: bool = False) -> None:
        """Finish before the end; a backend that keeps a status marks the dataset.

        Parameters
        ----------
        reason : str
            Why, for people.
        failed : bool
            The status is ``failed`` and not ``aborted``.
        """
        self.finish()

    def annotate(self, name: str, value: JsonValue) -> None:
        """Keep a JSON value beside the dataset, such as the config it was made with.

        After an I/O error, until the dataset is ended, it is kept for the end, as far as the disk allows.

        Raises
        ------
        UnsupportedOperationError
            When the backend has no place for it.
        """
        raise self._unsupported("keeps no annotations")

    def is_finished(self) -> bool:
        """Return whether no more frames will come."""
        raise self._unsupported("does not tell whether it is finished")

    @property
    def status(self) -> DatasetStatus:
        """In which state the dataset is."""
        raise self._unsupported("has no status")

    @property
    def summary_metadata(self) -> JsonValue:
        """Metadata of the whole dataset."""
        raise self._unsupported("has no summary metadata")

    def check_structure(self) -> list[str]:
        """Look at the format's own structure, apart from the frames: headers, directories, lengths.

        Returns
        -------
        list of str
            What is not as it must be, a sentence each; empty when all is.

        Raises
        ------
        UnsupportedOperationError
            When the backend cannot.
        """
        raise self._unsupported("does not check its structure")

    def await_new_data(self, timeout: float | None = None) -> bool:
        """Wait until a frame is added, by this or another process, or until the dataset is finished.

        Parameters
        ----------
        timeout : float, optional
            In seconds; None waits without end.

        Returns
        -------
        bool
            False when the time ran out.
        """
        raise self._unsupported("cannot wait for data")

    def as_array(
        self, axes: Iterable[str] | None = None, *, missing: Literal["raise", "mask"] | float = "raise"
    ) -> Any:
        """Return all frames as one array, lazily where the backend can.

        Parameters
        ----------
        axes : iterable of str, optional
            Order of the leading axes; by default the order in which they first appeared.
        missing : {'raise', 'mask'} or number
            What stands where no frame was put: an error, a mask, or this value.

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


def dtype_names(*types: type[np.generic]) -> tuple[str, ...]:
    """Return the names that ``StorageCapabilities.dtypes`` takes for numpy scalar types.

    Examples
    --------
    >>> dtype_names(np.uint8, np.uint16)
    ('uint8', 'uint16')
    """
    return tuple(np.dtype(kind).name for kind in types)
