"""Prepares the shards of a finished dataset for more frames.

Finishing shortens a shard that is not full, and may move its chunks closer together. This module restores the
original form of such a shard: a file of full length, with each chunk in its slot and a complete index. A
shard of compressed chunks stays as it is, because new chunks are appended to a part, and the part is combined
with the shard when the dataset is finished again.

Any step can be repeated if the process is killed. A shard may then have no index, but in this case all of its
chunks are in their slots.
"""

import contextlib
import os

import numpy as np
import numpy.typing as npt

from exengine.base_classes import NEW, OpenFile, read_at, write_at
from exengine_ome_zarr.finishing import by_shard, chunk_numbers
from exengine_ome_zarr.format import sizes
from exengine_ome_zarr.format.files import temporary
from exengine_ome_zarr.format.frame_files import read_index
from exengine_ome_zarr.format.images import Images
from exengine_ome_zarr.format.layout import EMPTY, Layout, decode_index
from exengine_ome_zarr.pyramid import level_factors


def reopen_shards(folder: str, layout: Layout, images: Images, records: npt.NDArray[np.void]) -> None:
    """Prepare the shards that are not full. Remove their resolution levels, which are built again later.

    Parameters
    ----------
    folder : str
    layout : Layout
    images : Images
    records : numpy.ndarray
        The journal records of all frames.
    """
    for image, shard, rows in by_shard(layout, records):
        if len(rows) == int(np.prod(layout.shard)):
            continue
        name = layout.shard_name(*shard)
        for number in range(1, len(level_factors(layout))):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(os.path.join(folder, images.level_path(image, number), name))
        path = os.path.join(folder, images.array_path(image), name)
        if not layout.is_compressed and os.path.exists(path):
            _reopen(folder, path, layout, records[rows])


def _reopen(folder: str, path: str, layout: Layout, records: npt.NDArray[np.void]) -> None:
    file = OpenFile(path, os.O_RDWR)
    complete = layout.complete_index
    index = read_index(file, layout)
    slots = decode_index(complete)
    assert slots is not None
    whole = os.fstat(file.descriptor).st_size == layout.slots_bytes + len(complete)
    if whole and index is not None and np.array_equal(index, slots):
        return
    numbers = np.unique(chunk_numbers(layout, records)[:, None] + np.arange(layout.tiles))
    if index is not None and (index[numbers, 0] != slots[numbers, 0]).any():
        _spread(folder, path, file, index, slots, layout)
        return
    # Cut off the old index first, so that the slots that are still empty contain zeros.
    end = int((slots[numbers, 0] + slots[numbers, 1]).max())
    os.ftruncate(file.descriptor, end)
    os.ftruncate(file.descriptor, layout.slots_bytes)
    write_at(file.descriptor, (complete,), layout.slots_bytes, len(complete))


def _spread(
    folder: str,
    path: str,
    file: OpenFile,
    index: npt.NDArray[np.uint64],
    slots: npt.NDArray[np.uint64],
    layout: Layout,
) -> None:
    """Replace a shard with a copy in which each chunk is in its slot."""
    new = temporary(folder)
    target = OpenFile(new, NEW)
    try:
        os.ftruncate(target.descriptor, layout.slots_bytes)
        for number in np.flatnonzero(index[:, 0] != EMPTY).tolist():
            begin, length, at = int(index[number, 0]), int(index[number, 1]), int(slots[number, 0])
            for done in range(0, length, sizes.COPY_BYTES):
                text = read_at(file.descriptor, min(sizes.COPY_BYTES, length - done), begin + done)
                write_at(target.descriptor, (text,), at + done, len(text))
        write_at(target.descriptor, (layout.complete_index,), layout.slots_bytes, layout.index_bytes)
        os.fsync(target.descriptor)
    except BaseException:
        os.unlink(new)
        raise
    os.replace(new, path)
