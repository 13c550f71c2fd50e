"""Checks the files of a dataset (shards, indices and documents), but not its frames."""

import os

import numpy as np

from exengine.base_classes import OpenFile, parse_json
from exengine_ome_zarr.format.files import DOCUMENT
from exengine_ome_zarr.format.frame_files import read_index
from exengine_ome_zarr.format.images import Images
from exengine_ome_zarr.format.layout import EMPTY, Layout
from exengine_ome_zarr.table import FrameTable

_MAX_DOCUMENT_BYTES = 64 * 2**20


def check_structure(folder: str, table: FrameTable, *, finished: bool) -> list[str]:
    """Return the faults in the files of a dataset, one sentence each.

    Parameters
    ----------
    folder : str
    table : FrameTable
    finished : bool
        Whether the dataset is finished, which means that every file must be complete.
    """
    layout = table.layout
    faults: list[str] = []
    if layout is None:
        return faults
    images = Images(folder, layout, table.facts, table.labels)
    shards: dict[str, set[int]] = {}
    arrays: set[str] = set()
    for number in range(len(table)):
        image, t, c, z = table.place(number)
        arrays.add(images.array_path(image))
        name = f"{images.array_path(image)}/{layout.shard_name(*layout.shard_at(t, c, z))}"
        shards.setdefault(name, set()).add(layout.chunk_number(t, c, z))
    for name, chunks in sorted(shards.items()):
        if finished or not layout.is_compressed:
            faults += _faults_of_shard(folder, name, layout, chunks)
    for array in sorted(arrays):
        faults += _faults_of_document(folder, f"{array}/{DOCUMENT}")
    return [*faults, *_faults_of_document(folder, DOCUMENT)]


def _faults_of_shard(folder: str, name: str, layout: Layout, chunks: set[int]) -> list[str]:
    try:
        file = OpenFile(os.path.join(folder, name), os.O_RDONLY)
    except OSError as error:
        return [f"the shard {name} cannot be opened: {error.strerror or error}"]
    index = read_index(file, layout)
    if index is None:
        return [f"the index of the shard {name} is missing or damaged"]
    size = os.fstat(file.descriptor).st_size - layout.index_bytes
    entries = index[sorted(chunks)]
    if (entries == EMPTY).any():
        return [f"the index of the shard {name} does not list all frames of the shard"]
    # An offset near the maximum would overflow the sum.
    outside = (entries[:, 0] > np.uint64(size)) | (entries[:, 1] > np.uint64(size))
    if outside.any() or (entries.sum(axis=1) > size).any():
        return [f"the index of the shard {name} refers to bytes after the end of the file"]
    return []


def _faults_of_document(folder: str, name: str) -> list[str]:
    try:
        file = OpenFile(os.path.join(folder, name), os.O_RDONLY)
        with os.fdopen(os.dup(file.descriptor), "rb") as stream:
            text = stream.read(_MAX_DOCUMENT_BYTES + 1)
        if len(text) > _MAX_DOCUMENT_BYTES:
            raise ValueError(f"it has more than {_MAX_DOCUMENT_BYTES} bytes")
        if not isinstance(parse_json(text), dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        return [f"the document {name} cannot be read: {error}"]
    return []
