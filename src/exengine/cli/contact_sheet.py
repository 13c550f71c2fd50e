"""Draws a contact sheet: rows of small pictures in the colors of their channels, with labels and a scale bar.

A tile shows one frame, or the overlaid frames of several channels. All frames of one channel in a row have
the same contrast.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import ExEngineError, UnsupportedDataError, UnsupportedOperationError
from exengine.kernel.source_plan import SourcePlan

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

TILE, LABEL, GAP = 160, 16, 4  # sizes in the picture, in pixels
_BACKGROUND, _TEXT, _ABSENT = (24, 24, 28), (225, 225, 230), (70, 40, 40)
_WHITE = (255, 255, 255)
_MIXED = ("00FF00", "FF00FF", "00FFFF", "FF0000", "FFFF00", "0000FF")
"""The colors of overlaid channels whose color is unknown."""
_LONGEST_BAR = 0.4  # as a fraction of the tile width

Tile = Sequence[DataCoordinates]
"""The frames in one tile."""
_Channel = int | str | None
_Planes = list[tuple[_Channel, npt.NDArray[Any]]]


def draw(
    dataset: DataStorage, rows: Sequence[Sequence[Tile]], plan: SourcePlan
) -> "tuple[Image.Image, list[str]]":
    """Return the contact sheet, and an error message for each frame that cannot be read.

    Parameters
    ----------
    dataset : DataStorage
    rows : sequence of rows, each a sequence of tiles
    plan : SourcePlan
        The colors of the channels, and the pixel size.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise UnsupportedOperationError(
            "a picture needs Pillow; install it with: pip install pillow"
        ) from None
    unreadable: list[str] = []
    step_x, step_y = TILE + GAP, TILE + LABEL + GAP
    columns = max(map(len, rows))
    sheet = Image.new("RGB", (columns * step_x + GAP, len(rows) * step_y + GAP), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    colors = _colors(dataset, plan, mixed=any(len(tile) > 1 for row in rows for tile in row))
    for number, row in enumerate(rows):
        tiles = [_read(dataset, tile, unreadable) for tile in row]
        contrasts = _contrasts(tiles)
        for column, (tile, planes) in enumerate(zip(row, tiles, strict=True)):
            left, top = GAP + column * step_x, GAP + number * step_y
            pen.text((left, top + 2), _label(tile), fill=_TEXT)
            top += LABEL
            if not planes:
                pen.rectangle((left, top, left + TILE - 1, top + TILE - 1), fill=_ABSENT)
                pen.text((left + 8, top + TILE // 2), "cannot be read", fill=_TEXT)
                continue
            picture, scale = _fitted(Image.fromarray(mixed(planes, contrasts, colors)))
            sheet.paste(picture, (left, top))
            if plan.pixel_size_um is not None and column == 0:
                um_per_pixel = plan.pixel_size_um[1] / scale
                _draw_scale_bar(pen, (left, top + picture.height), picture.width, um_per_pixel)
    return sheet, unreadable


def _read(dataset: DataStorage, tile: Tile, unreadable: list[str]) -> _Planes:
    planes: _Planes = []
    for coordinates in tile:
        try:
            planes.append((coordinates.__dict__.get("channel"), plane_of(dataset.get_data(coordinates))))
        except ExEngineError as error:
            unreadable.append(str(error))
    return planes


def plane_of(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the first plane, ``(Y, X)`` or ``(Y, X, 3)``, of a frame of any shape."""
    if data.dtype.kind == "c":
        data = np.abs(data)
    if data.dtype.kind not in "buif" or not data.size:
        raise UnsupportedDataError(f"a frame with dtype {data.dtype} and shape {data.shape} cannot be shown")
    data = np.nan_to_num(data.astype(np.float32)) if data.dtype.kind == "f" else data
    if data.ndim < 2:
        data = data.reshape(1, -1)
    elif data.ndim == 3 and data.shape[2] in (3, 4):
        data = data[..., :3]
    elif data.ndim > 2:
        data = data.reshape(-1, *data.shape[-2:])[0]
    return data


# -- contrast and colors -------------------------------------------------------------------------


def _contrasts(tiles: Sequence[_Planes]) -> dict[_Channel, tuple[float, float]]:
    """Return, for each channel of a row, the values that are shown as black and as full color."""
    planes: dict[_Channel, list[npt.NDArray[Any]]] = {}
    for tile in tiles:
        for channel, plane in tile:
            planes.setdefault(channel, []).append(plane)
    return {channel: contrast_of(some) for channel, some in planes.items()}


def contrast_of(planes: Sequence[npt.NDArray[Any]]) -> tuple[float, float]:
    """Return the values between which nearly all pixels lie; for 8-bit RGB, return the full range."""
    sample = np.concatenate([plane.reshape(-1)[:: max(1, plane.size // 4096)] for plane in planes])
    if planes[0].ndim == 3 and sample.dtype == np.uint8:
        return 0.0, 255.0
    low, high = np.percentile(sample.view(np.uint8) if sample.dtype == bool else sample, (0.5, 99.5))
    return float(low), float(high)


def _colors(dataset: DataStorage, plan: SourcePlan, *, mixed: bool) -> dict[_Channel, tuple[int, int, int]]:
    known = {channel.name: channel.color for channel in plan.channels}
    found: dict[_Channel, tuple[int, int, int]] = {}
    for number, channel in enumerate(dataset.axes.get("channel", ())):
        default = _MIXED[number % len(_MIXED)] if mixed else "FFFFFF"
        found[channel] = rgb_of(known.get(str(channel)) or default)
    return found


def rgb_of(color: str) -> tuple[int, int, int]:
    """Return the red, green and blue values of a color; white if the text is not a color."""
    try:
        red, green, blue = bytes.fromhex(color.removeprefix("#"))
    except ValueError:
        return _WHITE
    return red, green, blue


def mixed(
    planes: _Planes,
    contrasts: Mapping[_Channel, tuple[float, float]],
    colors: Mapping[_Channel, tuple[int, int, int]],
) -> npt.NDArray[np.uint8]:
    """Overlay planes in the colors of their channels. Return a uint8 array of shape ``(Y, X, 3)``.

    Parameters
    ----------
    planes : list of (channel, numpy.ndarray)
        ``(Y, X)`` or ``(Y, X, 3)`` each.
    contrasts, colors : mapping
        The values between which pixels are scaled, and the color of each channel.
    """
    height, width = planes[0][1].shape[:2]
    total = np.zeros((height, width, 3), np.float32)
    for channel, plane in planes:
        low, high = contrasts[channel]
        scaled = np.clip((plane.astype(np.float32) - low) / max(high - low, 1e-9), 0, 1)
        color = np.asarray(colors.get(channel, _WHITE), np.float32)
        total += scaled * 255 if scaled.ndim == 3 else scaled[..., None] * color
    return np.clip(total, 0, 255).astype(np.uint8)


# -- pictures ------------------------------------------------------------------------------------


def _fitted(picture: "Image.Image") -> "tuple[Image.Image, float]":
    """Return a picture that fits a tile, and the factor by which it was enlarged."""
    from PIL import Image

    width = picture.width
    picture.thumbnail((TILE, TILE))
    if max(picture.size) < TILE:
        factor = TILE // max(picture.size)
        size = picture.width * factor, picture.height * factor
        picture = picture.resize(size, Image.Resampling.NEAREST)
    return picture, picture.width / width


def _label(tile: Tile) -> str:
    parts = []
    for axis, value in tile[0].items():
        if len(tile) > 1 and axis == "channel":
            parts.append("+".join(str(frame["channel"]) for frame in tile))
        else:
            parts.append(f"{axis[:1]}={value}" if isinstance(value, int) else value)
    return " ".join(parts)[:26]


def bar_length_um(longest_um: float) -> float:
    """Return the greatest length that is 1, 2 or 5 times a power of 10 and does not exceed a limit.

    Examples
    --------
    >>> bar_length_um(64), bar_length_um(9.9), bar_length_um(0.3)
    (50.0, 5.0, 0.2)
    """
    unit = 10.0 ** math.floor(math.log10(longest_um))
    return next(round(step * unit, 12) for step in (5, 2, 1) if step * unit <= longest_um)


def _draw_scale_bar(
    pen: "ImageDraw.ImageDraw", corner: tuple[int, int], width: int, um_per_pixel: float
) -> None:
    """Draw a labeled scale bar in the lower left corner of a picture. The bar's length is a round number."""
    length_um = bar_length_um(width * um_per_pixel * _LONGEST_BAR)
    left, bottom = corner[0] + 6, corner[1] - 6
    right = left + max(1, round(length_um / um_per_pixel)) - 1
    text = f"{length_um:g} um"
    box = pen.textbbox((left, bottom - 18), text)
    pen.rectangle((left - 3, box[1] - 2, max(right, round(box[2])) + 3, bottom + 3), fill=(0, 0, 0))
    pen.text((left, bottom - 18), text, fill=_WHITE)
    pen.rectangle((left, bottom - 2, right, bottom), fill=_WHITE)
