"""The metadata of OME-Zarr 0.4, 0.5 and 0.6: groups, images, plates, wells and series.

This module parses untrusted documents into a few checked values. It does not read pixels;
:mod:`exengine_ome_zarr.foreign.arrays` parses the metadata of arrays. Version 0.4 is stored in Zarr v2
(``.zattrs``), and later versions in Zarr v3 (``zarr.json``). The specifications are at https://ngff.openmicroscopy.org.
"""

from dataclasses import dataclass
from typing import Any

from exengine.base_classes import DataCoordinates, JsonValue, parse_foreign_json, parse_json
from exengine.errors import CoordinatesError, DatasetDamagedError, UnsupportedOperationError
from exengine_ome_zarr.foreign.files import Files, is_key, joined

MAX_DOCUMENT_BYTES = 64 * 2**20
"""The maximum size of a metadata file. Some writers store the metadata of all frames in one such file."""
MAX_IMAGES = 20_000
"""The maximum number of images in a plate or a series."""
MAX_LEVELS = 64
MAX_AXES = 8

_AXES = {"t": "time", "c": "channel", "z": "z"}
_IMPLIED_AXES = ("t", "c", "z", "y", "x")  # the axes of datasets before version 0.3
_UM = {
    "angstrom": 1e-4,
    "picometer": 1e-6,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "micron": 1.0,
    "um": 1.0,
    "\u00b5m": 1.0,
    "\u03bcm": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "decimeter": 1e5,
    "meter": 1e6,
}
_SECONDS = {
    "nanosecond": 1e-9,
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "ms": 1e-3,
    "second": 1.0,
    "s": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}


@dataclass(frozen=True)
class Group:
    """A Zarr group.

    Attributes
    ----------
    key : str
        Its path inside the dataset; empty for the root.
    zarr_format : int
        2 or 3.
    ome : dict
        The OME metadata.
    attributes : dict
        All attributes, including those that are specific to a writer.
    """

    key: str
    zarr_format: int
    ome: dict[str, Any]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Image:
    """The first ``multiscales`` entry of an image.

    Attributes
    ----------
    key : str
        The path of the image's group.
    zarr_format : int
        2 or 3.
    name : str
        The name of the image; empty if it has none.
    axes : tuple of str
        The axes of the arrays: ``time``, ``channel``, ``z``, or names that the writer chose. The axes of the
        frames are ``y`` and ``x``.
    levels : tuple of str
        The paths of the arrays, beginning with full resolution.
    pixel_size_um : (float, float) or None
        The size of a pixel, ``(y, x)``.
    z_step_um, interval_s : float or None
        The distance between planes, in micrometers, and the time between time points, in seconds.
    labels : tuple of str
        The names of the channels; empty if any name is missing or repeated.
    colors : tuple of str or None
        The colors of the channels, ``RRGGBB``.
    attributes : dict
        All attributes of the group.
    """

    key: str
    zarr_format: int
    name: str
    axes: tuple[str, ...]
    levels: tuple[str, ...]
    pixel_size_um: tuple[float, float] | None
    z_step_um: float | None
    interval_s: float | None
    labels: tuple[str, ...]
    colors: tuple[str | None, ...]
    attributes: dict[str, Any]


def read_json(files: Files, key: str, *, foreign: bool = True) -> JsonValue | None:
    """Return the value of a JSON file, or None if the file does not exist.

    Parameters
    ----------
    files : Files
    key : str
    foreign : bool
        Whether to replace values that are not JSON, such as NaN.

    Raises
    ------
    DatasetDamagedError
    """
    data = files.read(key, MAX_DOCUMENT_BYTES)
    if data is None:
        return None
    try:
        return parse_foreign_json(data) if foreign else parse_json(data)
    except (ValueError, RecursionError) as error:
        raise DatasetDamagedError(f"{files.name(key)} cannot be parsed: {error}") from None


def read_group(files: Files, key: str) -> Group | None:
    """Return a group, or None if the path does not contain a group.

    Raises
    ------
    DatasetDamagedError
        If a metadata file cannot be parsed.
    """
    found = read_json(files, joined(key, "zarr.json"))
    if found is not None:
        document = _as_dict(found)
        if document.get("zarr_format") != 3 or document.get("node_type") != "group":
            return None
        attributes = _as_dict(document.get("attributes"))
        return Group(key, 3, _as_dict(attributes.get("ome")), attributes)
    attributes = _as_dict(read_json(files, joined(key, ".zattrs")))
    if not attributes or _as_dict(read_json(files, joined(key, ".zgroup"))).get("zarr_format") != 2:
        return None
    return Group(key, 2, attributes, attributes)


def kind_of_group(group: Group) -> str:
    """Return ``image``, ``plate``, ``well`` or ``series``, or an empty string for any other group."""
    ome = group.ome
    if isinstance(ome.get("plate"), dict):  # a plate takes precedence over the bioformats2raw layout
        return "plate"
    if isinstance(ome.get("multiscales"), list) and ome["multiscales"]:
        return "image"
    if isinstance(ome.get("well"), dict):
        return "well"
    if "bioformats2raw.layout" in ome or isinstance(ome.get("series"), list):
        return "series"
    return ""


def image_keys(files: Files, group: Group) -> list[str]:
    """Return the paths of the images in a plate, a well or a series.

    Raises
    ------
    DatasetDamagedError
    """
    kind = kind_of_group(group)
    if kind == "plate":
        keys: list[str] = []
        for well in _keys_in(group, group.ome["plate"].get("wells"), "wells", files):
            found = read_group(files, well)
            if found is not None and kind_of_group(found) == "well":
                keys += image_keys(files, found)
            if len(keys) > MAX_IMAGES:
                break
    elif kind == "well":
        keys = _keys_in(group, group.ome["well"].get("images"), "images of the well", files)
    else:
        keys = _series_keys(files, group)
    if len(keys) > MAX_IMAGES:
        raise DatasetDamagedError(
            f"{files.name(group.key)} lists {len(keys)} images; the limit is {MAX_IMAGES}"
        )
    return list(dict.fromkeys(keys))


def _series_keys(files: Files, group: Group) -> list[str]:
    inside = read_group(files, joined(group.key, "OME"))
    names = group.ome.get("series")
    if inside is not None and isinstance(inside.ome.get("series"), list):
        names = inside.ome["series"]
    if isinstance(names, list):
        return _keys_in(group, names, "series", files)
    keys = []
    for number in range(MAX_IMAGES):
        key = joined(group.key, str(number))
        if read_group(files, key) is None:
            break
        keys.append(key)
    return keys


def _keys_in(group: Group, items: Any, what: str, files: Files) -> list[str]:
    """Return the keys from a list of paths, or from a list of objects that have a path."""
    if not isinstance(items, list):
        raise DatasetDamagedError(f"{files.name(group.key)}: the metadata do not list the {what}")
    if len(items) > MAX_IMAGES:
        raise DatasetDamagedError(
            f"{files.name(group.key)} lists {len(items)} {what}; the limit is {MAX_IMAGES}"
        )
    keys = []
    for item in items:
        path: object = item.get("path") if isinstance(item, dict) else item
        if not is_key(path):
            raise DatasetDamagedError(f"{files.name(group.key)}: {path!r:.80} is not a path in the dataset")
        keys.append(joined(group.key, path))
    return keys


# -- images --------------------------------------------------------------------------------------


def read_image(files: Files, group: Group) -> Image:
    """Return the first ``multiscales`` entry of an image's group.

    Raises
    ------
    DatasetDamagedError
        If the image cannot be read because its metadata violate the specification.
    UnsupportedOperationError
        If the image has too many axes.
    """
    where = files.name(group.key)
    multiscales = _as_dict(group.ome["multiscales"][0])
    datasets = multiscales.get("datasets")
    if not isinstance(datasets, list) or not 0 < len(datasets) <= MAX_LEVELS:
        raise DatasetDamagedError(f"{where}: the multiscales metadata must list 1 to {MAX_LEVELS} datasets")
    paths = [_as_dict(dataset).get("path") for dataset in datasets]
    for path in paths:
        if not is_key(path):
            raise DatasetDamagedError(f"{where}: {path!r:.80} is not a path in the dataset")
    described = _axes(multiscales, where)
    scale = _scale(multiscales, _as_dict(datasets[0]), len(described))
    size = {
        axis: _in_unit(step, unit, _SECONDS if axis == "time" else _UM)
        for (axis, unit), step in zip(described, scale, strict=True)
    }
    y, x = size.get("y"), size.get("x")
    name = multiscales.get("name")
    labels, colors = _channels(group.ome)
    return Image(
        key=group.key,
        zarr_format=group.zarr_format,
        name=name if isinstance(name, str) else "",
        axes=tuple(axis for axis, _ in described),
        levels=tuple(joined(group.key, str(path)) for path in paths),
        pixel_size_um=None if y is None or x is None else (y, x),
        z_step_um=size.get("z"),
        interval_s=size.get("time"),
        labels=labels,
        colors=colors,
        attributes=group.attributes,
    )


def _axes(multiscales: dict[str, Any], where: str) -> list[tuple[str, Any]]:
    """Return the name and the unit of each axis. The axes of the frames are named y and x."""
    listed = multiscales.get("axes")
    systems = multiscales.get("coordinateSystems")  # introduced in version 0.6
    if isinstance(systems, list) and systems:
        system = _intrinsic(multiscales, systems)
        listed = system.get("axes")
    if listed is None:
        listed = list(_IMPLIED_AXES)
    if not isinstance(listed, list) or len(listed) < 2:
        raise DatasetDamagedError(f"{where}: the multiscales metadata describe fewer than two axes")
    if len(listed) > MAX_AXES:
        raise UnsupportedOperationError(f"{where} has {len(listed)} axes; the limit is {MAX_AXES}")
    items = [item if isinstance(item, dict) else {"name": item} for item in listed]
    names = [name for item in items if isinstance(name := item.get("name"), str) and name]
    if len(names) < len(items) or len(set(names)) < len(names):
        raise DatasetDamagedError(f"{where}: the axes {listed!r:.200} do not have distinct names")
    inner = {names.index("y"): "y", names.index("x"): "x"} if {"y", "x"} <= set(names) else {}
    inner = inner or {len(names) - 2: "y", len(names) - 1: "x"}
    axes = [inner.get(place) or _AXES.get(name.lower(), name) for place, name in enumerate(names)]
    try:
        DataCoordinates(dict.fromkeys(axes, 0))
    except CoordinatesError as error:
        raise UnsupportedOperationError(f"{where}: {error}") from None
    if len(set(axes)) != len(axes):
        raise DatasetDamagedError(f"{where}: two of the axes {names!r:.200} have the same meaning")
    return [(axis, item.get("unit")) for axis, item in zip(axes, items, strict=True)]


def _intrinsic(multiscales: dict[str, Any], systems: list[Any]) -> dict[str, Any]:
    """Return the coordinate system to which the arrays are transformed."""
    first = _as_dict(_first(multiscales.get("datasets")))
    output = _as_dict(_first(first.get("coordinateTransformations"))).get("output")
    name = output.get("name") if isinstance(output, dict) else output
    matching = [system for system in systems if isinstance(system, dict) and system.get("name") == name]
    return _as_dict((matching or systems)[0])


def _scale(multiscales: dict[str, Any], dataset: dict[str, Any], count: int) -> list[float | None]:
    """Return the size of a step along each axis, or None if the transformation is not a plain scale."""
    steps: list[float | None] = [None] * count
    for owner in (dataset, multiscales if "coordinateSystems" not in multiscales else {}):
        listed = owner.get("coordinateTransformations")
        items = [_as_dict(item) for item in listed] if isinstance(listed, list) else []
        if len(items) == 1 and items[0].get("type") == "sequence":
            inner = items[0].get("transformations")
            items = [_as_dict(item) for item in inner] if isinstance(inner, list) else []
        if not all(item.get("type") in ("scale", "translation", "identity") for item in items):
            return [None] * count
        for item in items:
            scale = item.get("scale")
            if item["type"] != "scale":
                continue
            if not isinstance(scale, list) or len(scale) != count or not all(map(_is_size, scale)):
                return [None] * count
            steps = [(1.0 if old is None else old) * new for old, new in zip(steps, scale, strict=True)]
    return steps


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e100


def _in_unit(step: float | None, unit: Any, table: dict[str, float]) -> float | None:
    """Convert a step with the factor for its unit in ``table``; None if the step or the unit is unknown."""
    factor = table.get(unit) if isinstance(unit, str) else None
    if step is None or factor is None:
        return None
    return float(f"{step * factor:.12g}")


def _channels(ome: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Return the names of the channels, if they are distinct, and their colors."""
    listed = _as_dict(ome.get("omero")).get("channels")
    channels = [_as_dict(channel) for channel in listed] if isinstance(listed, list) else []
    names = [channel.get("label") for channel in channels]
    colors = [channel.get("color") for channel in channels]
    distinct = all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)
    return (
        tuple(map(str, names)) if distinct else (),
        tuple(color if isinstance(color, str) else None for color in colors),
    )


def _first(items: Any) -> Any:
    return items[0] if isinstance(items, list) and items else None


def _as_dict(value: Any) -> dict[str, Any]:
    """Return a JSON object, or an empty dict for any other value."""
    return value if isinstance(value, dict) else {}
