"""The capabilities of the backend ``hdf5``, shared by its writer and readers."""

import numpy as np

from exengine.base_classes import StorageCapabilities, dtype_names

BACKEND_NAME = "hdf5"
"""The name of the backend in a dataset's manifest."""

DTYPES = dtype_names(
    np.bool_, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64,
    np.float16, np.float32, np.float64, np.complex64, np.complex128,
)  # fmt: skip
MOST_AXES = 28
"""The maximum number of axes. HDF5 allows 32 dimensions, of which a frame needs up to four."""

CAPABILITIES = StorageCapabilities(
    persistent=True,
    dtypes=DTYPES,
    ndim=(1, 2, 3, 4),
    most_axes=MOST_AXES,
    string_axes=True,
    negative_indices=True,
    metadata=True,
    iterable=True,
    reopen=True,
    read_while_writing=True,
    concurrent_readers=True,
    checksums=True,
    safety_of_put="written",
    durable_flush=True,
    resumable=True,
    path_suffixes=(".h5", ".hdf5"),
    compression=("gzip", "lzf"),
    readers=("h5py", "HDFView", "MATLAB"),
)
