"""The backend under test: helpers that create its storages and frames and compare them with a model.

The model is a dict that maps coordinates (as a frozenset of items) to a frame and its metadata. It uses none
of the code under test.
"""

import contextlib
import errno
import functools
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage
from exengine.kernel.errors import ExEngineError, UnsupportedOperationError, describe
from exengine.testing.frames import Array, check_frame, frame_of
from exengine.testing.promises import NotPromised, PromiseBrokenError

Axes = dict[str, int | str]
Factory = Callable[..., DataStorage]

CHANNELS = ("DAPI", "Cy5", "GFP")


@dataclass
class Put:
    """One frame of the model, with its coordinates and metadata, exactly as a storage must return them."""

    axes: Axes
    frame: Array
    metadata: Any


def key_of(axes: Any) -> frozenset[tuple[str, int | str]]:
    """Return the key under which a model stores a frame; it does not depend on the order of the axes."""
    return frozenset(dict(axes).items())


class Subject:
    """A backend under test, together with helpers for the tests.

    Parameters
    ----------
    factory : callable
        A function that returns a new, empty storage. It is called like ``DataStorage.create``: with the path
        if the backend is persistent, and without arguments otherwise.
    cls : type
        The class of the storages.
    folder : pathlib.Path
        The folder in which one test creates its datasets.
    name : str
        The registered name of the backend; empty for a class that is not registered.
    options : dict
        The options of the backend.
    thorough : bool
        Whether the tests search longer than in a usual run.
    """

    def __init__(
        self,
        factory: Factory,
        cls: type[DataStorage],
        folder: Path,
        name: str,
        options: dict[str, Any],
        *,
        thorough: bool = False,
    ) -> None:
        self.factory = factory
        self.cls = cls
        self.folder = folder
        self.name = name
        self.options = options
        self.thorough = thorough
        self.varied = False  # whether the frames have several shapes
        self.has_failed = False  # whether an earlier test has failed
        self.not_promised_by = ""  # the capabilities that rule out the tested promise
        self._made: list[DataStorage] = []
        self._numbers = 0

    # -- declared capabilities -------------------------------------------------------------------

    @functools.cached_property
    def can(self) -> StorageCapabilities:
        """The declared capabilities of the backend with its options."""
        return self.cls.capabilities_for(self.options)

    @functools.cached_property
    def dtype(self) -> np.dtype[Any]:
        """A dtype that the backend accepts."""
        names = self.can.dtypes
        return np.dtype("uint16" if names is None or "uint16" in names else names[0])

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """A shape that the backend accepts, usually ``(Y, X)``, with enough pixels to encode coordinates."""
        allowed = self.can.ndim
        return shape_of(2 if allowed is None or 2 in allowed else allowed[0])

    @property
    def metadata_value(self) -> Any:
        """Metadata that the backend accepts."""
        return {"exposure_ms": 10, "stage": {"x_um": 1.5}} if self.can.metadata else {}

    def axes(self, number: int) -> Axes:
        """Return the coordinates of a numbered frame.

        They have three axes, or fewer if the backend accepts fewer. The positions on one of them are strings
        if the backend declares string axes.
        """
        most = 3 if self.can.most_axes is None else self.can.most_axes
        if most == 1:
            return {"time": number}
        place = number // 2 % 3 if most > 2 else number % 3
        channel: int | str = CHANNELS[place] if self.can.string_axes else place
        if most == 2:
            return {"time": number // 3, "channel": channel}
        return {"time": number // 6, "channel": channel, "z": number % 2}

    def frame(self, axes: Axes, salt: int = 0) -> Array:
        """Return the frame for the given coordinates."""
        shape = self.shape
        if self.varied and len(shape) > 1:
            shape = (shape[0] + sum(at for at in axes.values() if isinstance(at, int)) % 3, *shape[1:])
        return frame_of(axes, shape, self.dtype, salt)

    def with_options(self, **options: Any) -> "Subject":
        """Return the same backend with other options, in the same folder."""
        cls, merged = self.cls, {**self.options, **options}
        return Subject(
            lambda *place: cls.create(*place, **merged),
            cls,
            self.new_path().parent,
            self.name,
            merged,
            thorough=self.thorough,
        )

    # -- storages --------------------------------------------------------------------------------

    def new_path(self) -> Path:
        """Create a folder and return a path in it that does not exist yet."""
        self._numbers += 1
        folder = self.folder / f"place-{self._numbers}"
        folder.mkdir()
        return folder / f"dataset{(*self.can.path_suffixes, '')[0]}"

    def create(self, path: Path | None = None) -> DataStorage:
        """Return a new, empty storage, which is closed when the test ends."""
        place = (os.fspath(path or self.new_path()),) if self.can.persistent else ()
        storage = self.factory(*place)
        self._made.append(storage)
        return storage

    def open(self, path: Path) -> DataStorage:
        """Open a dataset in the same way as the registry does. The storage is closed when the test ends."""
        from exengine.datasets.opening import open_dataset

        storage = open_dataset(path, backend=self.name) if self.name else self.cls.open(os.fspath(path))
        self._made.append(storage)
        return storage

    def resume(self, path: Path) -> DataStorage:
        """Continue a dataset. The storage is closed when the test ends."""
        storage = self.cls.resume(os.fspath(path), **self.options)
        self._made.append(storage)
        return storage

    def forget(self) -> None:
        """Forget all storages created so far, but do not close them."""
        self._made.clear()

    def close_all(self) -> None:
        """Close all storages that the test left open. Ignore exceptions, as they are not part of the test."""
        while self._made:
            with contextlib.suppress(Exception):
                self._made.pop().close()

    def fill(self, storage: DataStorage, count: int, first: int = 0) -> "Model":
        """Put frames and return a model that contains them."""
        model = Model(self)
        for number in range(first, first + count):
            model.put(storage, self.axes(number), self.numbered(number))
        return model

    def numbered(self, number: int) -> dict[str, Any]:
        """Return metadata that contains a number; an empty dict if the backend stores no metadata."""
        return {**self.metadata_value, "number": number} if self.can.metadata else {}

    # -- refusals --------------------------------------------------------------------------------

    def not_promised(self, *capabilities: str) -> None:
        """End the test because the declared values of these capabilities rule out the promise."""
        raise NotPromised(", ".join(f"{name}={getattr(self.can, name)!r}" for name in capabilities))

    def needs_reopen(self) -> None:
        """If the backend cannot reopen datasets, check that ``open`` is refused, then end the test."""
        if not (self.can.persistent and self.can.reopen):
            self.refuses(lambda: self.cls.open(os.fspath(self.folder)), "open(path)")
            self.not_promised("persistent", "reopen")

    def refuses(self, call: Callable[[], Any], what: str) -> None:
        """Raise an error unless a call raises UnsupportedOperationError, which is the documented refusal."""
        try:
            result = call()
        except UnsupportedOperationError:
            return
        except Exception as error:
            raise PromiseBrokenError(
                "", f"{what} raised {describe(error)} instead of UnsupportedOperationError"
            ) from error  # fmt: skip
        raise PromiseBrokenError(
            "",
            f"{what} returned {result!r:.80} instead of raising UnsupportedOperationError",
        )


class Model:
    """The expected content of a storage, kept as a dict, with methods that compare a storage with it.

    Parameters
    ----------
    subject : Subject
        The backend under test.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.frames: dict[frozenset[tuple[str, int | str]], Put] = {}

    def put(self, storage: DataStorage, axes: Axes, metadata: Any = None, frame: Array | None = None) -> None:
        """Put a frame into the storage and, after that call has returned, into the model."""
        frame = self.subject.frame(axes) if frame is None else frame
        metadata = self.subject.metadata_value if metadata is None else metadata
        storage.put(dict(axes), frame.copy(), metadata)
        self.add(axes, frame, metadata)

    @staticmethod
    def entry(axes: Axes, frame: Array, metadata: Any) -> Put:
        """Return an entry of the model: one frame as a storage must return it."""
        return Put(dict(axes), frame, metadata)

    def add(self, axes: Axes, frame: Array, metadata: Any) -> None:
        """Add a frame that the storage has accepted."""
        self.frames[key_of(axes)] = self.entry(axes, frame, metadata)

    def check(self, storage: DataStorage, label: str = "P1", *, absent: Axes | None = None) -> None:
        """Raise an error unless the storage contains exactly the frames of the model.

        Parameters
        ----------
        storage : DataStorage
            The storage to compare with the model.
        label : str
            The label of the promise that is broken if the storage differs from the model.
        absent : dict, optional
            Coordinates at which the storage must not have a frame.
        """
        others = [(put.axes, put.frame) for put in self.frames.values()]
        for put in self.frames.values():
            self.check_one(storage, put, label, others)
        if absent is not None and key_of(absent) not in self.frames:
            if absent in storage:
                raise PromiseBrokenError(
                    label, f"`in` returned True for {absent!r:.200}, where no frame was put"
                )
        if self.subject.can.iterable:
            if len(storage) != len(self.frames):
                raise PromiseBrokenError(
                    label, f"len(storage) is {len(storage)}; stored frames: {len(self.frames)}"
                )
            check_order([key_of(coordinates) for coordinates in storage], list(self.frames), label)

    def check_one(self, storage: DataStorage, put: Put, label: str = "P1", others: Any = ()) -> None:
        """Raise an error unless the storage contains a bit-equal copy of a frame, with its metadata."""
        if put.axes not in storage:
            raise PromiseBrokenError(
                label, f"a frame was put at {put.axes!r:.200}, but is not in the storage"
            )
        try:
            got = storage.get_data(put.axes)
        except Exception as error:
            raise PromiseBrokenError(
                label, f"get_data({put.axes!r:.200}) raised {describe(error)}"
            ) from error
        check_frame(got, put.frame, put.axes, label, others)
        if self.subject.can.metadata:
            check_metadata(storage, put.axes, put.metadata, label)


def check_order(got: Sequence[Any], wanted: Sequence[Any], label: str = "R4") -> None:
    """Raise an error that names the first difference, unless two lists of coordinates are equal."""
    for number, (one, other) in enumerate(zip(got, wanted, strict=False)):
        if one != other:
            raise PromiseBrokenError(
                label,
                f"entry {number} in the order of the coordinates is {_shown(one)}, but should be "
                f"{_shown(other)}",
            )
    if len(got) != len(wanted):
        raise PromiseBrokenError(label, f"coordinates listed: {len(got)}; frames put: {len(wanted)}")


def _shown(coordinates: Any) -> str:
    items = sorted(coordinates) if isinstance(coordinates, frozenset) else coordinates
    return repr(dict(items))


def check_metadata(storage: DataStorage, axes: Axes, wanted: Any, label: str = "P9") -> None:
    """Raise an error unless a frame's metadata is equal to the JSON value that was put."""
    got = storage.get_metadata(axes)
    if not same_json(got, wanted):
        raise PromiseBrokenError(
            label,
            f"the metadata at {axes!r:.200} was stored as {wanted!r:.200}, but was returned as {got!r:.200}",
        )


def same_json(got: Any, wanted: Any) -> bool:
    """Return whether two JSON values are equal, treating ``1``, ``1.0`` and ``True`` as different values."""
    if type(got) is not type(wanted):
        return False
    if isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(same_json(got[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(same_json, got, wanted))
    return bool(got == wanted)


def shape_of(ndim: int) -> tuple[int, ...]:
    """Return a shape with ``ndim`` dimensions that is, if possible, large enough to encode coordinates."""
    known: dict[int, tuple[int, ...]] = {0: (), 1: (960,), 2: (24, 40), 3: (24, 40, 3)}
    return known.get(ndim) or (() if ndim == 0 else (*(2,) * (ndim - 2), 24, 40))


def refusal_of(call: Callable[[], Any]) -> ExEngineError | None:
    """Return the ExEngineError that a call raises, or None if the call returns.

    Raises
    ------
    PromiseBrokenError
        If the call raises any other exception.
    """
    try:
        call()
    except ExEngineError as error:
        return error
    except Exception as error:
        raise PromiseBrokenError(
            "", f"{type(error).__name__}, which is not an ExEngineError, was raised: {error!s:.300}"
        ) from error
    return None


def ending_of(error: BaseException | None, most: int = 200) -> str:
    """Return "returned" or, if there is an exception, "raised" and the exception, for use in a message."""
    return "returned" if error is None else f"raised {error!r:.{most}}"


def status_of(storage: DataStorage) -> DatasetStatus | None:
    """Return the status of a storage, or None if the backend does not report one."""
    try:
        return storage.status
    except UnsupportedOperationError:
        return None


_BLOCK = 2**16


def tree_of(folder: Path, without: Path | None = None) -> dict[str, str]:
    """Return the digest of each item below a folder, by relative path. Links are not followed.

    Parameters
    ----------
    folder : pathlib.Path
    without : pathlib.Path, optional
        A path below the folder that is left out, with everything below it.
    """
    tree = {}
    for path in sorted(_walk(folder, without)):
        name = os.fspath(path.relative_to(folder))
        if path.is_symlink():
            tree[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            tree[name] = _digest_of(path)
        else:
            tree[name] = "folder"
    return tree


def _walk(folder: Path, without: Path | None) -> Iterator[Path]:
    for base, folders, files in os.walk(folder):
        if without is not None and Path(base) == without.parent:
            folders[:] = [name for name in folders if name != without.name]
            files = [name for name in files if name != without.name]
        for name in (*folders, *files):
            yield Path(base, name)


def _digest_of(path: Path) -> str:
    """Return a digest of a file's size and nonzero blocks. Holes in the file do not affect the digest."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        found.update(size.to_bytes(8, "little"))
        at = _next_data(file.fileno(), 0)
        while at < size:
            file.seek(at)
            block = file.read(_BLOCK)
            if block.count(0) < len(block):
                found.update(at.to_bytes(8, "little") + block)
            at = _next_data(file.fileno(), at + _BLOCK)
    return found.hexdigest()


def _next_data(descriptor: int, at: int) -> int:
    """Return the offset of the first block at or after ``at`` that is not in a hole."""
    if not hasattr(os, "SEEK_DATA"):
        return at
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA) // _BLOCK * _BLOCK
    except OSError as error:
        return sys.maxsize if error.errno == errno.ENXIO else at


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until a condition is true, and raise an error after a timeout."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise PromiseBrokenError("", f"{what} took longer than {timeout_s} s")
        time.sleep(0.005)


def coordinates_of(storage: DataStorage) -> list[list[tuple[str, int | str]]]:
    """Return the coordinates of all frames as lists of items. Frames and axes keep their order."""
    return [list(coordinates.items()) for coordinates in storage]
