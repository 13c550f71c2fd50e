"""The ``zarr.json`` documents of a dataset: groups, arrays, and the OME metadata in their attributes.

The documents follow Zarr version 3 and OME-Zarr version 0.5 (https://ngff.openmicroscopy.org/0.5/).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import orjson

from exengine.base_classes import PlannedChannel, PlannedPlate, PlannedPosition, SourcePlan
from exengine_ome_zarr.format.layout import Indices, Layout
from exengine_ome_zarr.format.pixels import PixelCodec

OME_VERSION = "0.5"
_AXES = {
    "t": {"name": "t", "type": "time", "unit": "second"},
    "c": {"name": "c", "type": "channel"},
    "z": {"name": "z", "type": "space", "unit": "micrometer"},
    "y": {"name": "y", "type": "space", "unit": "micrometer"},
    "x": {"name": "x", "type": "space", "unit": "micrometer"},
}
_COLORS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FF0000", "FFFF00", "0000FF", "FF8000")
_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


@dataclass(kw_only=True)
class StagePosition:
    """A stage position, and its location on a plate; unknown values are None."""

    name: int | str
    x_um: float | None = None
    y_um: float | None = None
    z_um: float | None = None
    row: str | None = None
    column: str | None = None
    field: int | None = None


@dataclass(kw_only=True)
class Facts:
    """Facts about the acquisition that become OME metadata. Unknown facts are None or empty.

    Attributes
    ----------
    pixel_size_um : tuple of two float, or None
        The height and width of a pixel in the sample plane.
    z_step_um, interval_s : float or None
        The distance between planes, and the time between time points.
    colors : dict of str to str
        The color of each channel, such as ``"00FF00"``.
    stage_positions : list of StagePosition
    pyramid : str or None
        How resolution levels are computed when the dataset is finished, or None for no levels.
    plate : dict or None
        ``name``, ``rows`` and ``columns`` of a well plate, if the dataset has the layout of a plate.
    """

    pixel_size_um: tuple[float, float] | None = None
    z_step_um: float | None = None
    interval_s: float | None = None
    colors: dict[str, str] = field(default_factory=dict)
    stage_positions: list[StagePosition] = field(default_factory=list)
    plate: dict[str, Any] | None = None
    pyramid: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the facts as a JSON object."""
        return asdict(self)

    def plan(self) -> SourcePlan:
        """Return the facts as a plan."""
        plate = self.plate or {}
        return SourcePlan(
            pixel_size_um=self.pixel_size_um,
            z_step_um=self.z_step_um,
            interval_s=self.interval_s,
            channels=tuple(PlannedChannel(name, color) for name, color in self.colors.items()),
            stage_positions=tuple(PlannedPosition(**vars(place)) for place in self.stage_positions),
            plate=PlannedPlate(name=plate["name"], rows=tuple(plate["rows"]), columns=tuple(plate["columns"]))
            if plate
            else None,
        )

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the facts from the JSON object that :meth:`to_json` returned."""
        size = value.get("pixel_size_um")
        return cls(
            **{
                **value,
                "pixel_size_um": None if size is None else (float(size[0]), float(size[1])),
                "stage_positions": [StagePosition(**each) for each in value.get("stage_positions", ())],
            }
        )


def encode(document: dict[str, Any]) -> bytes:
    """Return the bytes of a document."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def group(ome: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of the ``zarr.json`` of a group, with OME metadata."""
    attributes = {} if ome is None else {"ome": {"version": OME_VERSION, **ome}}
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def array(layout: Layout, extents: Indices) -> dict[str, Any]:
    """Return the content of the ``zarr.json`` of an image's array.

    Parameters
    ----------
    layout : Layout
    extents : tuple of three int
        The number of frames along t, c and z.
    """
    sharding = {
        "chunk_shape": layout.in_array(layout.chunk, *layout.tile),
        "codecs": PixelCodec(layout).document(),
        "index_codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "crc32c"},
        ],
        "index_location": "end",
    }
    padded_height, padded_width = layout.tiles_y * layout.tile[0], layout.tiles_x * layout.tile[1]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": layout.in_array(extents, layout.height, layout.width),
        "data_type": layout.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": layout.in_array(layout.shard, padded_height, padded_width)},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "dimension_names": list(layout.dimensions),
    }


def multiscales(
    layout: Layout, facts: Facts, name: str, stage: StagePosition | None, levels: Sequence[int] = (1,)
) -> list[dict[str, Any]]:
    """Return the OME metadata ``multiscales`` of an image.

    Parameters
    ----------
    layout : Layout
    facts : Facts
    name : str
        The name of the image.
    stage : StagePosition, optional
        The stage position of the image.
    levels : sequence of int
        The downsampling factor of each resolution level along y and x.
    """
    pixel_y, pixel_x = facts.pixel_size_um or (1.0, 1.0)
    scale = {"t": facts.interval_s or 1.0, "c": 1.0, "z": facts.z_step_um or 1.0, "y": pixel_y, "x": pixel_x}
    known = {
        "t": facts.interval_s is not None,
        "c": False,
        "z": facts.z_step_um is not None,
        "y": facts.pixel_size_um is not None,
        "x": facts.pixel_size_um is not None,
    }
    axes = []
    for dim in layout.dimensions:
        axis = dict(_AXES[dim])
        if not known[dim]:
            axis.pop("unit", None)
        if dim == "c" and layout.roles.get("c") and "channel" not in layout.roles["c"]:
            axis = {"name": layout.roles["c"][0], "type": "other"}
        axes.append(axis)
    datasets = []
    for number, factor in enumerate(levels):
        factors = {"y": factor, "x": factor}
        transformations: list[dict[str, Any]] = [
            {"type": "scale", "scale": [scale[dim] * factors.get(dim, 1) for dim in layout.dimensions]}
        ]
        corner = _translation(layout, scale, stage, factor)
        if any(corner):
            transformations.append({"type": "translation", "translation": corner})
        datasets.append({"path": str(number), "coordinateTransformations": transformations})
    return [{"name": name, "axes": axes, "datasets": datasets}]


def _translation(
    layout: Layout, scale: dict[str, float], stage: StagePosition | None, factor: int
) -> list[float]:
    """Return the location of the first pixel's center, in the units of the axes."""
    at = {"t": 0.0, "c": 0.0, "z": 0.0, "y": 0.0, "x": 0.0}
    if stage is not None:
        at.update(z=stage.z_um or 0.0, y=stage.y_um or 0.0, x=stage.x_um or 0.0)
    for dim in ("y", "x"):  # a downsampled pixel is centered between the pixels that it covers
        at[dim] += (factor - 1) / 2 * scale[dim]
    return [at[dim] for dim in layout.dimensions]


def omero(
    layout: Layout, facts: Facts, names: Sequence[str], windows: Sequence[tuple[float, float] | None]
) -> dict[str, Any]:
    """Return the OME metadata ``omero``, from which viewers read channel names, colors and contrast.

    Parameters
    ----------
    layout : Layout
    facts : Facts
    names : sequence of str
        The name of each channel.
    windows : sequence of (float, float) or None
        For each channel, the pixel values that are shown as black and as white.
    """
    integer = layout.numpy_dtype.kind in "iu"
    bits = layout.numpy_dtype.itemsize * 8
    low = float(-(2 ** (bits - 1))) if layout.numpy_dtype.kind == "i" else 0.0
    high = low + float(2**bits - 1) if integer else 1.0
    channels = []
    for number, name in enumerate(names):
        window = windows[number] if number < len(windows) else None
        start, end = window or (low, high)
        color = facts.colors.get(name) or (
            _COLORS[0] if len(names) == 1 else _COLORS[1:][number % (len(_COLORS) - 1)]
        )
        for sample in range(layout.samples):
            label, shade = (name, color) if layout.samples == 1 else _RGB[sample]
            if layout.samples > 1 and len(names) > 1:
                label = f"{name} {label}"
            channels.append(
                {
                    "label": label,
                    "color": shade,
                    "active": True,
                    "window": {
                        "min": min(low, start),
                        "max": max(high, end),
                        "start": start,
                        "end": end,
                    },
                }
            )
    return {"channels": channels, "rdefs": {"model": "color", "defaultT": 0, "defaultZ": 0}}


def plate(facts: Facts, wells: Sequence[tuple[str, str]], fields: int) -> dict[str, Any]:
    """Return the OME metadata ``plate``.

    Parameters
    ----------
    facts : Facts
    wells : sequence of (row, column)
        The wells that contain images.
    fields : int
        The maximum number of images in a well.
    """
    stated = facts.plate or {}
    rows = list(dict.fromkeys([*stated.get("rows", ()), *(row for row, _ in wells)]))
    columns = list(dict.fromkeys([*stated.get("columns", ()), *(column for _, column in wells)]))
    if not stated.get("rows"):
        rows.sort(key=lambda row: (len(row), row))
        columns.sort(key=lambda column: (len(column), column))
    return {
        "plate": {
            "name": stated.get("name") or "plate",
            "rows": [{"name": row} for row in rows],
            "columns": [{"name": column} for column in columns],
            "wells": [
                {
                    "path": f"{row}/{column}",
                    "rowIndex": rows.index(row),
                    "columnIndex": columns.index(column),
                }
                for row, column in wells
            ],
            "field_count": fields,
            "acquisitions": [{"id": 0}],
        }
    }


def well(fields: Sequence[str]) -> dict[str, Any]:
    """Return the OME metadata ``well`` of a well with images at these paths."""
    return {"well": {"images": [{"path": path, "acquisition": 0} for path in fields]}}
