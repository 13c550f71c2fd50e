"""The capabilities of the backend ``ome-tiff``, shared by its writer and readers."""

from exengine.base_classes import StorageCapabilities

BACKEND_NAME = "ome-tiff"
"""The name of the backend in a dataset's manifest."""

PIXEL_TYPES = {
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32",
    "int8": "int8", "int16": "int16", "int32": "int32",
    "float32": "float", "float64": "double", "complex64": "complex", "complex128": "double-complex",
}  # fmt: skip
"""Maps the numpy name of each dtype that OME-XML supports to its name in OME-XML."""

SUFFIXES = (".ome.tif", ".ome.tiff")

CAPABILITIES = StorageCapabilities(
    persistent=True,
    dtypes=tuple(PIXEL_TYPES),
    ndim=(2, 3),
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
    path_suffixes=SUFFIXES,
    compression=("zlib", "zstd"),
    readers=("tifffile", "bioio", "Bio-Formats"),
)
