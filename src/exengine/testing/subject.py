"""The backend under test: makes storages, frames that it takes, and compares it with a model.

The model is a dict of coordinates (as a frozenset of items) to frames; it uses none of the code under test.
"""

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator
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
    """One frame of the model, which the storage must return."""

    axes: Axes
    frame: Array
    metadata: Any


def key_of(axes: Any) -> frozenset[tuple[str, int | str]]:
    """Return the key of a frame in a model; the order of the axes makes no difference."""
    return frozenset(dict(axes).items())


class Subject:
    """A backend under test, with helpers to use it.

    Parameters
    ----------
    factory : callable
        Creates an empty storage; called like ``DataStorage.create``: with the path if the backend is
        persistent, otherwise without arguments.
    cls : type
        The class of the storage.
    folder : pathlib.Path
        The folder for the datasets of one test.
    name : str
        The registered name of the backend; empty for a class that is not registered.
    options : dict
        The options of the backend.
    """

    def __init__(
        self, factory: Factory, cls: type[DataStorage], folder: Path, name: str, options: dict[str, Any]
    ) -> None:
        self.factory = factory
        self.cls = cls
        self.folder = folder
        self.name = name
        self.options = options
        self.not_promised_by = ""  # the capabilities that say so, where a test found that
        self._made: list[DataStorage] = []
        self._numbers = 0

    # -- declarations of the backend -------------------------------------------------------------

    @property
    def can(self) -> StorageCapabilities:
        """The capabilities of the backend."""
        return self.cls.capabilities

    @functools.cached_property
    def dtype(self) -> np.dtype[Any]:
        """A dtype that it takes."""
        names = self.can.dtypes
        return np.dtype("uint16" if names is None or "uint16" in names else names[0])

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """A shape that it takes, conventionally ``(Y, X)``, with room for a name."""
        allowed = self.can.ndim
        return shape_of(2 if allowed is None or 2 in allowed else allowed[0])

    @property
    def metadata_value(self) -> Any:
        """Metadata that can be put in any case."""
        return {"exposure_ms": 10, "stage": {"x_um": 1.5}} if self.can.metadata else {}

    def axes(self, number: int) -> Axes:
        """Return coordinates number 0, 1, ...: three axes, one of them text where that is declared."""
        channel: int | str = number // 2 % 3
        if self.can.string_axes:
            channel = CHANNELS[number // 2 % 3]
        return {"time": number // 6, "channel": channel, "z": number % 2}

    def frame(self, axes: Axes, salt: int = 0) -> Array:
        """Return the frame that belongs to coordinates."""
        return frame_of(axes, self.shape, self.dtype, salt)

    # -- storages --------------------------------------------------------------------------------

    def new_path(self) -> Path:
        """Return a path where nothing is, in a folder of its own."""
        self._numbers += 1
        folder = self.folder / f"place-{self._numbers}"
        folder.mkdir()
        return folder / f"dataset{(*self.can.path_suffixes, '')[0]}"

    def create(self, path: Path | None = None) -> DataStorage:
        """Return a new empty storage; it is closed when the test ends."""
        place = (os.fspath(path or self.new_path()),) if self.can.persistent else ()
        storage = self.factory(*place)
        self._made.append(storage)
        return storage

    def open(self, path: Path) -> DataStorage:
        """Open a dataset as the registry would; it is closed when the test ends."""
        from exengine.datasets.opening import open_dataset

        storage = open_dataset(path, backend=self.name) if self.name else self.cls.open(os.fspath(path))
        self._made.append(storage)
        return storage

    def forget(self) -> None:
        """Leave the storages that were made so far as they are."""
        self._made.clear()

    def close_all(self) -> None:
        """Close all storages of the test; exceptions of closing are not part of the test."""
        while self._made:
            with contextlib.suppress(Exception):
                self._made.pop().close()

    def fill(self, storage: DataStorage, count: int, first: int = 0) -> "Model":
        """Put frames and return the model of them."""
        model = Model(self)
        for number in range(first, first + count):
            model.put(storage, self.axes(number), self.numbered(number))
        return model

    def numbered(self, number: int) -> dict[str, Any]:
        """Return metadata that tells one frame from another, where metadata is kept."""
        return {**self.metadata_value, "number": number} if self.can.metadata else {}

    # -- limits of the promises ------------------------------------------------------------------

    def not_promised(self, *capabilities: str) -> None:
        """End the test: these capabilities say that this is not promised."""
        raise NotPromised(", ".join(f"{name}={getattr(self.can, name)!r}" for name in capabilities))

    def needs_reopen(self) -> None:
        """End the test for a backend that cannot reopen, having seen that it says so."""
        if not (self.can.persistent and self.can.reopen):
            self.refuses(lambda: self.cls.open(os.fspath(self.folder)), "open(path)")
            self.not_promised("persistent", "reopen")

    def refuses(self, call: Callable[[], Any], what: str) -> None:
        """Raise unless a call raises UnsupportedOperationError, the documented refusal."""
        try:
            result = call()
        except UnsupportedOperationError:
            return
        except Exception as error:
            raise PromiseBrokenError(
                "", f"{what} is not declared; it raised {describe(error)}, and not "
                "UnsupportedOperationError"
            ) from error  # fmt: skip
        raise PromiseBrokenError(
            "", f"{what} is not declared, and returned {result!r:.80} in place of UnsupportedOperationError"
        )


class Model:
    """The expected content of a storage: a dict, and the comparison with it.

    Parameters
    ----------
    subject : Subject
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.frames: dict[frozenset[tuple[str, int | str]], Put] = {}

    def put(self, storage: DataStorage, axes: Axes, metadata: Any = None, frame: Array | None = None) -> None:
        """Put a frame into the storage and, when that has returned, into the model."""
        frame = self.subject.frame(axes) if frame is None else frame
        metadata = self.subject.metadata_value if metadata is None else metadata
        storage.put(dict(axes), frame.copy(), metadata)
        self.add(axes, frame, metadata)

    @staticmethod
    def entry(axes: Axes, frame: Array, metadata: Any) -> Put:
        """Return one frame that a storage has to give back."""
        return Put(dict(axes), frame, metadata)

    def add(self, axes: Axes, frame: Array, metadata: Any) -> None:
        """Note a frame that the storage has taken."""
        self.frames[key_of(axes)] = self.entry(axes, frame, metadata)

    def check(self, storage: DataStorage, label: str = "P1", *, absent: Axes | None = None) -> None:
        """Raise unless the storage holds exactly this.

        Parameters
        ----------
        storage : DataStorage
        label : str
            The promise that is broken otherwise.
        absent : dict, optional
            Coordinates that must hold nothing.
        """
        others = [(put.axes, put.frame) for put in self.frames.values()]
        for put in self.frames.values():
            self.check_one(storage, put, label, others)
        if absent is not None and key_of(absent) not in self.frames:
            if absent in storage:
                raise PromiseBrokenError(label, f"{absent!r:.200} is in the storage, and was never stored")
        if self.subject.can.iterable:
            if len(storage) != len(self.frames):
                raise PromiseBrokenError(
                    label, f"len(storage) is {len(storage)}; {len(self.frames)} frames are stored"
                )
            got = [key_of(coordinates) for coordinates in storage]
            if got != list(self.frames):
                raise PromiseBrokenError(
                    label,
                    f"the coordinates are {got!r:.300}, and not, in this order, {list(self.frames)!r:.300}",
                )

    def check_one(self, storage: DataStorage, put: Put, label: str = "P1", others: Any = ()) -> None:
        """Raise unless the storage holds this frame, bit-equal, with its metadata."""
        if put.axes not in storage:
            raise PromiseBrokenError(label, f"{put.axes!r:.200} was put and is not in the storage")
        try:
            got = storage.get_data(put.axes)
        except Exception as error:
            raise PromiseBrokenError(
                label, f"get_data({put.axes!r:.200}) raised {describe(error)}"
            ) from error
        check_frame(got, put.frame, put.axes, label, others)
        if self.subject.can.metadata:
            check_metadata(storage, put.axes, put.metadata, label)


def check_metadata(storage: DataStorage, axes: Axes, wanted: Any, label: str = "P9") -> None:
    """Raise unless the metadata of a frame is the JSON value that was put."""
    got = storage.get_metadata(axes)
    if not same_json(got, wanted):
        raise PromiseBrokenError(
            label, f"the metadata at {axes!r:.200} came back as {got!r:.200}; {wanted!r:.200} was put"
        )


def same_json(got: Any, wanted: Any) -> bool:
    """Return whether two JSON values are the same; ``1``, ``1.0`` and ``True`` are three values."""
    if type(got) is not type(wanted):
        return False
    if isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(same_json(got[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(same_json, got, wanted))
    return bool(got == wanted)


def shape_of(ndim: int) -> tuple[int, ...]:
    """Return a shape with this number of dimensions that has room for a name."""
    known: dict[int, tuple[int, ...]] = {0: (), 1: (960,), 2: (24, 40), 3: (24, 40, 3)}
    return known.get(ndim) or (() if ndim == 0 else (*(2,) * (ndim - 2), 24, 40))


def refusal_of(call: Callable[[], Any]) -> ExEngineError | None:
    """Return the ``ExEngineError`` of a call; None if it returned.

    Raises
    ------
    PromiseBrokenError
        When it raised anything else.
    """
    try:
        call()
    except ExEngineError as error:
        return error
    except Exception as error:
        raise PromiseBrokenError(
            "", f"{type(error).__name__} was raised, which is no ExEngineError: {error!s:.300}"
        ) from error
    return None


def status_of(storage: DataStorage) -> DatasetStatus | None:
    """Return the status of a storage; None where the backend has none."""
    try:
        return storage.status
    except UnsupportedOperationError:
        return None


def tree_of(folder: Path) -> dict[str, str]:
    """Return every name below a folder with a digest of its content; links are not followed."""
    tree = {}
    for path in sorted(_walk(folder)):
        name = os.fspath(path.relative_to(folder))
        if path.is_symlink():
            tree[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            tree[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            tree[name] = "folder"
    return tree


def _walk(folder: Path) -> Iterator[Path]:
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(base, name)


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Return when a condition holds; raise when the time is up."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise PromiseBrokenError("", f"{what} took longer than {timeout_s} s")
        time.sleep(0.005)


def coordinates_of(storage: DataStorage) -> list[list[tuple[str, int | str]]]:
    """Return the coordinates of a storage in their order, each with its axes in their order."""
    return [list(coordinates.items()) for coordinates in storage]
