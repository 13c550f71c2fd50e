"""Converts the pixels of a frame into bytes that the page can show."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.kernel.errors import UnsupportedDataError

LARGEST_BYTES = 256 * 2**20
"""The frame size in bytes above which the page receives only every n-th pixel."""
THUMBNAIL = 96
"""The largest side of a thumbnail, in pixels."""
_SENT = {"b1": "u1", "f2": "f4", "f16": "f8", "f12": "f8", "c8": "f4", "c16": "f8", "c32": "f8", "c24": "f8"}
"""Maps each dtype that browsers do not support to the dtype in which its values are sent."""


@dataclass(frozen=True)
class Picture:
    """Pixels in a form that a browser can show.

    Attributes
    ----------
    pixels : numpy.ndarray
        ``(Y, X)`` or ``(Y, X, 3)``, little-endian and contiguous.
    dtype : str
        The name of the dtype of ``pixels``.
    step : int
        The distance in the frame between neighboring pixels that are sent; 1 if all pixels are sent.
    note : str
        The difference between the frame and the pixels that are sent; empty if there is none.
    """

    pixels: npt.NDArray[Any]
    dtype: str
    step: int
    note: str

    def head(self) -> dict[str, Any]:
        """Return the facts that the page needs, as JSON values."""
        return {
            "shape": list(self.pixels.shape),
            "dtype": self.dtype,
            "step": self.step,
            "note": self.note,
        }


def picture_of(data: npt.NDArray[Any], *, largest_side: int | None = None) -> Picture:
    """Return the pixels that the page shows for a frame of any shape and dtype.

    Parameters
    ----------
    data : numpy.ndarray
        The frame, conventionally ``(Y, X)`` or ``(Y, X, 3)``.
    largest_side : int, optional
        The largest side of the result, in pixels.

    Raises
    ------
    UnsupportedDataError
        If the frame has no pixels, or a dtype that is not numeric.
    """
    if data.dtype.kind not in "buifc" or not data.size:
        raise UnsupportedDataError(f"a frame with dtype {data.dtype} and shape {data.shape} cannot be shown")
    plane, notes = _plane(data)
    step = 1
    if largest_side is not None:
        step = max(1, -(-max(plane.shape[:2]) // largest_side))
    elif plane.nbytes > LARGEST_BYTES:
        step = int(np.ceil(np.sqrt(plane.nbytes / LARGEST_BYTES)))
        notes.append(
            f"the frame is very large, so only one pixel of each block of {step} x {step} pixels is shown"
        )
    plane = plane[::step, ::step]
    if plane.dtype.kind == "c":
        plane = np.abs(plane)
        notes.append(f"the magnitude of the {data.dtype} values is shown")
    sent = np.dtype(_SENT.get(f"{plane.dtype.kind}{plane.dtype.itemsize}", plane.dtype))
    pixels = np.ascontiguousarray(plane, sent.newbyteorder("<"))
    return Picture(pixels, sent.newbyteorder("=").name, step, "; ".join(notes))


def _plane(data: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[str]]:
    """Return a part of a frame as an image, ``(Y, X)`` or ``(Y, X, 3)``, and notes on the omitted parts."""
    if data.ndim < 2:
        return data.reshape(1, -1), []
    if data.ndim == 2 or (data.ndim == 3 and data.shape[2] == 3):
        return data, []
    if data.ndim == 3 and data.shape[2] == 4:
        return data[..., :3], ["the fourth component is not shown"]
    planes = data.reshape(-1, *data.shape[-2:])
    return planes[0], [f"only the first plane is shown; planes in the frame: {len(planes)}"]
