"""The OME-XML of a series of images, in which napari and Bio-Formats find the list of images.

The bioformats2raw layout stores this XML next to the list of images. The XML follows the schema of June 2016
(https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06/ome.html).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from exengine_ome_zarr.format.documents import Facts, StagePosition
from exengine_ome_zarr.format.layout import Indices, Layout

NAME = "OME/METADATA.ome.xml"
"""The path of the OME-XML file in a dataset."""
_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_TYPES = {"float32": "float", "float64": "double"}
_NO_TYPE = ("uint64", "int64")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class ListedImage:
    """An image: its path, its name, its lengths along t, c and z, and its stage position."""

    path: str
    name: str
    extents: Indices
    stage: StagePosition | None


def encode_series(
    layout: Layout, facts: Facts, images: Iterable[ListedImage], channels: Sequence[Mapping[str, Any]]
) -> bytes:
    """Return the OME-XML of a series of images.

    Parameters
    ----------
    layout : Layout
    facts : Facts
    images : iterable of ListedImage
    channels : sequence of dict
        The channels of the images, as in the OME metadata ``omero``. An image may have fewer channels.
    """
    root = ElementTree.Element("OME", xmlns=_NAMESPACE, Creator="exengine-ome-zarr")
    for image in images:
        element = _add(root, "Image", ID=f"Image:{image.path}", Name=image.name)
        if image.stage is not None:
            _add(element, "StageLabel", Name=image.name, **_place(image.stage))
        if layout.dtype not in _NO_TYPE:  # the schema has no name for such dtypes
            _add_pixels(element, layout, facts, image, channels)
    return bytes(ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True))


def _add_pixels(
    element: ElementTree.Element,
    layout: Layout,
    facts: Facts,
    image: ListedImage,
    channels: Sequence[Mapping[str, Any]],
) -> None:
    times, colors, planes = image.extents
    height, width = facts.pixel_size_um or (None, None)
    pixels = _add(
        element,
        "Pixels",
        ID=f"Pixels:{image.path}",
        DimensionOrder="XYZCT",
        Type=_TYPES.get(layout.dtype, layout.dtype),
        BigEndian="false",
        SizeX=str(layout.width),
        SizeY=str(layout.height),
        SizeZ=str(planes),
        SizeC=str(colors * layout.samples),
        SizeT=str(times),
        **_measure("PhysicalSizeX", width, "µm"),
        **_measure("PhysicalSizeY", height, "µm"),
        **_measure("PhysicalSizeZ", facts.z_step_um, "µm"),
        **_measure("TimeIncrement", facts.interval_s, "s"),
    )
    for number, channel in enumerate(channels[: colors * layout.samples]):
        color = int.from_bytes(bytes.fromhex(f"{channel['color']}FF"), "big", signed=True)
        identity = f"Channel:{image.path}:{number}"
        _add(pixels, "Channel", ID=identity, Name=channel["label"], SamplesPerPixel="1", Color=str(color))
    _add(pixels, "MetadataOnly")


def _place(stage: StagePosition) -> dict[str, str]:
    found: dict[str, str] = {}
    for axis, value in (("X", stage.x_um), ("Y", stage.y_um), ("Z", stage.z_um)):
        found.update(_measure(axis, value, "µm"))
    return found


def _measure(name: str, value: float | None, unit: str) -> dict[str, str]:
    return {} if value is None else {name: repr(float(value)), f"{name}Unit": unit}


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    """Add an element. Characters that XML cannot contain are replaced."""
    clean = {name: _FORBIDDEN.sub("\ufffd", value) for name, value in attributes.items()}
    return ElementTree.SubElement(parent, tag, clean)
