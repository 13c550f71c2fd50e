"""``exengine preview PATH``: creates a contact sheet that gives an overview of a dataset.

The sheet has one row per channel and named position. Its frames are spread evenly over the dataset and are
shown with a common contrast.
"""

import argparse
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.cli.info import OpenDataset
from exengine.cli.output import print_json, say
from exengine.cli.picture_file import save_picture
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import (
    ExEngineError,
    UnsupportedDataError,
    UnsupportedOperationError,
)
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system.files import expanded

MOST_ROWS, MOST_COLUMNS = 8, 8
TILE, LABEL, GAP = 160, 16, 4  # sizes in the picture, in pixels
_BACKGROUND, _TEXT, _ABSENT = (24, 24, 28), (225, 225, 230), (70, 40, 40)


def run(options: argparse.Namespace) -> int:
    """Write the picture and print its path."""
    beside = options.path.rstrip("/\\") + ".png"
    beside = beside.rpartition("/")[2] if is_url(options.path) else beside
    output = expanded(options.output or beside)
    with OpenDataset(options.path) as dataset:
        rows = choose_frames(dataset)
        if not rows:
            raise UnsupportedDataError(f"{options.path} contains no frames to show")
        unreadable = draw(dataset, rows, output)
    if unreadable:
        say(f"exengine: {len(unreadable)} frames cannot be read; the first error is: {unreadable[0]}")
    if options.json:
        print_json(
            {"picture": os.path.abspath(output), "frames": sum(map(len, rows)), "unreadable": unreadable}
        )
    else:
        print(f"picture: {output}")
    return 0


def choose_frames(dataset: DataStorage) -> list[list[DataCoordinates]]:
    """Return the coordinates of the frames to show, as one list per row of the picture.

    Rows, and the frames in a row, are in the order of ``dataset.axes``.
    """
    places = {
        axis: {value: place for place, value in enumerate(values)} for axis, values in dataset.axes.items()
    }

    def order(coordinates: DataCoordinates, *, names_only: bool = False) -> tuple[int, ...]:
        found = []
        for axis, known in places.items():
            value = coordinates.coordinate_dict.get(axis)
            if value is None or (names_only and not isinstance(value, str)):
                found.append(-1)
            else:
                found.append(known.get(value, len(known)))
        return tuple(found)

    groups: dict[tuple[int, ...], list[DataCoordinates]] = {}
    for coordinates in dataset:
        groups.setdefault(order(coordinates, names_only=True), []).append(coordinates)
    rows = [sorted(groups[row], key=order) for row in sorted(groups)]
    return [_spread(frames, MOST_COLUMNS) for frames in _spread(rows, MOST_ROWS)]


def _spread(items: list[Any], most: int) -> list[Any]:
    if len(items) <= most:
        return items
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def draw(dataset: DataStorage, rows: list[list[DataCoordinates]], output: str) -> list[str]:
    """Draw the contact sheet. Return an error message for each frame that cannot be read."""
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise UnsupportedOperationError(
            "a picture needs Pillow; install it with: pip install pillow"
        ) from None
    unreadable: list[str] = []
    columns = max(map(len, rows))
    step_x, step_y = TILE + GAP, TILE + LABEL + GAP
    sheet = Image.new("RGB", (columns * step_x + GAP, len(rows) * step_y + GAP), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for row, frames in enumerate(rows):
        tiles: list[npt.NDArray[Any] | None] = []
        for coordinates in frames:
            try:
                tiles.append(_plane(dataset.get_data(coordinates)))
            except ExEngineError as error:
                unreadable.append(str(error))
                tiles.append(None)
        low, high = _contrast([tile for tile in tiles if tile is not None])
        for column, (coordinates, tile) in enumerate(zip(frames, tiles, strict=True)):
            left, top = GAP + column * step_x, GAP + row * step_y
            if tile is None:
                pen.rectangle((left, top + LABEL, left + TILE - 1, top + LABEL + TILE - 1), fill=_ABSENT)
                pen.text((left + 8, top + LABEL + TILE // 2), "cannot be read", fill=_TEXT)
            else:
                scaled = np.clip((tile.astype(np.float32) - low) * (255 / max(high - low, 1e-9)), 0, 255)
                picture = Image.fromarray(scaled.astype(np.uint8))
                picture.thumbnail((TILE, TILE))
                if max(picture.size) < TILE:
                    factor = TILE // max(picture.size)
                    picture = picture.resize(
                        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
                    )
                sheet.paste(picture, (left, top + LABEL))
            label = " ".join(
                f"{axis[:1]}={value}" if isinstance(value, int) else value
                for axis, value in coordinates.items()
            )
            pen.text((left, top + 2), label[:26], fill=_TEXT)
    save_picture(sheet, output)
    return unreadable


def _plane(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the first plane of a frame of any shape."""
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


def _contrast(tiles: list[npt.NDArray[Any]]) -> tuple[float, float]:
    if not tiles:
        return 0.0, 1.0
    sample = np.concatenate([tile.reshape(-1)[:: max(1, tile.size // 4096)] for tile in tiles])
    if tiles[0].ndim == 3 and sample.dtype == np.uint8:
        return 0.0, 255.0  # leave colours unchanged
    low, high = np.percentile(sample, (0.5, 99.5))
    return float(low), float(high)
