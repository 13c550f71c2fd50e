"""``exengine preview PATH``: creates a contact sheet that gives an overview of a dataset.

The sheet has one row for each combination of channel and named position, or one row per named position if the
channels are overlaid. Its frames are spread evenly over the dataset.
"""

import argparse
import os
from collections.abc import Iterable
from typing import Any

from exengine.cli.contact_sheet import draw
from exengine.cli.info import OpenDataset
from exengine.cli.output import print_json, say
from exengine.cli.picture_file import save_picture
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import UnsupportedDataError
from exengine.kernel.storage.description import plan_of
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system.files import expanded
from exengine.kernel.wording import human_count

MOST_ROWS, MOST_COLUMNS = 8, 8


def run(options: argparse.Namespace) -> int:
    """Write the picture and print its path."""
    beside = options.path.rstrip("/\\") + ".png"
    beside = beside.rpartition("/")[2] if is_url(options.path) else beside
    output = expanded(options.output or beside)
    with OpenDataset(options.path) as dataset:
        if options.composite:
            rows = choose_composites(dataset)
        else:
            rows = [[[frame] for frame in row] for row in choose_frames(dataset)]
        if not rows:
            raise UnsupportedDataError(f"{options.path} contains no frames to show")
        picture, unreadable = draw(dataset, rows, plan_of(dataset))
    save_picture(picture, output)
    if unreadable:
        frames = human_count(len(unreadable), "frame")
        say(f"exengine: {frames} cannot be read; the first error is: {unreadable[0]}")
    if options.json:
        count = sum(len(tile) for row in rows for tile in row)
        print_json({"picture": os.path.abspath(output), "frames": count, "unreadable": unreadable})
    else:
        print(f"picture: {output}")
    return 0


def choose_frames(
    dataset: DataStorage, frames: Iterable[DataCoordinates] | None = None
) -> list[list[DataCoordinates]]:
    """Return the coordinates of the frames to show, as one list per row of the picture.

    Rows, and the frames in a row, are in the order of ``dataset.axes``.

    Parameters
    ----------
    dataset : DataStorage
    frames : iterable of DataCoordinates, optional
        The frames to choose from; by default, all of them.
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
    for coordinates in dataset if frames is None else frames:
        groups.setdefault(order(coordinates, names_only=True), []).append(coordinates)
    rows = [sorted(groups[row], key=order) for row in sorted(groups)]
    return [_spread(frames, MOST_COLUMNS) for frames in _spread(rows, MOST_ROWS)]


def _spread(items: list[Any], most: int) -> list[Any]:
    if len(items) <= most:
        return items
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def choose_composites(dataset: DataStorage) -> list[list[list[DataCoordinates]]]:
    """Return the coordinates of the frames to overlay, by row and tile of the picture.

    A tile contains the frames that differ only in their channel.
    """
    tiles: dict[DataCoordinates, list[DataCoordinates]] = {}
    for coordinates in dataset:
        others = {axis: value for axis, value in coordinates.items() if axis != "channel"}
        tiles.setdefault(DataCoordinates(others), []).append(coordinates)
    return [[tiles[place] for place in row] for row in choose_frames(dataset, tiles)]
