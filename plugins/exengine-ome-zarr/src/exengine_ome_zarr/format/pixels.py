"""Converts frames to the bytes of their chunks, and back.

Without compression, the bytes of a frame are its chunks one after another. Each chunk contains all planes of
an RGB frame, and the chunks at the edges are padded with zeros. With compression, each chunk is compressed
separately.
"""

from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

from exengine.errors import DatasetDamagedError
from exengine_ome_zarr.format.layout import NO_CODEC, Layout

CODECS = {"blosc-lz4": "lz4", "blosc-zstd": "zstd", "zstd": "zstd", "gzip": "gzip"}
"""Maps each value of the option ``codec`` to the name of its compressor."""
DEFAULT_LEVELS = {"blosc-lz4": 5, "blosc-zstd": 1, "zstd": 1, "gzip": 1}


class PixelCodec:
    """Encodes and decodes the frames of a layout.

    Parameters
    ----------
    layout : Layout
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._dtype = layout.numpy_dtype
        # The chunks are whole rows without padding, so the frame is stored as it is.
        self._is_plain = (
            layout.samples == 1 and layout.tile[1] == layout.width and layout.height % layout.tile[0] == 0
        )
        self._codec: Any = None
        level = DEFAULT_LEVELS.get(layout.codec) if layout.level is None else layout.level
        if layout.codec.startswith("blosc-"):
            self._codec = numcodecs.Blosc(
                cname=CODECS[layout.codec],
                clevel=level,
                shuffle=numcodecs.Blosc.SHUFFLE if self._dtype.itemsize > 1 else numcodecs.Blosc.NOSHUFFLE,
                typesize=self._dtype.itemsize,
            )
        elif layout.codec == "zstd":
            self._codec = numcodecs.Zstd(level=level)
        elif layout.codec == "gzip":
            self._codec = numcodecs.GZip(level=level)
        elif layout.codec != NO_CODEC:
            raise DatasetDamagedError(
                f"the dataset is compressed with the unknown codec {layout.codec!r:.40}"
            )

    def document(self) -> list[dict[str, Any]]:
        """Return the Zarr metadata of the codecs that encode a chunk."""
        layout = self._layout
        codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
        level = DEFAULT_LEVELS.get(layout.codec) if layout.level is None else layout.level
        if layout.codec.startswith("blosc-"):
            configuration = {
                "cname": CODECS[layout.codec],
                "clevel": level,
                "shuffle": "shuffle" if self._dtype.itemsize > 1 else "noshuffle",
                "typesize": self._dtype.itemsize,
                "blocksize": 0,
            }
            codecs.append({"name": "blosc", "configuration": configuration})
        elif layout.codec == "zstd":
            codecs.append({"name": "zstd", "configuration": {"level": level, "checksum": False}})
        elif layout.codec == "gzip":
            codecs.append({"name": "gzip", "configuration": {"level": level}})
        return codecs

    def arrange(self, data: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the pixels of a frame in the order in which they are stored.

        Parameters
        ----------
        data : numpy.ndarray
            ``(Y, X)`` or ``(Y, X, 3)``.

        Returns
        -------
        numpy.ndarray
            A contiguous array; it may be ``data`` itself.
        """
        if self._is_plain:
            return np.ascontiguousarray(data, self._dtype)
        layout = self._layout
        tile_y, tile_x = layout.tile
        planes = data[:, :, None] if layout.samples == 1 else data
        padded = np.zeros((layout.tiles_y * tile_y, layout.tiles_x * tile_x, layout.samples), self._dtype)
        padded[: layout.height, : layout.width] = planes
        tiles = padded.reshape(layout.tiles_y, tile_y, layout.tiles_x, tile_x, layout.samples)
        return np.ascontiguousarray(tiles.transpose(0, 2, 4, 1, 3))

    def empty(self) -> npt.NDArray[Any]:
        """Return an uninitialized array for the uncompressed bytes of a frame."""
        layout = self._layout
        if self._is_plain:
            return np.empty((layout.height, layout.width), self._dtype)
        return np.empty(layout.frame_bytes, np.uint8)

    def restore(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a frame from its uncompressed bytes. The frame may share memory with these bytes."""
        if stored.ndim == 2:  # an array from ``empty`` already has the shape of a frame
            return stored
        layout = self._layout
        pixels = stored.view(self._dtype)
        if self._is_plain:
            return pixels.reshape(layout.height, layout.width)
        tile_y, tile_x = layout.tile
        tiles = pixels.reshape(layout.tiles_y, layout.tiles_x, layout.samples, tile_y, tile_x)
        planes = tiles.transpose(0, 3, 1, 4, 2).reshape(
            layout.tiles_y * tile_y, layout.tiles_x * tile_x, layout.samples
        )[: layout.height, : layout.width]
        return np.ascontiguousarray(planes.reshape(layout.frame_shape))

    def compress(self, arranged: npt.NDArray[Any], first: int = 0, end: int | None = None) -> list[bytes]:
        """Return the compressed chunks of an arranged frame, or only the chunks in ``range(first, end)``."""
        flat = arranged.reshape(self._layout.tiles, -1)
        return [self._codec.encode(chunk) for chunk in flat[first:end]]

    def decompress(self, chunks: list[bytes], name: object) -> npt.NDArray[Any]:
        """Return a frame from its compressed chunks.

        Raises
        ------
        DatasetDamagedError
            If a chunk does not decompress to the expected size. The message refers to the frame by ``name``.
        """
        layout = self._layout
        stored = np.empty(layout.frame_bytes, np.uint8)
        size = layout.tile_bytes
        for tile, chunk in enumerate(chunks):
            try:
                decoded = np.frombuffer(self._codec.decode(chunk), np.uint8)
                if decoded.nbytes != size:
                    raise ValueError(f"{decoded.nbytes} bytes instead of {size}")
            except Exception as error:  # the compressors raise errors of many types
                raise DatasetDamagedError(f"the pixels of {name} cannot be decompressed: {error}") from None
            stored[tile * size : (tile + 1) * size] = decoded
        return self.restore(stored)
