"""Continues writing a dataset after its writer has ended, starting from the state in the journal.

The journal is authoritative: in the other files, any data after the journal's last frame is overwritten.
Resolution levels that the first writer did not complete are computed when the dataset is finished.
"""

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from exengine.base_classes import READ, OpenFile, read_at
from exengine.errors import DatasetDamagedError, OptionError
from exengine_ome_zarr.continued.shards import reopen_shards
from exengine_ome_zarr.format import files
from exengine_ome_zarr.format.journal import read_records
from exengine_ome_zarr.format.layout import FRAME_DIMENSIONS, Layout
from exengine_ome_zarr.format.shards import PartFiles
from exengine_ome_zarr.frame_writer import FrameWriter
from exengine_ome_zarr.planning import Planning, begin_labels
from exengine_ome_zarr.table import FrameTable


class ContinuedWriter(FrameWriter):
    """Writes further frames to an existing dataset.

    Parameters
    ----------
    folder : str
    plan : Planning
        The options with which the dataset was created.
    first_line : bytes
        The first line of the layout file that a new dataset with these options would have.
    codec : str
        The option ``codec`` of the backend.
    begin : callable
        Called when all checks have passed, before any file is changed.

    Attributes
    ----------
    existing : FrameTable
        The frames of the dataset.

    Raises
    ------
    DatasetDamagedError
        If the dataset has no frames, or cannot be read.
    OptionError
        If the dataset was created with other options.
    """

    def __init__(
        self, folder: str, plan: Planning, first_line: bytes, codec: str, begin: Callable[[], None]
    ) -> None:
        self.existing = table = FrameTable(folder)
        table.live = False
        layout = table.layout
        if table.problem or layout is None or not len(table):
            raise DatasetDamagedError(f"{folder} cannot be continued: {table.problem or 'it has no frames'}")
        _refuse_other_options(folder, table, plan, first_line, layout.codec == codec)
        records = read_all_records(table)
        begin()
        os.makedirs(os.path.join(folder, files.OPEN), exist_ok=True)
        _remove_unfinished_files(folder, {int(number) for number in np.unique(records["part"])})
        line_bytes = int((records["line_at"] + records["line_bytes"]).max())
        super().__init__(folder, plan, table.layout_bytes, line_bytes=line_bytes, frames=len(records))
        self._continue(table, layout, records)
        plan.facts = table.facts

    def _continue(self, table: FrameTable, layout: Layout, records: npt.NDArray[np.void]) -> None:
        """Use the stored layout, and take over the frames of the first writer."""
        labels, _ = begin_labels(layout, {})
        for dim, some in labels.items():
            for index, key in table.labels[dim].labelled().items():
                some.add(key, index)
            some.extend(table.labels[dim].extent)
        self._use_layout(layout, table.facts, labels, {})
        self._pyramid = None
        self._images.windows = table.windows
        self._channels = {int(number) for number in np.unique(records["c"])}
        reopen_shards(self._folder, layout, self._images, records)
        for image in np.unique(records["image"]).tolist():
            self._continue_array(image, records[records["image"] == image], layout)
        if self._slots is not None:
            self._slots.continues = True
        if self._parts is not None:
            self._continue_parts(layout, self._parts, records)

    def _continue_array(self, image: int, records: npt.NDArray[np.void], layout: Layout) -> None:
        """Set the lengths of an image's array so that the array contains all existing shards."""
        t, c, z = (
            -(-(int(records[dim].max()) + 1) // step) * step
            for dim, step in zip(FRAME_DIMENSIONS, layout.shard, strict=True)
        )
        self._images.place(image, (t, c, z))
        self._grown[image] = (t, c, z)

    def _continue_parts(self, layout: Layout, parts: PartFiles, records: npt.NDArray[np.void]) -> None:
        """Open the parts that were not published, and record which chunks they contain."""
        for record in records:
            image, t, c, z = (int(record[name]) for name in ("image", "t", "c", "z"))
            name = self.shard_name((image, *layout.shard_at(t, c, z)))
            part = parts.continue_part(name, int(record["part"]))
            if part is None:
                continue
            at, lengths = int(record["offset"]), [int(record["length"])]
            if layout.tiles > 1:
                head = read_at(part.file.descriptor, 4 * layout.tiles, at)
                lengths = np.frombuffer(head, "<u4", layout.tiles).tolist()
                at += 4 * layout.tiles
            full = self._frames_in_shard(image, t, c, z)
            parts.added(name, part, layout.chunk_number(t, c, z), at, lengths, full)


def _refuse_other_options(
    folder: str, table: FrameTable, plan: Planning, first_line: bytes, same_codec: bool
) -> None:
    file = OpenFile(os.path.join(folder, files.LAYOUT), READ)
    same_summary = read_at(file.descriptor, len(first_line), 0) == first_line
    same_pyramid = plan.facts.pyramid == table.facts.pyramid
    if not (same_codec and same_summary and same_pyramid):
        raise OptionError(f"{folder} was created with other options and cannot be continued")


def read_all_records(table: FrameTable) -> npt.NDArray[np.void]:
    """Return the journal records of all frames."""
    assert table.journal is not None
    pieces = []
    first, count = 0, len(table)
    while first < count:
        pieces.append(read_records(table.journal.descriptor, first)[: count - first])
        first += len(pieces[-1])
    return np.concatenate(pieces)


def _remove_unfinished_files(folder: str, parts: set[int]) -> None:
    """Remove files that the first writer had not yet renamed, and parts without frames."""
    place = os.path.join(folder, files.OPEN)
    for name in os.listdir(place):
        path = os.path.join(place, name)
        kind, _, number = name.partition("-")
        is_used = kind == "part" and number.isdigit() and int(number) in parts
        if not is_used and os.path.isfile(path) and not os.path.islink(path):
            os.unlink(path)
