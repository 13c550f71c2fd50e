"""The frame source ``simulated``: a simulated camera whose frames carry their own coordinates.

The frames resemble fluorescence images, but are not meant to be realistic. Their first pixels encode their
coordinates (:mod:`exengine.frame_sources.frame_code`), so a misplaced frame can be detected from its pixels
alone.
"""

import math
import threading
import time
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Le

from exengine.frame_sources.frame_code import TEXT_LIMIT, code_of, decode, encode
from exengine.frame_sources.sequence import check_unique
from exengine.frame_sources.sequence_checks import check_points, check_sequence, sequence_error
from exengine.frame_sources.sequence_events import (
    CompleteEvents,
    Reference,
    private_copy,
    set_field_of_view,
    sub_sequences,
)
from exengine.frame_sources.sequence_plan import plan_fields
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import SourceError, UnsupportedDataError
from exengine.kernel.frame_source_base import FrameSource, Sink, SourcePlan
from exengine.kernel.frames.axis_collector import AxisCollector
from exengine.kernel.registry.options import check_options

if TYPE_CHECKING:
    import useq

__all__ = ["SimulatedSource", "decode", "encode"]

PIXEL_SIZE_UM = 1.0
"""Size of a pixel in the sample plane. It determines the field of view used for grids."""

_TILE_LIMIT = 512
"""Maximum side length of the computed picture, in pixels. A larger frame repeats the picture seamlessly."""

_STEPS = {"t": (5, 3), "z": (1, 0), "c": (0, 0)}
"""Shift of the picture per step along an axis, in pixels (y, x)."""
_OTHER_STEP = (149, 97)

_LOOKS = 12
"""Number of different channel pictures. Further channels reuse them, which limits memory use."""

_BLUR_PX = (0.0, 1.5, 3.0, 5.0)
"""Blur of the pictures, in pixels, from in focus to out of focus."""


class SimulatedSource(FrameSource):
    """Simulated camera that shows drifting cells, with focus blur and coordinates in the pixels.

    The camera needs no hardware, and all of its options have defaults. The first pixels of every frame encode
    the frame's coordinates, and :func:`exengine.frame_sources.simulated.decode` reads them. The same options
    and the same sequence always give the same pixels.

    Parameters
    ----------
    width : int
        Width of a frame, in pixels.
    height : int
        Height of a frame, in pixels.
    dtype : {"uint16", "uint8"}
        Data type of the pixel values.
    rate_hz : float, optional
        Frames per second. By default, frames are delivered as fast as they are stored. The interval of a time
        plan is ignored.
    seed : int
        Seed for the random cells.
    rgb : bool
        Whether to deliver color frames of shape ``(Y, X, 3)``.
    fail_after : int, optional
        Number of frames after which the source raises a ``SourceError``, for testing failures.

    Raises
    ------
    OptionError
        If an option has a wrong value.

    Notes
    -----
    A frame's metadata contains ``source``, ``frame_number`` (counted from 0 in each run) and ``elapsed_ms``
    since the start of the run. If the sequence specifies them, the metadata also includes ``exposure_ms``,
    ``channel`` and ``position_um`` with ``x``, ``y`` and ``z``.

    A cancelled source cannot be used again. Create a new source instead.

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
        self._complete: CompleteEvents | None = None
        self._shutter_open = False
        self._exposure_ms: float | None = None
        self._tiles: dict[tuple[int, int], npt.NDArray[Any]] = {}
        self._cancelled = threading.Event()

    def prepare(self, sequence: "useq.MDASequence", /) -> SourcePlan:
        """Check that each frame has unique coordinates and enough pixels to encode them.

        Parameters
        ----------
        sequence : useq.MDASequence
            The sequence to acquire.

        Returns
        -------
        SourcePlan
            Number, shape and dtype of the frames.

        Raises
        ------
        SourceError
            If two frames have the same coordinates, or a frame is too small for its code.
        """
        check_sequence(sequence)
        _check_devices(sequence)
        sequence = private_copy(sequence)
        set_field_of_view(sequence, self._shape[1] * PIXEL_SIZE_UM, self._shape[0] * PIXEL_SIZE_UM)
        check_points(sequence)
        complete = CompleteEvents(sequence)
        axes = AxisCollector()
        frames = check_unique(self._planned_events(complete, axes), complete.repeated)
        self._complete, self._planes = complete, sequence.sizes.get("z", 0)
        # Compute the pictures here, so that no frame of the run has to wait for them.
        for look in range(min(max(len(sequence.channels), 1), _LOOKS)):
            for blur in range(len(_BLUR_PX) if self._planes > 1 else 1):
                self._tile(look, blur)
        return SourcePlan(
            frames=frames,
            shape=self._shape,
            dtype=self._dtype.name,
            summary={"source": "simulated", "seed": self._seed, "rate_hz": self._rate_hz},
            coordinates=lambda: (self._coordinates(complete, event) for event in complete.image_events()),
            pixel_size_um=(PIXEL_SIZE_UM, PIXEL_SIZE_UM),
            **plan_fields(complete, axes.axes()),
        )

    def skip(self, existing: Container[DataCoordinates], /) -> None:
        """Leave out the frames that already exist; see :meth:`exengine.FrameSource.skip`.

        Raises
        ------
        SourceError
            If no sequence is prepared.
        """
        complete = self._complete
        if complete is None:
            raise SourceError("no sequence was prepared; call prepare(sequence) before skip(existing)")
        complete.skips = lambda event: self._coordinates(complete, event) in existing

    def settings(self) -> dict[str, Any]:
        """Return whether the simulated shutter is open, and the exposure time."""
        return {"shutter_open": self._shutter_open, "exposure_ms": self._exposure_ms}

    def run(self, sink: Sink, /) -> None:
        """Deliver every frame of the prepared sequence to the sink, then return.

        Parameters
        ----------
        sink : callable
            Called with coordinates, pixels and metadata. The sink owns the array, which is always new.

        Raises
        ------
        SourceError
            If no sequence is prepared, or after ``fail_after`` frames.
        """
        if self._complete is None:
            raise SourceError("no sequence was prepared; call prepare(sequence) before run(sink)")
        before_ms = self._exposure_ms
        try:
            self._run(sink, self._complete)
        finally:
            self._shutter_open, self._exposure_ms = False, before_ms

    def _run(self, sink: Sink, complete: CompleteEvents) -> None:
        setup = complete.sequence.setup
        start = Reference()
        if setup is not None:
            self._exposure_ms = setup.exposure or self._exposure_ms
            start = Reference(setup.x_pos or 0.0, setup.y_pos or 0.0, setup.z_pos or 0.0)
        default_ms = self._exposure_ms
        started = time.perf_counter()
        delivered = 0
        for event in complete.events(lambda _: start):
            if event.action.type != "acquire_image":
                continue  # the simulated autofocus changes nothing
            self._fail_when_due(delivered)
            # Compute each deadline from the start time, so that a slow sink causes no drift.
            due = started + delivered / self._rate_hz if self._rate_hz else 0.0
            if self._cancelled.wait(max(0.0, due - time.perf_counter())):
                return
            self._exposure_ms = event.exposure or default_ms
            self._shutter_open = True
            coordinates = self._coordinates(complete, event)
            frame = self._render(event)
            encode(frame, coordinates)
            self._shutter_open = event.keep_shutter_open
            metadata = _metadata(event, self._exposure_ms, delivered, (time.perf_counter() - started) * 1000)
            sink(coordinates, frame, metadata)
            delivered += 1
        self._fail_when_due(delivered)

    def _planned_events(self, complete: CompleteEvents, axes: AxisCollector) -> "Iterator[useq.MDAEvent]":
        """Yield the image events, adding the setup's exposure, and collect the axes of their frames.

        A long sequence takes a while to compute, so the size of each code is checked at the same time.
        """
        # Coordinates consist of numbers and of names from the sequence. If the whole sequence fits into the
        # pixels as text, so does the code of each frame.
        room = min(math.prod(self._shape), TEXT_LIMIT)
        fits = 2 * len(complete.sequence.model_dump_json()) + 1024 <= room
        for event in complete.image_events():
            exposed = _exposed(complete, event)
            coordinates = complete.coordinates(exposed)
            axes.add(coordinates)
            if not fits:
                self._check_room(coordinates)
            yield exposed

    @staticmethod
    def _coordinates(complete: CompleteEvents, event: "useq.MDAEvent") -> DataCoordinates:
        return complete.coordinates(_exposed(complete, event))

    def cancel(self) -> None:
        """End :meth:`run` soon, without an error. Any later run ends immediately."""
        self._cancelled.set()

    def close(self) -> None:
        """Release the sequence and the pictures. Idempotent."""
        self._complete = None
        self._tiles = {}

    def _fail_when_due(self, delivered: int) -> None:
        if delivered == self._fail_after and not self._cancelled.is_set():
            raise SourceError(f"the simulated camera failed, as requested by fail_after={delivered}")

    def _check_room(self, coordinates: DataCoordinates) -> None:
        """Check that a frame has enough pixels for the code of its coordinates."""
        values = math.prod(self._shape)
        try:
            needed = len(code_of(coordinates))
        except UnsupportedDataError as error:
            raise SourceError(f"the names in the sequence are too long: {error}") from error
        if needed > values:
            raise SourceError(
                f"frames of {self._shape[1]} x {self._shape[0]} pixels are too small: the code of "
                f"{coordinates!r} needs {needed} pixels; increase width or height"
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
        """Return a channel's picture, tiled 2 x 2, so that any tile-sized window is a complete picture."""
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


def _check_devices(sequence: "useq.MDASequence") -> None:
    """Reject sequences that need a device that is not simulated."""
    setup, parts = sequence.setup, [sequence, *(own for _, own in sub_sequences(sequence))]
    positions = sequence.stage_positions if isinstance(sequence.stage_positions, tuple) else ()
    for what, needed in (
        ("the camera of a channel", any(channel.camera for part in parts for channel in part.channels)),
        ("properties of a position", any(position.properties for position in positions)),
        *(
            (f"setup.{name}", setup is not None and getattr(setup, name) is not None)
            for name in ("channel", "properties", "roi", "slm_image")
        ),
    ):
        if needed:
            raise sequence_error(
                "devices",
                f"the sequence sets {what}, but the source 'simulated' does not support this; remove the "
                "setting, or use the source 'micromanager'",
            )


def _exposed(complete: CompleteEvents, event: "useq.MDAEvent") -> "useq.MDAEvent":
    """Return an event with the exposure of the sequence's setup, unless the event has its own."""
    setup = complete.sequence.setup
    if event.exposure is None and setup is not None and setup.exposure is not None:
        return event.model_copy(update={"exposure": setup.exposure})
    return event


def _look(event: "useq.MDAEvent", planes: int) -> tuple[int, int]:
    """Return the ``look`` and the index of the blur that determine the picture of an event."""
    blur = 0
    if planes > 1:
        from_focus = abs(2 * event.index.get("z", 0) / (planes - 1) - 1)  # 0 in mid-stack, 1 at the ends
        blur = min(round(from_focus * (len(_BLUR_PX) - 1)), len(_BLUR_PX) - 1)
    return event.index.get("c", 0) % _LOOKS, blur


def _metadata(
    event: "useq.MDAEvent", exposure_ms: float | None, number: int, elapsed_ms: float
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "source": "simulated",
        "frame_number": number,
        "elapsed_ms": round(elapsed_ms, 3),
    }
    if exposure_ms is not None:
        metadata["exposure_ms"] = exposure_ms
    if event.channel is not None:
        metadata["channel"] = event.channel.config
    stage = {"x": event.x_pos, "y": event.y_pos, "z": event.z_pos}
    position_um = {axis: position for axis, position in stage.items() if position is not None}
    if position_um:
        metadata["position_um"] = position_um
    return metadata


def _cells(height: int, width: int, seed: int, look: int, blur_px: float) -> npt.NDArray[np.float64]:
    """Return a seamless picture of cell nuclei, cell bodies or cell walls, with values from 0 to 1.

    Three consecutive values of ``look`` show different parts of the same cells.
    """
    group, part = divmod(look, 3)
    rng = np.random.default_rng((seed, group))
    frequency = np.add.outer(np.fft.fftfreq(height) ** 2, np.fft.rfftfreq(width) ** 2)

    def blurred(field: npt.NDArray[Any], sigma_px: float) -> npt.NDArray[np.float64]:
        spectrum = np.fft.rfft2(field) * np.exp(-2 * (math.pi * sigma_px) ** 2 * frequency)
        return np.fft.irfft2(spectrum, s=(height, width))

    # Place about one cell per 40 x 40 pixels, with outlines distorted by smooth noise.
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
    grain = 0.015 * rng.standard_normal((height, width))  # camera noise is not blurred
    return np.clip(0.04 + 0.8 * blurred(picture, blur_px) + grain, 0.0, 1.0)
