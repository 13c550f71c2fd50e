"""Derives the capabilities of the backend ``ome-zarr`` from its options."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from exengine.base_classes import StorageCapabilities
from exengine_ome_zarr.format.layout import DTYPES

BACKEND_NAME = "ome-zarr"
"""The name of the backend in a dataset's manifest."""

_CAPABILITIES = StorageCapabilities(
    persistent=True,
    dtypes=DTYPES,
    ndim=(2, 3),
    same_shape=True,
    same_axes=True,
    string_axes=True,
    negative_indices=True,
    metadata=True,
    iterable=True,
    reopen=True,
    read_while_writing=True,
    concurrent_readers=True,
    resumable=True,
    checksums=True,
    safety_of_put="written",
    durable_flush=True,
    pyramids=True,
    path_suffixes=(".ome.zarr", ".zarr"),
    compression=("blosc-lz4", "blosc-zstd", "zstd", "gzip"),
    readers=(
        "napari",
        "neuroglancer",
        "zarr-python",
        "tensorstore",
        "ome-zarr",
        "bioio-ome-zarr",
        "iohub",
        "ngff-zarr",
        "zarrita",
    ),
)


def remote_capabilities(local: StorageCapabilities) -> StorageCapabilities:
    """Return the capabilities of a dataset in object storage, derived from those of a dataset on disk."""
    return replace(local, remote=True, live_readers=(), pyramids=False, resumable=False)


def capabilities_for(options: Mapping[str, Any]) -> StorageCapabilities:
    """Return the capabilities of a dataset with these options."""
    live = options.get("codec", "none") == "none"
    return replace(
        _CAPABILITIES,
        live_readers=("zarr-python", "tensorstore", "napari", "neuroglancer") if live else (),
        most_axes=4 if options.get("extra_axes", "refuse") == "refuse" else None,
    )
