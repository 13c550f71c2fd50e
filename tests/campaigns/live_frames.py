"""The frames for the campaign of live readers, which a reader in any language can compute."""

import mmap
import os
import struct
from typing import Any

import numpy as np

SIZE = 64
CHANNELS = ("DAPI", "FITC")
PLANES = 2
PER_TIME = len(CHANNELS) * PLANES

_RAMP = (np.arange(SIZE * SIZE, dtype=np.uint32) * 31).astype(np.uint16).reshape(SIZE, SIZE)


def indices_of(number: int) -> tuple[int, int, int]:
    """Return the indices t, c and z of frame ``number``."""
    t, rest = divmod(number, PER_TIME)
    z, c = divmod(rest, len(CHANNELS))
    return t, c, z


def axes_of(number: int) -> dict[str, Any]:
    """Return the coordinates of frame ``number``."""
    t, c, z = indices_of(number)
    return {"time": t, "channel": CHANNELS[c], "z": z}


def pixels_of(number: int) -> "np.ndarray[Any, np.dtype[np.uint16]]":
    """Return the pixels of frame ``number``: its number, then a ramp with a different start in each frame."""
    pixels = _RAMP + np.uint16(number * 40503 & 0xFFFF)
    pixels[0, :2] = number & 0xFFFF, number >> 16
    return pixels


class Progress:
    """The number of acknowledged frames, and whether the writer was killed, in a file that all processes map.

    Parameters
    ----------
    path : str
        The path of the file, which is created if it does not exist.
    """

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        if os.fstat(descriptor).st_size < 16:
            os.ftruncate(descriptor, 16)
        self._memory = mmap.mmap(descriptor, 16)
        os.close(descriptor)

    @property
    def acknowledged(self) -> int:
        """The number of acknowledged frames."""
        return int(struct.unpack_from("<q", self._memory)[0])

    @acknowledged.setter
    def acknowledged(self, count: int) -> None:
        self._memory[:8] = struct.pack("<q", count)  # ``pack_into`` would write zeros first

    @property
    def killed(self) -> bool:
        """Whether the writer was killed."""
        return bool(self._memory[8])

    @killed.setter
    def killed(self, value: bool) -> None:
        self._memory[8] = value
