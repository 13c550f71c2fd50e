"""The frames of a dataset that is open for reading, with fast lookups among millions of frames."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.base_classes import DataCoordinates, Manifest, OpenFile, snapshot, summarize_positions
from exengine.errors import DatasetDamagedError
from exengine_ome_zarr.format.documents import Facts
from exengine_ome_zarr.format.files import JOURNAL, LAYOUT, checksum, read_lines
from exengine_ome_zarr.format.journal import HEADER, RECORD_BYTES, read_records
from exengine_ome_zarr.format.labels import Key, Labels
from exengine_ome_zarr.format.layout import FRAME_DIMENSIONS, NO_CODEC, Layout
from exengine_ome_zarr.format.sizes import MAX_OFFSET

DIMENSIONS = ("p", *FRAME_DIMENSIONS)
_MOST_CELLS = 8  # largest number of cells per frame in the lookup table
_MOST_VERIFIED_BYTES = 2**30
_RECENT = 4096  # largest number of frames in the dict before the table is extended


class FrameTable:
    """The frames of a dataset, from its journal and its layout file. The table can follow a growing dataset.

    Parameters
    ----------
    folder : str
    manifest : Manifest, optional
        The manifest, if the dataset is finished. It contains the size and the checksum of the journal.

    Attributes
    ----------
    layout : Layout or None
        The layout of the dataset, or None if it has no frames.
    labels : dict of str to Labels
    windows : dict of int to (float, float)
        For each channel, the pixel values that are shown as black and as white.
    facts : Facts
    summary : JSON value
        The metadata of the dataset as a whole.
    problem : str
        The reason why the layout file or the journal cannot be read; otherwise empty.
    journal : OpenFile or None
    verified : bool
        Whether the journal matches the checksum in the manifest.
    slots : (numpy.ndarray, numpy.ndarray)
        For each frame that was written to its slot, the offset in the shard and the CRC-32C; for any other
        frame, the offset is ``MAX_OFFSET``. Empty unless the journal is verified and the frames are not
        compressed.
    """

    def __init__(self, folder: str, manifest: Manifest | None = None) -> None:
        self._folder = folder
        self._manifest = manifest
        self.verified = False
        self._lock = threading.RLock()
        self.layout: Layout | None = None
        self.facts = Facts()
        self.labels = {dim: Labels() for dim in DIMENSIONS}
        self._members: list[tuple[int, str | tuple[str, ...], Callable[[Key], int | None]]] = []
        self.windows: dict[int, tuple[float, float]] = {}
        self.summary: Any = None
        self.problem = ""
        self.journal: OpenFile | None = None
        self.slots = np.zeros(0, np.uint64), np.zeros(0, np.uint32)
        self.live = True
        self._layout_at = 0
        self._count = 0
        # The image and indices of each frame, in the first ``_count`` columns.
        self._places = np.zeros((4, 0), np.uint32)
        self._lookup: npt.NDArray[np.int32] | None = None
        self._keys: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._sorted: npt.NDArray[np.intp] = np.zeros(0, np.intp)
        self._extents = (0, 0, 0, 0)
        self._recent: dict[tuple[int, int, int, int], int] = {}
        self.refresh()

    # -- reading the files -----------------------------------------------------------------------

    def refresh(self) -> bool:
        """Read new records, and return whether there were any."""
        with self._lock:
            if self.problem:
                return False
            before = self._count
            if self.journal is None and not self._open_journal():
                return False
            assert self.journal is not None
            pieces, slots = [], []
            while len(records := self._records_from(self._count)):
                pieces.append(np.stack([records[name] for name in ("image", "t", "c", "z")]))
                if self.verified:
                    offsets = np.where(records["part"] == 0, records["offset"], np.uint64(MAX_OFFSET))
                    slots.append((offsets, records["stored_crc"].copy()))
                self._count += len(records)
            if not pieces:
                if not self._layout_at:
                    self._read_layout()  # a dataset without frames can have a summary
                return False
            self._read_layout()  # read the layout last, so that it has all labels of these frames
            if self.layout is None:
                self.problem = self.problem or "the layout of its frames is missing"
                self._count = before
                return False
            self._add(np.concatenate(pieces, axis=1), before)
            if slots and not before and self.layout.codec == NO_CODEC:
                all_offsets, checksums = zip(*slots, strict=True)
                self.slots = np.concatenate(all_offsets), np.concatenate(checksums)
            return True

    def _records_from(self, first: int) -> npt.NDArray[np.void]:
        assert self.journal is not None
        return read_records(self.journal.descriptor, first, verified=self.verified)

    def _open_journal(self) -> bool:
        try:
            journal = OpenFile(os.path.join(self._folder, JOURNAL), os.O_RDONLY)
        except FileNotFoundError:  # the writer has just created the folder
            self._read_layout()
            return False
        except OSError as error:
            self.problem = f"the journal cannot be opened: {error.strerror}"
            return False
        header = os.pread(journal.descriptor, RECORD_BYTES, 0)
        if header != HEADER:
            if len(header) < RECORD_BYTES or not any(header):
                return False  # the writer has just created the file
            self.problem = "the journal does not begin with a valid header"
            return False
        self.journal = journal
        self.verified = self._is_as_written(journal)
        return True

    def _is_as_written(self, journal: OpenFile) -> bool:
        """Return whether the manifest proves that the journal is complete and unchanged."""
        manifest = self._manifest
        if manifest is None or manifest.frames is None:
            return False
        size = (manifest.frames + 1) * RECORD_BYTES
        # Computing the checksum of a larger file would take too long, and hostile files can have any size.
        if size > _MOST_VERIFIED_BYTES or os.fstat(journal.descriptor).st_size != size:
            return False
        return manifest.facts.get("journal_crc32c") == checksum(journal)

    def _read_layout(self) -> None:
        try:
            values, self._layout_at = read_lines(self._folder, self._layout_at)
        except FileNotFoundError:  # a writer creates the layout file before the dataset appears
            self.problem = f"{LAYOUT} is missing"
            return
        except OSError as error:
            self.problem = f"{LAYOUT} cannot be opened: {error.strerror}"
            return
        try:
            for value in values:
                self._read_line(value)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            self.problem = f"the layout of its frames is not valid: {error!r:.200}"

    def _read_line(self, value: Any) -> None:
        if "summary" in value:
            self.summary = value["summary"]
        elif "layout" in value:
            self.layout = Layout.from_json(value["layout"])
            self.facts = Facts.from_json(value["facts"])
            self._members = [
                (row, axes[0] if len(axes) == 1 else axes, self.labels[dim].find)
                for row, dim in enumerate(DIMENSIONS)
                if (axes := self.layout.roles.get(dim))
            ]
        elif "label" in value:
            dim, index, key = value["label"]
            if type(index) is not int or not 0 <= index < 2**31:
                raise ValueError(f"the index {index!r:.40}")
            keys = key if isinstance(key, list) else [key]
            members = self.layout.roles[dim] if self.layout is not None else ()
            if len(keys) != len(members) or any(type(each) not in (int, str) for each in keys):
                raise ValueError(f"the label {key!r:.40}")
            self.labels[dim].add(tuple(key) if isinstance(key, list) else key, index)
        elif "window" in value:
            channel, low, high = value["window"]
            self.windows[int(channel)] = (float(low), float(high))

    @property
    def journal_bytes(self) -> int:
        """The size of the valid part of the journal."""
        return (self._count + 1) * RECORD_BYTES

    @property
    def layout_bytes(self) -> int:
        """The size of the valid part of the layout file."""
        return self._layout_at

    # -- looking up frames -----------------------------------------------------------------------

    def _add(self, places: npt.NDArray[np.uint32], first: int) -> None:
        new = places.shape[1]
        for dim, last in zip(DIMENSIONS, np.amax(places, axis=1).tolist(), strict=True):
            self.labels[dim].extend(last + 1)
        if first + new > self._places.shape[1]:
            # Doubling the capacity copies each entry only a few times, even if frames arrive one by one.
            grown = np.zeros((4, first + max(new, first)), np.uint32)
            grown[:, :first] = self._places[:, :first]
            self._places = grown
        self._places[:, first : first + new] = places
        if len(self._recent) + new <= _RECENT and self._count > _RECENT:
            for number, place in enumerate(zip(*places.tolist(), strict=True), first):
                self._recent[place] = number
        else:
            self._build(self._places[:, : first + new])

    def _build(self, places: npt.NDArray[np.uint32]) -> None:
        """Build the lookup for all frames: a table or, if a table would be mostly empty, sorted keys."""
        count = places.shape[1]
        maxima = [last + 1 for last in np.amax(places, axis=1).tolist()]
        extents = (maxima[0], maxima[1], maxima[2], maxima[3])
        cells = 1
        for extent in extents:
            cells *= extent
        if cells >= 2**62:
            self.problem = "its frames have impossible indices"
            return
        keys = np.zeros(count, np.int64)
        for extent, row in zip(extents, places, strict=True):
            keys = keys * extent + row
        if cells <= _MOST_CELLS * count + 65536:
            lookup = np.zeros(cells, np.int32)
            lookup[keys] = np.arange(1, count + 1)
            self._lookup = lookup
        else:
            order = np.argsort(keys, kind="stable")
            self._keys, self._sorted = keys[order], order
            self._lookup = None
        self._extents = extents
        self._recent = {}

    def _number_at(self, place: tuple[int, int, int, int]) -> int | None:
        if self._recent:
            number = self._recent.get(place)
            if number is not None:
                return number
        p, t, c, z = place
        images, times, channels, planes = self._extents
        if p >= images or t >= times or c >= channels or z >= planes:
            return None
        key = ((p * times + t) * channels + c) * planes + z
        if self._lookup is not None:
            number = self._lookup.item(key)
            return number - 1 if number else None
        at = int(np.searchsorted(self._keys, key))
        return int(self._sorted[at]) if at < len(self._keys) and self._keys[at] == key else None

    def _place_of(self, axes: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
        layout = self.layout
        if layout is None or len(axes) != len(layout.axes):
            return None
        found = [0, 0, 0, 0]
        try:
            for row, members, find in self._members:
                key: Key = axes[members] if type(members) is str else tuple(axes[axis] for axis in members)
                index = find(key)
                if index is None:
                    return None
                found[row] = index
        except KeyError:
            return None
        return found[0], found[1], found[2], found[3]

    def find(self, axes: Mapping[str, int | str]) -> int | None:
        """Return the number of the frame at these coordinates, or None."""
        if not self.live:
            place = self._place_of(axes)
            return None if place is None else self._number_at(place)
        with self._lock:
            place = self._place_of(axes)
            number = None if place is None else self._number_at(place)
            if number is None and self.refresh():
                place = self._place_of(axes)
                number = None if place is None else self._number_at(place)
            return number

    # -- all frames ------------------------------------------------------------------------------

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of the frames."""
        return self.layout.axes if self.layout is not None else ()

    def __len__(self) -> int:
        self._follow()
        return self._count

    def _follow(self) -> None:
        if self.live:
            self.refresh()

    def place(self, number: int) -> tuple[int, int, int, int]:
        """Return the image of a frame, and its indices t, c and z."""
        p, t, c, z = self._places[:, number].tolist()
        return p, t, c, z

    def coordinates(self, number: int) -> dict[str, int | str]:
        """Return the coordinates of a frame."""
        assert self.layout is not None
        found: dict[str, Any] = {}
        for dim, index in zip(DIMENSIONS, self.place(number), strict=True):
            members = self.layout.roles.get(dim)
            if members:
                key = self.labels[dim].position(index)
                keys = key if isinstance(key, tuple) else (key,)
                if len(keys) != len(members):
                    raise DatasetDamagedError(f"{self._folder}: {LAYOUT} lacks the labels of frame {number}")
                found.update(zip(members, keys, strict=True))
        return {axis: found[axis] for axis in self.layout.axes}

    def __iter__(self) -> Iterator[DataCoordinates]:
        return (coordinates for _, coordinates in self.since(0))

    def since(self, start: int) -> Iterator[tuple[int, DataCoordinates]]:
        """Yield the numbers and coordinates of the frames currently present, starting at a given number."""
        self._follow()
        for number in range(start, self._count):
            yield number, snapshot(self.coordinates(number))

    def positions(self) -> dict[str, list[int | str]]:
        """Return the positions that occur on each axis, in order of arrival."""
        self._follow()
        if self.layout is None or not self._count:
            return {}
        found: dict[str, list[int | str]] = {}
        with self._lock:
            places = self._places[:, : self._count]
        for row, dim in enumerate(DIMENSIONS):
            members = self.layout.roles.get(dim)
            if not members:
                continue
            indices, first = np.unique(places[row], return_index=True)
            keys = [self.labels[dim].position(int(index)) for index in indices[np.argsort(first)]]
            for number, axis in enumerate(members):
                each = [key[number] if isinstance(key, tuple) else key for key in keys]
                found[axis] = list(dict.fromkeys(each))
        return {axis: found[axis] for axis in self.layout.axes}

    def describe_absence(self, axes: Mapping[str, int | str]) -> str:
        """Return a clause for an error message that lists the existing axes or positions."""
        positions = self.positions()
        if not positions:
            return "no frame has been stored yet"
        unknown = [axis for axis in axes if axis not in positions]
        if unknown:
            names = " or ".join(map(repr, unknown))
            return f"no frame has the axis {names}; existing axes: {', '.join(positions)}"
        for axis, value in axes.items():
            if value not in positions[axis]:
                return f"positions on axis {axis!r}: {summarize_positions(positions[axis])}"
        absent = [axis for axis in positions if axis not in axes]
        if absent:
            return f"the coordinates lack {', '.join(absent)}; existing axes: {', '.join(positions)}"
        return "no frame has this combination of positions"
