"""Resolution levels: smaller copies of the frames, so that viewers can display a large dataset as a whole.

Each level halves the height and width of the previous level. If one of them is odd, the last row or column is
computed from the pixels that exist. A level is divided into the same shards as the full resolution.
"""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.base_classes import NEW, DatasetReader, DatasetStatus, JsonValue, OpenFile, write_at
from exengine.errors import ExEngineError, UnsupportedOperationError
from exengine_ome_zarr.format import sizes
from exengine_ome_zarr.format.files import temporary
from exengine_ome_zarr.format.frame_files import FrameFiles
from exengine_ome_zarr.format.frame_reading import FrameName
from exengine_ome_zarr.format.images import Images, Method
from exengine_ome_zarr.format.journal import Record, unpack_record
from exengine_ome_zarr.format.layout import EMPTY, Indices, Layout, encode_index
from exengine_ome_zarr.format.pixels import PixelCodec
from exengine_ome_zarr.format.shards import rename_into_place
from exengine_ome_zarr.table import FrameTable


def level_factors(layout: Layout) -> tuple[int, ...]:
    """Return the downsampling factor of each level, up to the first level that viewers load as a whole."""
    factors = [1]
    while max(layout.height, layout.width) > sizes.LEAST_LEVEL_PIXELS * factors[-1]:
        factors.append(factors[-1] * 2)
    return tuple(factors)


def level_layout(layout: Layout, number: int) -> Layout:
    """Return the layout of a resolution level; level 0 has the full resolution."""
    factor = 2**number
    height, width = -(-layout.height // factor), -(-layout.width // factor)
    tile = min(layout.tile[0], height), min(layout.tile[1], width)
    return replace(layout, height=height, width=width, tile=tile, chunk=(1, 1, 1))


def halve(frame: npt.NDArray[Any], method: Method) -> npt.NDArray[Any]:
    """Return a frame of half the height and width, rounded up.

    Parameters
    ----------
    frame : numpy.ndarray
        ``(Y, X)`` or ``(Y, X, 3)``.
    method : {'mean', 'median', 'decimate'}
        Mean or median of each block of 2 x 2 pixels, or its first pixel. The median of four values is the
        mean of the two in the middle.

    Examples
    --------
    >>> halve(np.array([[1, 3, 5], [1, 3, 7]], np.uint16), "mean")
    array([[2, 6]], dtype=uint16)
    """
    if method == "decimate":
        return np.ascontiguousarray(frame[::2, ::2])
    pad = [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2)] + [(0, 0)] * (frame.ndim - 2)
    if frame.shape[0] % 2 or frame.shape[1] % 2:
        frame = np.pad(frame, pad, mode="edge")  # blocks at the edge repeat their last row or column
    blocks = [frame[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    if method == "median":
        low, high = np.sort(np.stack(blocks), axis=0)[1:3]
        blocks = [low, high]
    if frame.dtype.kind == "f":
        return np.asarray(sum(block / len(blocks) for block in blocks), frame.dtype)
    if frame.dtype.itemsize < 4:
        total = sum(block.astype(np.int32) for block in blocks)
        return np.asarray((total + len(blocks) // 2) // len(blocks), frame.dtype)
    # Dividing first avoids an overflow of 64-bit sums.
    count = frame.dtype.type(len(blocks))
    quotient = sum(block // count for block in blocks)
    remainder = sum(block % count for block in blocks)
    return np.asarray(quotient + (remainder + count // 2) // count, frame.dtype)


def build_shard(
    folder: str,
    layout: Layout,
    method: Method,
    names: list[str],
    frames: Iterable[tuple[Indices, npt.NDArray[Any]]],
    may_finish: Callable[[], bool] = lambda: True,
) -> None:
    """Write one shard of each level.

    Parameters
    ----------
    folder : str
    layout : Layout
        The layout of the full resolution.
    method : {'mean', 'median', 'decimate'}
    names : list of str
        For each level, the path of its shard in the dataset. The first path refers to the existing
        full-resolution shard.
    frames : iterable of ((t, c, z), numpy.ndarray)
        The indices and pixels of each frame in the shard.
    may_finish : callable
        Returns whether ``frames`` is complete. If not, nothing is written.
    """
    writers = [_LevelShard(folder, level_layout(layout, number)) for number in range(1, len(names))]
    try:
        for indices, frame in frames:
            for writer in writers:
                frame = halve(frame, method)
                writer.add(indices, frame)
        if not may_finish():
            return
        for writer, name in zip(writers, names[1:], strict=True):
            writer.finish(os.path.join(folder, name))
    finally:
        for writer in writers:
            writer.discard()


def read_frames(files: FrameFiles, records: Iterable[Record]) -> Iterator[tuple[Indices, npt.NDArray[Any]]]:
    """Yield the indices and pixels of the frames that journal records describe."""
    for record in records:
        _, image, t, c, z, *_ = record
        text = f"the frame at t {t}, c {c}, z {z} of image {image}"
        yield (t, c, z), files.read(record, FrameName(lambda _, text=text: text, 0))  # type: ignore[misc]


class PyramidBuilder:
    """Builds the levels of complete shards on a low-priority thread, while more frames are stored.

    The thread uses only spare processor time. It processes a shard when all frames of the shard are stored;
    ``finish`` builds all levels that the thread has not built.

    Parameters
    ----------
    folder : str
    layout : Layout
    images : Images
    method : {'mean', 'median', 'decimate'}
    frames_in_shard : callable
        Returns the number of frames that the shard of a given frame will contain.
    """

    def __init__(
        self,
        folder: str,
        layout: Layout,
        images: Images,
        method: Method,
        frames_in_shard: Callable[[int, int, int, int], int],
    ) -> None:
        self._folder = folder
        self._layout = layout
        self._images = images
        self._method: Method = method
        self._frames_in_shard = frames_in_shard
        self._waiting: dict[
            tuple[int, int, int, int], list[Record]
        ] = {}  # the frame records of incomplete shards
        self._jobs: SimpleQueue[list[Record] | None] = SimpleQueue()
        self._ending = False
        self._thread: threading.Thread | None = None

    def stored(self, records: list[bytes]) -> None:
        """Add the journal records of stored frames."""
        for record in map(unpack_record, records):
            _, image, t, c, z, *_ = record
            shard = (image, *self._layout.shard_at(t, c, z))
            waiting = self._waiting.setdefault(shard, [])
            waiting.append(record)
            if len(waiting) == self._frames_in_shard(image, t, c, z):
                self._start(self._waiting.pop(shard))

    def _start(self, records: list[Record]) -> None:
        self._jobs.put(records)
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="exengine-pyramid", daemon=True)
            with contextlib.suppress(RuntimeError):  # if no thread can be created, finish builds the levels
                thread.start()
                self._thread = thread

    def _work(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # setpriority is not available on all systems
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        files = FrameFiles(self._folder, self._layout, self._images.array_path)
        while (job := self._jobs.get()) is not None:
            with contextlib.suppress(ExEngineError, OSError, MemoryError):  # finish builds this shard again
                self._build(files, job)
        files.release()

    def _build(self, files: FrameFiles, records: list[Record]) -> None:
        _, image, t, c, z, *_ = records[0]
        name = self._layout.shard_name(*self._layout.shard_at(t, c, z))
        levels = range(len(level_factors(self._layout)))
        names = [f"{self._images.level_path(image, number)}/{name}" for number in levels]
        frames = itertools.takewhile(lambda _: not self._ending, read_frames(files, records))
        build_shard(self._folder, self._layout, self._method, names, frames, lambda: not self._ending)

    def end(self) -> None:
        """Stop the thread after its current frame. Further calls have no effect."""
        self._ending = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None


class _LevelShard:
    """A shard that is being written at one resolution level."""

    def __init__(self, folder: str, layout: Layout) -> None:
        self._layout = layout
        self._codec = PixelCodec(layout)
        self._path = temporary(folder)
        self._file = OpenFile(self._path, NEW)
        self._end = 0
        self._entries = np.full((layout.chunks_in_shard, 2), EMPTY, np.uint64)

    def add(self, indices: Indices, frame: npt.NDArray[Any]) -> None:
        arranged = self._codec.arrange(frame)
        first = self._layout.chunk_number(*indices)
        if self._layout.is_compressed:
            chunks: list[Any] = self._codec.compress(arranged)
        else:
            chunks = list(arranged.reshape(self._layout.tiles, -1))
        for number, chunk in enumerate(chunks, first):
            size = memoryview(chunk).nbytes
            write_at(self._file.descriptor, (chunk,), self._end, size)
            self._entries[number] = self._end, size
            self._end += size

    def finish(self, path: str) -> None:
        index = encode_index(self._entries)
        write_at(self._file.descriptor, (index,), self._end, len(index))
        os.fsync(self._file.descriptor)
        rename_into_place(self._path, path)
        self._path = ""

    def discard(self) -> None:
        if self._path:
            os.unlink(self._path)


class LevelReader(DatasetReader):
    """One resolution level of a dataset.

    Parameters
    ----------
    path : str
        The folder of the dataset.
    number : int
        The number of the level, from 1.
    """

    def __init__(self, path: str, number: int) -> None:
        self._number = number
        self._table = FrameTable(path)
        self._table.live = False
        layout = self._table.layout
        assert layout is not None  # a dataset without frames has no levels
        super().__init__(path, self._table, DatasetStatus.COMPLETE)
        images = Images(path, layout, self._table.facts, self._table.labels)
        self._files = FrameFiles(
            path, level_layout(layout, number), lambda image: images.level_path(image, number)
        )

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        image, *at = self._table.place(number)
        is_compressed = self._files.layout.is_compressed
        name = FrameName(self._name, number)
        return self._files.read_by_index(image, (at[0], at[1], at[2]), is_compressed, name)

    def _name(self, number: int) -> str:
        return f"level {self._number} of the frame at {self._table.coordinates(number)} of {self.path}"

    def read_frame_metadata(self, number: int) -> JsonValue:
        raise UnsupportedOperationError(
            "resolution levels have no metadata of their own; read the metadata from the dataset"
        )

    def release(self) -> None:
        """Close the files."""
        self._files.release()

    def __reduce__(self) -> Any:
        return LevelReader, (self.path, self._number)
