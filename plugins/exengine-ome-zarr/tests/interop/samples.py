"""Datasets of this backend, with the content that readers must find.

The expected pixels and metadata are written down here or come from the frame source; no code of the backend
computes them.
"""

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import useq

import exengine

GREEN_MAGENTA = ["00FF00", "FF00FF"]
WHITE = ["FFFFFF"]
MICROMETERS = {"z": "micrometer", "y": "micrometer", "x": "micrometer"}


@dataclass(kw_only=True)
class Image:
    """One image of a dataset.

    ``path`` is its path in the dataset, ``levels`` the shapes of the smaller resolution levels, ``units`` those
    of the dimensions that have one.
    """

    path: str
    name: str
    dims: str
    data: Any
    scale: list[float]
    translation: list[float]
    units: dict[str, str]
    channels: list[str]
    colors: list[str]
    levels: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class Sample:
    """A dataset: an image, a series of images, or a plate."""

    path: Path
    kind: str
    images: list[Image]


def numbered(*shape, dtype=np.uint16):
    """Return an array in which every pixel differs from its neighbours in every dimension."""
    count = np.arange(np.prod(shape), dtype=np.uint64)
    return ((count * 2654435761) >> 7).reshape(shape).astype(dtype)


def bare(path, *, shape=(3, 2, 4, 48, 64), dtype=np.uint16, **options):
    """Write frames without a plan, in an order that is not that of the array."""
    data = numbered(*shape, dtype=dtype)
    with exengine.open_storage("ome-zarr", path, **options) as storage:
        for z in reversed(range(shape[2])):
            for time in range(shape[0]):
                for channel, name in enumerate(("DAPI", "FITC")[: shape[1]]):
                    storage.put({"time": time, "channel": name, "z": z}, data[time, channel, z], {"z": z})
    image = Image(
        path="",
        name=path.name.removesuffix(".ome.zarr"),
        dims="tczyx",
        data=data,
        scale=[1.0] * 5,
        translation=[0.0] * 5,
        units={},
        channels=["DAPI", "FITC"][: shape[1]],
        colors=GREEN_MAGENTA if shape[1] == 2 else WHITE,
    )
    return Sample(path=path, kind="image", images=[image])


def rgb(path):
    """Write colour frames."""
    frames = numbered(4, 33, 47, 3, dtype=np.uint8)
    with exengine.open_storage("ome-zarr", path) as storage:
        for time, frame in enumerate(frames):
            storage.put({"time": time}, frame, {})
    image = Image(
        path="",
        name="rgb",
        dims="tcyx",
        data=frames.transpose(0, 3, 1, 2),
        scale=[1.0] * 4,
        translation=[0.0] * 4,
        units={},
        channels=["red", "green", "blue"],
        colors=["FF0000", "00FF00", "0000FF"],
    )
    return Sample(path=path, kind="image", images=[image])


def pyramid(path):
    """Write frames with an odd width, from which ``finish`` computes resolution levels."""
    sample = bare(path, shape=(1, 2, 1, 1200, 1031), pyramid="mean")
    above = sample.images[0].data
    while max(above.shape[-2:]) > 512:
        above = _halved(above)
        sample.images[0].levels.append(above)
    return sample


def _halved(data):
    """Return the means of 2 x 2 pixels, or of fewer at the edges, rounded to the nearest integer."""
    height, width = (-(-length // 2) for length in data.shape[-2:])
    edges = [(0, 2 * height - data.shape[-2]), (0, 2 * width - data.shape[-1])]
    padded = np.pad(data.astype(float), [(0, 0)] * (data.ndim - 2) + edges, constant_values=np.nan)
    blocks = padded.reshape(*data.shape[:-2], height, 2, width, 2)
    return np.floor(np.nanmean(blocks, axis=(-3, -1)) + 0.5).astype(data.dtype)


def acquired(path, sequence, **options):
    """Acquire from the simulated source, which provides a plan; return the frames by their coordinates."""
    size = {"width": 64, "height": 48}
    config = {
        "storage": {"backend": "ome-zarr", "path": str(path), "options": options},
        "source": {"name": "simulated", "options": size},
        "sequence": sequence,
    }
    ledger = exengine.acquire(config)
    frames: dict[Any, Any] = {}
    (simulated,) = entry_points(group="exengine.frame_sources", name="simulated")
    source = simulated.load()(**size)
    source.prepare(useq.MDASequence(**sequence))
    source.run(lambda coordinates, data, _: frames.setdefault(tuple(sorted(coordinates.items())), data))
    source.close()
    assert ledger.stored == len(frames)
    return lambda **at: frames[tuple(sorted(at.items()))]


def series(path, **options):
    """Acquire two positions."""
    places = [
        {"name": "left", "x": 100.0, "y": 200.0, "z": 10.0},
        {"name": "right", "x": 350.5, "y": 200.0, "z": 12.0},
    ]
    frame = acquired(
        path,
        {
            "stage_positions": places,
            "channels": ["DAPI", "FITC"],
            "time_plan": {"interval": 2, "loops": 3},
            "z_plan": {"range": 4, "step": 2},
        },
        **options,
    )
    images = []
    for number, place in enumerate(places):
        data = [
            [
                [frame(position=place["name"], time=t, channel=c, z=z) for z in range(3)]
                for c in ("DAPI", "FITC")
            ]
            for t in range(3)
        ]
        images.append(
            Image(
                path=str(number),
                name=place["name"],
                dims="tczyx",
                data=np.array(data),
                scale=[2.0, 1.0, 2.0, 1.0, 1.0],
                translation=[0.0, 0.0, place["z"] - 2, place["y"], place["x"]],
                units={"t": "second", **MICROMETERS},
                channels=["DAPI", "FITC"],
                colors=GREEN_MAGENTA,
            )
        )
    return Sample(path=path, kind="series", images=images)


def plate(path):
    """Acquire two fields in each of three wells of a plate with 24 wells."""
    wells = {"plate": "24-well", "a1_center_xy": [0.0, 0.0], "selected_wells": ([0, 0, 1], [0, 1, 1])}
    wells["well_points_plan"] = {"rows": 1, "columns": 2, "fov_width": 64, "fov_height": 48}
    sequence = {"stage_positions": wells, "channels": ["DAPI"], "z_plan": {"range": 2, "step": 1}}
    frame = acquired(path, sequence)
    # Wells are 19 mm apart, and fields 64 um; on the stage, y decreases from row to row. No height is
    # specified.
    places = [("A/1", 0.0, 0.0), ("A/2", 19000.0, 0.0), ("B/2", 19000.0, -19000.0)]
    images = []
    for well, x, y in places:
        for number in range(2):
            name = f"{well.replace('/', '')}_{number:04}"
            images.append(
                Image(
                    path=f"{well}/{number}",
                    name=name,
                    dims="czyx",
                    data=np.array([[frame(position=name, channel="DAPI", z=z) for z in range(3)]]),
                    scale=[1.0, 1.0, 1.0, 1.0],
                    translation=[0.0, 0.0, y, x - 32 + 64 * number],
                    units=MICROMETERS,
                    channels=["DAPI"],
                    colors=WHITE,
                )
            )
    return Sample(path=path, kind="plate", images=images)


SAMPLES = {
    "bare": bare,
    "odd": lambda path: bare(path, shape=(7, 1, 3, 51, 101), dtype=np.uint8, shard=4),
    "float": lambda path: bare(path, dtype=np.float32, codec="blosc-zstd"),
    "tiles": lambda path: bare(path, shape=(2, 2, 2, 100, 130), chunk=32),
    "blosc": lambda path: bare(path, codec="blosc-lz4"),
    "rgb": rgb,
    "pyramid": pyramid,
    "series": series,
    "series-zstd": lambda path: series(path, codec="zstd"),
    "plate": plate,
}
