"""Compresses frames into chunks, and decompresses chunks, as HDF5's filters do.

The gzip filter writes a zlib stream of the shuffled bytes, so Python's ``zlib`` can replace it. Only h5py
contains the lzf filter, so lzf chunks pass through a small HDF5 file in memory. No HDF5 file on the disk is
opened here.
"""

import itertools
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 4
"""The compression level for gzip. It is h5py's default."""
_NUMBERS = itertools.count()
_MOST_RATIO = 1100  # zlib's highest compression ratio, rounded up


def shuffled(pixels: npt.NDArray[Any]) -> bytes:
    """Return the bytes of an array in the order of HDF5's shuffle filter.

    The first byte of every value comes first, then the second byte of every value, and so on.
    """
    whole = pixels.reshape(-1).view(np.uint8).reshape(-1, pixels.dtype.itemsize)
    return whole.T.tobytes()


def encode(pixels: npt.NDArray[Any], compression: str) -> Any:
    """Return the bytes of a chunk.

    Parameters
    ----------
    pixels : numpy.ndarray
        C-contiguous and little-endian.
    compression : {"none", "gzip", "lzf"}
    """
    if compression == "none":
        return pixels.reshape(-1).view(np.uint8).data
    if compression == "gzip":
        return zlib.compress(shuffled(pixels), LEVEL)
    file, dataset = _in_memory(pixels.shape, pixels.dtype)
    with file:
        dataset[...] = pixels
        file.flush()
        mask, chunk = dataset.id.read_direct_chunk((0,) * pixels.ndim)
    if mask & 0b10:  # lzf did not make the chunk smaller; the file on disk gets the same mask
        raise IncompressibleError(shuffled(pixels))
    return chunk


class IncompressibleError(Exception):
    """Raised if lzf does not make a frame smaller. The argument is the shuffled but uncompressed chunk."""


def decode(chunk: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], compression: str) -> npt.NDArray[Any]:
    """Return the pixels of a chunk. The caller has verified its checksum.

    Raises
    ------
    ValueError
        If the chunk does not contain pixels of this shape and dtype.
    """
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    if compression == "lzf":
        file, dataset = _in_memory(shape, dtype)
        with file:
            dataset.id.write_direct_chunk((0,) * len(shape), chunk)
            found: npt.NDArray[Any] = dataset[...]
        return found
    if compression == "gzip":
        if size > len(chunk) * _MOST_RATIO + 64:
            raise ValueError("the chunk is too small for the frame")
        try:
            stream = zlib.decompressobj()
            chunk = stream.decompress(chunk, size + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
    elif compression != "shuffle":
        raise ValueError(f"the compression {compression!r:.20} is not known")
    if len(chunk) != size:
        raise ValueError("the size of the chunk differs from the size of the frame")
    whole = np.frombuffer(chunk, np.uint8).reshape(dtype.itemsize, -1).T
    return np.ascontiguousarray(whole).reshape(-1).view(dtype).reshape(shape)


def _in_memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    import h5py

    # Two threads must not use the same name at the same time. No file with this name is created.
    file = h5py.File(f"exengine-chunk-{next(_NUMBERS)}", "w", driver="core", backing_store=False)
    return file, file.create_dataset("c", shape, dtype, chunks=shape, shuffle=True, compression="lzf")
