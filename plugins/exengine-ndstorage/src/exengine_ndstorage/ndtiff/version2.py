"""NDTiff of version 2: what the ``ndstorage`` library knows best.

The library prints to stdout while it opens, and raises bare exceptions; neither gets out of here.
"""

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.base_classes import (
    CoordinateIndex,
    DatasetReader,
    DatasetStatus,
    DataStorage,
    JsonValue,
    open_regular,
    read_at,
)
from exengine.errors import DatasetDamagedError
from exengine_ndstorage.ndtiff import format as layout
from exengine_ndstorage.ndtiff.files import CHUNK_BYTES, READ, OpenFile
from exengine_ndstorage.ndtiff.index_table import FrameTable
from exengine_ndstorage.ndtiff.reader import pixel_bytes, refuse_link
from exengine_ndstorage.ndtiff.writer import NDTiffStorage

_opening = threading.Lock()


class _Silence:
    """A stdout that one thread cannot write to, and all others can."""

    def __init__(self, stdout: Any) -> None:
        self._stdout = stdout
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stdout.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    # stdout and the filters of warnings belong to the whole process: one at a time.
    with _opening, warnings.catch_warnings(), contextlib.redirect_stdout(_Silence(sys.stdout)):
        warnings.simplefilter("ignore")
        yield


def _refuse_what_the_library_would_follow(path: str) -> None:
    """Refuse links, pipes and devices, which the library opens, and lengths that it believes."""
    for folder in (path, *(entry.path for entry in list(os.scandir(path)) if entry.is_dir())):
        if folder != path:
            refuse_link(folder)
        for entry in list(os.scandir(folder)):
            if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
                raise DatasetDamagedError(f"{entry.path} is no regular file, and not read")
            if entry.name.endswith(".tif"):
                size = os.stat(entry.path).st_size
                with os.fdopen(open_regular(entry.path), "rb") as file:
                    head = file.read(24)
                told = int.from_bytes(head[20:24], "little")
                if len(head) < 24 or told > min(size, layout.MAX_SUMMARY_BYTES):
                    raise DatasetDamagedError(f"{entry.path}: the summary metadata are longer than the file")
        if os.path.lexists(os.path.join(folder, layout.INDEX_NAME)):
            _refuse_what_no_file_holds(folder)


def _refuse_what_no_file_holds(folder: str) -> None:
    """Refuse an index that claims more than a file has: the library takes memory for it."""
    file = OpenFile(os.path.join(folder, layout.INDEX_NAME), READ)  # of the same form in all versions
    size = os.fstat(file.descriptor).st_size
    table = FrameTable()
    done = 0
    while done < size:
        taken = table.feed(read_at(file.descriptor, CHUNK_BYTES, done))
        if not taken:
            raise DatasetDamagedError(f"{folder}: the index cannot be read from byte {done} on")
        done += taken
    names = [entry.name for entry in list(os.scandir(folder)) if entry.name.endswith(".tif")]
    most = max((os.stat(os.path.join(folder, name)).st_size for name in names), default=0)
    for number in range(len(table) + len(table.superseded)):
        _, form, _, _, metadata_bytes = table.place(number)
        if max(pixel_bytes(table.forms[form]), metadata_bytes) > most:
            raise DatasetDamagedError(f"{folder}: the index claims more bytes for a frame than a file has")


class Version2Reader(DatasetReader):
    """A dataset of NDTiff version 2, opened to read through ``ndstorage``."""

    capabilities = NDTiffStorage.capabilities

    def __init__(self, path: str) -> None:
        frames = CoordinateIndex()
        super().__init__(path, frames, DatasetStatus.COMPLETE)
        self._library = threading.Lock()  # it reads from one place of one file
        self._dataset: Any = None
        _refuse_what_the_library_would_follow(path)
        with self._translated(), _silence():
            import ndstorage  # type: ignore[import-untyped]

            self._dataset = ndstorage.Dataset(path)
            keys = [dict(sorted(dict(key).items())) for key in self._dataset.get_index_keys()]
        self._keys = sorted(keys, key=lambda key: [(name, str(type(at)), at) for name, at in key.items()])
        for key in self._keys:
            frames.add(key)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever the library raises into an error of ours."""
        with self._library:
            try:
                yield
            except Exception as error:
                raise DatasetDamagedError(
                    f"{self.path} cannot be read: {type(error).__name__}: {error}"
                ) from error

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset; see ``NDTiffStorage.open``."""
        return NDTiffStorage.open(path)

    @property
    def has_checksums(self) -> bool:
        """Return False: the format has none."""
        return False

    @property
    def summary_metadata(self) -> JsonValue:
        return self._dataset.summary_metadata

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        with self._translated():
            return np.array(self._dataset.read_image(**self._keys[number]))

    def read_frame_metadata(self, number: int) -> JsonValue:
        with self._translated():
            return self._dataset.read_metadata(**self._keys[number])

    def release(self) -> None:
        if self._dataset is not None:
            with self._translated():
                self._dataset.close()
