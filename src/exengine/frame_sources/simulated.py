"""The frame source ``simulated``: a camera without a microscope, with frames that carry their coordinates.

Responsible for frames that look like fluorescence images and hold their own coordinates in their first
pixels, so that the pixels alone reveal a misplaced frame: ``encode`` writes the code, :func:`decode`
reads it. Not responsible for realism.

The code holds one byte per pixel value, in C order (the three colours of a pixel are three values), for every
dtype: magic ``EXF1``, the length of the text (2 bytes, big-endian), the CRC-32 of the text (4 bytes,
big-endian), and the coordinates as JSON in UTF-8.
"""

import math
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Le

from exengine.frame_sources.sequence import check_unique, event_coordinates
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import (
    CoordinatesError,
    DatasetDamagedError,
    SourceError,
    UnsupportedDataError,
)
from exengine.kernel.frame_source_base import FrameSource, Sink, SourcePlan
from exengine.kernel.registry.options import check_options

if TYPE_CHECKING:
    import useq

_MAGIC = b"EXF1"
_HEADER = struct.Struct(">4sHI")
_TEXT_LIMIT = 0xFFFF

_TILE_LIMIT = 512
"""Largest side of the computed picture, in pixels. A larger frame repeats the picture, without seams."""

_STEPS = {"t": (5, 3), "z": (1, 0), "c": (0, 0)}
"""Shift of the picture per step of an axis, in pixels (y, x)."""
_OTHER_STEP = (149, 97)

_LOOKS = 12
"""Number of different channels; further channels repeat them, which bounds the memory."""

_BLUR_PX = (0.0, 1.5, 3.0, 5.0)
"""Blur from in focus to out of focus."""


def encode(array: npt.NDArray[Any], coordinates: DataCoordinates) -> None:
    """Write coordinates into the first pixels of a frame, in place.

    Parameters
    ----------
    array : numpy.ndarray of an integer or float dtype, any shape
        Changed in place; the caller keeps it.
    coordinates : DataCoordinates
        The coordinates that :func:`decode` returns.

    Raises
    ------
    UnsupportedDataError
        If the array has fewer values than the code has bytes.

    Examples
    --------
    >>> frame = np.zeros((8, 8), "uint16")
    >>> encode(frame, DataCoordinates(time=3, channel="DAPI"))
    >>> decode(frame)
    DataCoordinates({'time': 3, 'channel': 'DAPI'})
    """
    code = _code(coordinates)
    if array.size < len(code):
        raise UnsupportedDataError(
            f"a frame of shape {array.shape} has {array.size} values, and the code of "
            f"{coordinates!r} needs {len(code)}"
        )
    array.flat[: len(code)] = np.frombuffer(code, np.uint8)


def decode(array: npt.NDArray[Any]) -> DataCoordinates:
    """Return the coordinates that ``encode`` wrote into a frame.

    Parameters
    ----------
    array : numpy.ndarray, any shape
        Only read.

    Returns
    -------
    DataCoordinates
        New coordinates.

    Raises
    ------
    DatasetDamagedError
        If the frame holds no code, or a changed one. It is a ``ValueError``.
    """
    header = _bytes_of(array.flat[: _HEADER.size])
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise DatasetDamagedError(
            "the first pixels of the frame hold no code; is it a frame of the source `simulated`?"
        )
    _, length, checksum = _HEADER.unpack(header)
    text = _bytes_of(array.flat[_HEADER.size : _HEADER.size + length])
    if len(text) != length or zlib.crc32(text) != checksum:
        raise DatasetDamagedError(
            "the code in the first pixels of the frame was changed: its checksum differs"
        )
    try:
        return DataCoordinates.from_json(text)
    except CoordinatesError as error:
        raise DatasetDamagedError(
            f"the code in the first pixels of the frame is not valid: {error}"
        ) from error


def _code(coordinates: DataCoordinates) -> bytes:
    text = coordinates.to_json().encode()
    if len(text) > _TEXT_LIMIT:
        raise UnsupportedDataError(f"coordinates of {len(text)} bytes; the code holds up to {_TEXT_LIMIT}")
    return _HEADER.pack(_MAGIC, len(text), zlib.crc32(text)) + text


def _bytes_of(values: npt.NDArray[Any]) -> bytes:
    """Return values as bytes; empty if a value is not a byte, so that no code is found."""
    with np.errstate(invalid="ignore"):  # NaN is not a byte
        small = values.astype(np.uint8)
    return small.tobytes() if np.array_equal(small, values) else b""


class SimulatedSource(FrameSource):
    """Simulated camera: cells that drift in time, blur out of focus and carry their coordinates.

    It needs neither hardware nor options. Every frame holds its own coordinates in its first pixels;
    :func:`exengine.frame_sources.simulated.decode` reads them. The same options and the same sequence give
    the same pixels.

    Parameters
    ----------
    width : int
        Width of a frame, in pixels.
    height : int
        Height of a frame, in pixels.
    dtype : {"uint16", "uint8"}
        Type of a pixel value.
    rate_hz : float, optional
        Frames per second. By default frames come as fast as they are stored; the interval of a time plan is
        ignored.
    seed : int
        Seed of the random cells.
    rgb : bool
        Whether to deliver colour frames of shape ``(Y, X, 3)``.
    fail_after : int, optional
        Number of frames after which the source raises a ``SourceError``, to test failures.

    Raises
    ------
    OptionError
        If an option has a wrong value.

    Notes
    -----
    The metadata of a frame are ``source``, ``frame_number`` (from 0), ``elapsed_ms`` since the start
    of the run, and, where the sequence gives them, ``exposure_ms``, ``channel`` and ``position_um``
    with ``x``, ``y`` and ``z``.

    A cancelled source stays cancelled; create a new one.

    Examples
    --------
    >>> import useq
    >>> from exengine.frame_sources.simulated import SimulatedSource, decode
    >>> source = SimulatedSource(width=64, height=48)
    >>> plan = source.prepare(useq.MDASequence(channels=["DAPI", "FITC"]))
    >>> plan.frames, plan.shape, plan.dtype
    (2, (48, 64), 'uint16')
    >>> source.run(lambda coordinates, frame, metadata: print(metadata["frame_number"], decode(frame)))
    0 DataCoordinates({'channel': 'DAPI'})
    1 DataCoordinates({'channel': 'FITC'})
    >>> source.close()
    """

    def __init__(
        self,
        width: Annotated[int, Ge(16), Le(16384)] = 512,
        height: Annotated[int, Ge(16), Le(16384)] = 512,
        dtype: Literal["uint16", "uint8"] = "uint16",
        rate_hz: Annotated[float, Gt(0)] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
        rgb: bool = False,
        fail_after: Annotated[int, Ge(0)] | None = None,
    ) -> None:
        check_options(
            SimulatedSource,
            width=width,
            height=height,
            dtype=dtype,
            rate_hz=rate_hz,
            seed=seed,
            fail_after=fail_after,
        )
        self._shape = (height, width, 3) if rgb else (height, width)
        self._dtype = np.dtype(dtype)
        self._rate_hz = rate_hz
        self._seed = seed
        self._fail_after = fail_after
        self._sequence: useq.MDASequence | None = None
        self._tiles: dict[tuple[int, int], npt.NDArray[Any]] = {}
        self._cancelled = threading.Event()

    def prepare(self, sequence: "useq.MDASequence", /) -> SourcePlan:
        """Check that each frame has unique coordinates, and enough pixels for their code.

        Parameters
        ----------
        sequence : useq.MDASequence
            What to acquire.

        Returns
        -------
        SourcePlan
            Number, shape and dtype of the frames.

        Raises
        ------
        SourceError
            If two frames have the same coordinates, or a frame is too small for its code.
        """
        frames = check_unique(sequence)
        self._check_room(sequence)
        self._sequence, self._planes = sequence, sequence.sizes.get("z", 0)
        # Pictures are computed here, so that the frames of the run need not wait for them.
        for look in range(min(max(len(sequence.channels), 1), _LOOKS)):
            for blur in range(len(_BLUR_PX) if self._planes > 1 else 1):
                self._tile(look, blur)
        return SourcePlan(
            frames=frames,
            shape=self._shape,
            dtype=self._dtype.name,
            summary={"source": "simulated", "seed": self._seed, "rate_hz": self._rate_hz},
        )

    def run(self, sink: Sink, /) -> None:
        """Deliver every frame of the prepared sequence to the sink, then return.

        Parameters
        ----------
        sink : callable
            Called with coordinates, pixels and metadata; it owns the array, which is always new.

        Raises
        ------
        SourceError
            Without a prepared sequence, and after ``fail_after`` frames.
        """
        if self._sequence is None:
            raise SourceError("the source has no sequence: call prepare(sequence) before run(sink)")
        started = time.perf_counter()
        delivered = 0
        for event in _image_events(self._sequence):
            self._fail_when_due(delivered)
            # Deadlines count from the start, so that a slow sink causes no drift.
            due = started + delivered / self._rate_hz if self._rate_hz else 0.0
            if self._cancelled.wait(max(0.0, due - time.perf_counter())):
                return
            coordinates = event_coordinates(event)
            frame = self._render(event)
            encode(frame, coordinates)
            sink(coordinates, frame, _metadata(event, delivered, (time.perf_counter() - started) * 1000))
            delivered += 1
        self._fail_when_due(delivered)

    def cancel(self) -> None:
        """End :meth:`run` soon, without an error; a later run ends at once."""
        self._cancelled.set()

    def close(self) -> None:
        """Release the sequence and the pictures. Idempotent."""
        self._sequence = None
        self._tiles = {}

    def _fail_when_due(self, delivered: int) -> None:
        if delivered == self._fail_after and not self._cancelled.is_set():
            raise SourceError(
                f"the simulated camera failed after {delivered} frames, as requested by fail_after"
            )

    def _check_room(self, sequence: "useq.MDASequence") -> None:
        values = math.prod(self._shape)
        # Coordinates hold names of the sequence, and numbers. If the whole sequence fits, no event needs to
        # be checked; there may be millions.
        if 2 * len(sequence.model_dump_json()) + 1024 <= min(values, _TEXT_LIMIT):
            return
        for event in _image_events(sequence):
            coordinates = event_coordinates(event)
            try:
                needed = len(_code(coordinates))
            except UnsupportedDataError as error:
                raise SourceError(f"the names in the sequence are too long: {error}") from error
            if needed > values:
                raise SourceError(
                    f"frames of {self._shape[1]} x {self._shape[0]} pixels are too small to hold the code of "
                    f"{coordinates!r}, {needed} bytes; increase width or height"
                )

    def _render(self, event: "useq.MDAEvent") -> npt.NDArray[Any]:
        tile = self._tile(*_look(event, self._planes))
        height, width = tile.shape[0] // 2, tile.shape[1] // 2
        y = x = 0
        for axis, number in event.index.items():
            step_y, step_x = _STEPS.get(axis, _OTHER_STEP)
            y, x = y + step_y * number, x + step_x * number
        window = tile[y % height :, x % width :]
        frame = np.empty(self._shape, self._dtype)
        for top in range(0, self._shape[0], height):
            for left in range(0, self._shape[1], width):
                block = frame[top : top + height, left : left + width]
                block[...] = window[: block.shape[0], : block.shape[1]]
        return frame

    def _tile(self, look: int, blur: int) -> npt.NDArray[Any]:
        """Return the picture of a channel, tiled 2 x 2, so that any window of it is a picture."""
        tile = self._tiles.get((look, blur))
        if tile is None:
            height, width = (min(side, _TILE_LIMIT) for side in self._shape[:2])
            colours = self._shape[2] if len(self._shape) == 3 else 1
            planes = [
                _cells(height, width, self._seed, look + colour, _BLUR_PX[blur]) for colour in range(colours)
            ]
            picture = planes[0] if colours == 1 else np.stack(planes, axis=-1)
            scaled = (picture * np.iinfo(self._dtype).max).astype(self._dtype)
            tile = np.concatenate([np.concatenate([scaled, scaled], axis=1)] * 2)
            self._tiles[look, blur] = tile
        return tile


def _image_events(sequence: "useq.MDASequence") -> "Iterator[useq.MDAEvent]":
    """Yield the events with a frame; an autofocus event has none."""
    return (event for event in sequence if event.action.type == "acquire_image")


def _look(event: "useq.MDAEvent", planes: int) -> tuple[int, int]:
    """Return the number of the channel's look and of the blur in the picture of an event."""
    blur = 0
    if planes > 1:
        from_focus = abs(2 * event.index.get("z", 0) / (planes - 1) - 1)  # 0 in the middle, 1 at the ends
        blur = min(round(from_focus * (len(_BLUR_PX) - 1)), len(_BLUR_PX) - 1)
    return event.index.get("c", 0) % _LOOKS, blur


def _metadata(event: "useq.MDAEvent", number: int, elapsed_ms: float) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "source": "simulated",
        "frame_number": number,
        "elapsed_ms": round(elapsed_ms, 3),
    }
    if event.exposure is not None:
        metadata["exposure_ms"] = event.exposure
    if event.channel is not None:
        metadata["channel"] = event.channel.config
    stage = {"x": event.x_pos, "y": event.y_pos, "z": event.z_pos}
    position_um = {axis: position for axis, position in stage.items() if position is not None}
    if position_um:
        metadata["position_um"] = position_um
    return metadata


def _cells(height: int, width: int, seed: int, look: int, blur_px: float) -> npt.NDArray[np.float64]:
    """Return a seamless picture with values from 0 to 1: the nuclei, the bodies or the walls of cells.

    Three looks in a row show different parts of the same cells.
    """
    group, part = divmod(look, 3)
    rng = np.random.default_rng((seed, group))
    frequency = np.add.outer(np.fft.fftfreq(height) ** 2, np.fft.rfftfreq(width) ** 2)

    def blurred(field: npt.NDArray[Any], sigma_px: float) -> npt.NDArray[np.float64]:
        spectrum = np.fft.rfft2(field) * np.exp(-2 * (math.pi * sigma_px) ** 2 * frequency)
        return np.fft.irfft2(spectrum, s=(height, width))

    # About one cell per 40 x 40 pixels, their outlines bent by smooth noise.
    centres = (rng.random((height, width)) < 1 / 40**2).astype(float)
    centres[height // 2, width // 2] = 1.0
    bend = blurred(rng.standard_normal((height, width)), 5.0)
    near = blurred(centres, 9.0) * (2 * math.pi * 81) + 0.12 * bend / bend.std()
    body = 1 / (1 + np.exp(-(near - 0.35) * 14))
    nucleus = 1 / (1 + np.exp(-(near - 0.75) * 20))
    if part == 0:
        picture = nucleus * (0.75 + 0.1 * bend / bend.std())
    elif part == 1:
        picture = body * (0.45 + 0.25 * near) * (1 - 0.6 * nucleus)
    else:
        picture = 3.2 * body * (1 - body) + 0.08 * body
    grain = 0.015 * rng.standard_normal((height, width))  # noise of the camera, therefore not blurred
    return np.clip(0.04 + 0.8 * blurred(picture, blur_px) + grain, 0.0, 1.0)
