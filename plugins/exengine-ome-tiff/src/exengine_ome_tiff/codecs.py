"""Compresses frames into strips, and decompresses strips, as defined by TIFF."""

import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.errors import UnsupportedOperationError

_ZLIB_LEVEL, _ZSTD_LEVEL = 4, 3
_MOST_ZLIB_RATIO = 1100  # zlib's highest compression ratio, rounded up


def has_predictor(dtype: str, compression: str) -> bool:
    """Return whether the differences between neighboring pixels are compressed instead of their values."""
    return compression != "none" and np.dtype(dtype).kind in "iu"


def zstd() -> Any:
    """Return the module that implements zstd.

    Raises
    ------
    UnsupportedOperationError
        If the module is not installed.
    """
    try:
        import imagecodecs
    except ImportError:
        raise UnsupportedOperationError(
            "compression: zstd needs imagecodecs; install it with: pip install 'exengine-ome-tiff[zstd]', "
            "or choose compression: zlib"
        ) from None
    return imagecodecs


def encode(pixels: npt.NDArray[Any], compression: str) -> Any:
    """Return the bytes of a strip.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(Y, X)`` or ``(Y, X, samples)``, C-contiguous and little-endian.
    compression : {"none", "zlib", "zstd"}
    """
    if has_predictor(pixels.dtype.name, compression):
        differences = pixels.copy()
        differences[:, 1:] -= pixels[:, :-1]  # the subtraction wraps around, as TIFF requires
        pixels = differences
    whole = pixels.reshape(-1).view(np.uint8).data
    if compression == "zlib":
        return zlib.compress(whole, _ZLIB_LEVEL)
    if compression == "zstd":
        return zstd().zstd_encode(whole, level=_ZSTD_LEVEL)
    return whole


def decode(strip: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], compression: str) -> npt.NDArray[Any]:
    """Return the pixels of a compressed strip. The caller has verified the checksum of the strip.

    Raises
    ------
    ValueError
        If the strip does not contain pixels of this shape and dtype.
    """
    size = dtype.itemsize * math.prod(shape)
    if compression == "zlib":
        if size > len(strip) * _MOST_ZLIB_RATIO + 64:
            raise ValueError("the strip is too small for the frame")
        try:
            strip = zlib.decompressobj().decompress(strip, size + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
    elif compression == "zstd":
        try:
            strip = zstd().zstd_decode(strip, out=size)
        except RuntimeError as error:
            raise ValueError(str(error)) from None
    else:
        raise ValueError(f"the compression {compression!r:.20} is not known")
    if len(strip) != size:
        raise ValueError("the size of the strip differs from the size of the frame")
    pixels = np.frombuffer(strip, dtype).reshape(shape)
    if has_predictor(dtype.name, compression):
        return np.cumsum(pixels, axis=1, dtype=dtype)
    return pixels.copy()
