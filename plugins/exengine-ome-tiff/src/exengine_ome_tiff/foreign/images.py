"""The Images of an OME-TIFF file, from its OME-XML: sizes, channels, and the page of each plane.

The XML is untrusted. A plane is present only if a TiffData element maps a page to it, so that missing planes
are not mistaken for black ones.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.etree import ElementTree

from exengine.errors import DatasetDamagedError

Indices = tuple[int, int, int]
"""The indices of a plane on T, C and Z."""
_MOST_PLANES = 10_000_000
_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4, "in": 25400.0}
_SECONDS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}
_ROOT = re.compile(r"<(\w+:)?OME\b")


class PlanePlace(NamedTuple):
    """The location of a plane: another file in the folder, or None for this file, and the page number."""

    file: str | None
    page: int


@dataclass
class OmeImage:
    """An ``Image`` element of OME-XML, and the pages with its planes.

    Attributes
    ----------
    name : str
    sizes : tuple of int
        The lengths of T, C and Z; a color image counts as one channel.
    channels : list of (str, str or None)
        The name, which may be empty, and the color ``RRGGBB`` of each channel.
    sizes_um : dict of str to float
        Maps ``X``, ``Y`` and ``Z`` to the physical size of a pixel in micrometers, if known.
    interval_s : float or None
    planes : dict
        Maps the indices of each plane that has a page to the location of the page.
    metadata : dict
        Maps the indices of a plane to its metadata, with the keys that ExEngine uses.
    """

    name: str
    sizes: Indices
    channels: list[tuple[str, str | None]] = field(default_factory=list)
    sizes_um: dict[str, float] = field(default_factory=dict)
    interval_s: float | None = None
    planes: dict[Indices, PlanePlace] = field(default_factory=dict)
    metadata: dict[Indices, dict[str, Any]] = field(default_factory=dict)


def is_ome(description: str) -> bool:
    """Return whether the text that describes a file is OME-XML."""
    begin = description[:10_000].lstrip()
    return begin.startswith("<") and _ROOT.search(begin) is not None


def images_of(xml: str, own_name: str, pages: int) -> list[OmeImage]:
    """Return the Images of a file; none if the XML only refers to another file.

    Parameters
    ----------
    xml : str
    own_name : str
        The name of the file, without its folder.
    pages : int
        The number of pages of the file.

    Raises
    ------
    DatasetDamagedError
        If the XML is not valid.
    """
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise DatasetDamagedError("the OME-XML defines entities, which are not allowed")
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314 - it has no entities
        own_id = root.get("UUID")
        images = [element for element in root if _local(element) == "Image"]
        return [_image(element, own_name, own_id, pages) for element in images]
    except (ElementTree.ParseError, KeyError, ValueError, OverflowError, RecursionError) as error:
        raise DatasetDamagedError(f"the OME-XML cannot be read: {type(error).__name__}: {error}") from None


def _local(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _image(element: ElementTree.Element, own_name: str, own_id: str | None, pages: int) -> OmeImage:
    pixels = next((child for child in element if _local(child) == "Pixels"), None)
    if pixels is None:
        raise ValueError("an Image has no Pixels")
    order = pixels.attrib["DimensionOrder"]
    if sorted(order) != ["C", "T", "X", "Y", "Z"]:
        raise ValueError(f"the DimensionOrder is {order!r:.40}")
    channels = [child for child in pixels if _local(child) == "Channel"]
    samples = {int(channel.get("SamplesPerPixel", 1)) for channel in channels} or {1}
    if len(samples) > 1 or min(samples) < 1:
        raise ValueError("SamplesPerPixel must be positive and the same for all channels")
    t, c, z = (int(pixels.attrib[f"Size{dimension}"]) for dimension in "TCZ")
    sizes = (t, c // samples.pop() or 1, z)
    if min(sizes) < 1 or math.prod(sizes) > _MOST_PLANES:
        raise ValueError(f"the lengths of T, C and Z must be positive and not too large, got {sizes}")
    found = OmeImage(element.get("Name") or "", sizes)
    found.channels = [(child.get("Name") or "", _color(child.get("Color"))) for child in channels[: sizes[1]]]
    for axis in "XYZ":
        size = _measure(pixels, f"PhysicalSize{axis}", _UM, "µm")
        if size is not None and size > 0:
            found.sizes_um[axis] = size
    found.interval_s = _measure(pixels, "TimeIncrement", _SECONDS, "s")
    data = [child for child in pixels if _local(child) == "TiffData"]
    for child in data:
        for place, indices in _planes(child, order, sizes, own_name, own_id, pages):
            found.planes[indices] = place
    for child in pixels:
        if _local(child) == "Plane":
            the_t, the_c, the_z = (int(child.attrib[f"The{dimension}"]) for dimension in "TCZ")
            found.metadata[the_t, the_c, the_z] = _facts(child)
    return found


def _planes(
    data: ElementTree.Element, order: str, sizes: Indices, own_name: str, own_id: str | None, pages: int
) -> Iterator[tuple[PlanePlace, Indices]]:
    """Yield the location and the indices of each plane that the TiffData element ``data`` maps to a page."""
    file = None
    for uuid in data:
        if _local(uuid) == "UUID":
            name = uuid.get("FileName")
            is_own = name in (None, own_name) or (own_id is not None and uuid.text == own_id)
            file = None if is_own else name
    if file is not None and os.path.basename(file) != file:
        raise ValueError(f"a TiffData element refers to a file in another folder: {file!r:.80}")
    length = dict(zip("TCZ", sizes, strict=True))
    fastest_first = [dimension for dimension in order if dimension in length]
    first = {dimension: int(data.get(f"First{dimension}", 0)) for dimension in fastest_first}
    if any(not 0 <= first[dimension] < length[dimension] for dimension in length):
        raise ValueError(
            f"a TiffData element begins at {first}, which is outside the image's dimensions {length}"
        )
    page = int(data.get("IFD", 0))
    count = int(data.get("PlaneCount", data.get("NumPlanes", 1 if "IFD" in data.attrib else pages)))
    at, step = 0, 1
    for dimension in fastest_first:
        at += first[dimension] * step
        step *= length[dimension]
    if page < 0 or not 0 <= count <= _MOST_PLANES:
        raise ValueError(f"a TiffData element has an impossible page ({page}) or number of planes ({count})")
    for number in range(min(count, step - at)):
        rest, where = at + number, {}
        for dimension in fastest_first:
            rest, where[dimension] = divmod(rest, length[dimension])
        yield PlanePlace(file, page + number), (where["T"], where["C"], where["Z"])


def _facts(plane: ElementTree.Element) -> dict[str, Any]:
    elapsed, exposure = (_measure(plane, name, _SECONDS, "s") for name in ("DeltaT", "ExposureTime"))
    stage = {axis.lower(): _measure(plane, f"Position{axis}", _UM, "") for axis in "XYZ"}
    position_um = {axis: value for axis, value in stage.items() if value is not None}
    facts = {
        "elapsed_ms": None if elapsed is None else elapsed * 1000,
        "exposure_ms": None if exposure is None else exposure * 1000,
        "position_um": position_um or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _measure(element: ElementTree.Element, name: str, units: dict[str, float], unit: str) -> float | None:
    """Return a quantity in micrometers or seconds; None if it is missing or its unit is unknown."""
    text, factor = element.get(name), units.get(element.get(f"{name}Unit", unit))
    value = float(text) if text is not None else math.nan
    return None if factor is None or not math.isfinite(value) else value * factor


def _color(text: str | None) -> str | None:
    """Return ``RRGGBB`` from the signed 32-bit integer in which OME stores a color as RGBA."""
    return None if text is None else f"{int(text) & 0xFFFFFFFF:08X}"[:6]
