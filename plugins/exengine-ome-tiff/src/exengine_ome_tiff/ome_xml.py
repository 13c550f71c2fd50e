"""Encodes the OME-XML of a file, which tells other programs about Images, pixel sizes and channels.

The XML follows the schema of June 2016
(https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06/ome.html). It lists each page, so
that missing frames are not mistaken for black ones.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from exengine.base_classes import FrameToBuild, JsonValue, PlannedPosition, SourcePlan
from exengine_ome_tiff.capabilities import PIXEL_TYPES
from exengine_ome_tiff.layout import DIMENSIONS, POSITION, Image

_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
AXES_NAMESPACE = "exengine.axes"
"""The namespace of the annotations that contain the axes and positions of an Image."""
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPLACED = "\ufffd"
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_EXPOSURE_KEYS = ("exposure_ms", "Exposure-ms")
_TIME_KEYS = ("elapsed_ms", "runner_time_ms", "ElapsedTime-ms")
_STAGE_KEYS = ("position_um", "position", "stage")

Attributes = Mapping[str, object]


def encode(
    images: Sequence[Image], frames: Sequence[FrameToBuild], plan: SourcePlan, manifest: Mapping[str, Any]
) -> bytes:
    """Return the OME-XML for Images whose frame n is page n.

    Parameters
    ----------
    images : sequence of Image
    frames : sequence of FrameToBuild
    plan : SourcePlan
    manifest : mapping
    """
    root = {"xmlns": _NAMESPACE, "Creator": "exengine-ome-tiff"}
    if re.fullmatch("[0-9a-f]{32}", str(manifest.get("id"))):
        text = manifest["id"]
        groups = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
        root["UUID"] = f"urn:uuid:{'-'.join(groups)}"
    parts = ['<?xml version="1.0" encoding="UTF-8"?>', _tag("OME", root, end=">")]
    date = str(manifest.get("created"))
    for number, image in enumerate(images):
        parts.append(_tag("Image", {"ID": f"Image:{number}", "Name": image.name}, end=">"))
        if _DATE.fullmatch(date):
            parts.append(f"<AcquisitionDate>{date}</AcquisitionDate>")
        parts += _stage_label(image, plan.stage_positions)
        parts += _pixels(number, image, frames, plan)
        parts += [_tag("AnnotationRef", {"ID": f"Annotation:{number}"}), "</Image>"]
    if images:
        parts.append("<StructuredAnnotations>")
        parts += [part for number, image in enumerate(images) for part in _annotation(number, image)]
        parts.append("</StructuredAnnotations>")
    parts.append("</OME>")
    return "".join(parts).encode()


def _stage_label(image: Image, places: Sequence[PlannedPosition]) -> Iterator[str]:
    for place in places:
        if place.name == image.fixed.get(POSITION):
            where = {"X": place.x_um, "Y": place.y_um, "Z": place.z_um}
            yield _tag("StageLabel", {"Name": image.name, **_measures("", where, "µm")})
            return


def _pixels(number: int, image: Image, frames: Sequence[FrameToBuild], plan: SourcePlan) -> Iterator[str]:
    times, channels, planes = image.lengths
    samples = image.shape[2] if len(image.shape) == 3 else 1
    height, width = plan.pixel_size_um or (None, None)
    depth = plan.z_step_um if image.axes.get("Z") else None
    interval = plan.interval_s if image.axes.get("T") == "time" else None
    yield _tag(
        "Pixels",
        {
            "ID": f"Pixels:{number}", "DimensionOrder": "XYZCT", "Type": PIXEL_TYPES[image.dtype],
            "BigEndian": "false", "Interleaved": "true" if samples > 1 else "false",
            "SizeX": image.shape[1], "SizeY": image.shape[0], "SizeZ": planes, "SizeC": channels * samples,
            "SizeT": times, **_measures("PhysicalSize", {"X": width, "Y": height, "Z": depth}, "µm"),
            **_measures("Time", {"Increment": interval}, "s"),
        },
        end=">",
    )  # fmt: skip
    colors = {channel.name: channel.color for channel in plan.channels}
    names = image.positions.get("C", [])
    for place in range(channels):
        channel: dict[str, object] = {"ID": f"Channel:{number}:{place}", "SamplesPerPixel": samples}
        if names:
            channel["Name"] = names[place]
            channel["Color"] = _color(colors.get(str(names[place])))
        yield _tag("Channel", channel)
    for page, (t, c, z) in image.frames:
        where = {"FirstZ": z, "FirstT": t, "FirstC": c, "PlaneCount": 1}
        yield _tag("TiffData", {"IFD": page, **where})
    for page, (t, c, z) in image.frames:
        yield _tag("Plane", {"TheZ": z, "TheT": t, "TheC": c, **_facts(frames[page].metadata())})
    yield "</Pixels>"


def _facts(metadata: JsonValue) -> dict[str, object]:
    """Return the attributes of a Plane, from metadata with the keys of ExEngine and Micro-Manager."""
    if not isinstance(metadata, dict):
        return {}
    elapsed_ms, exposure_ms = (
        _first(metadata.get(key) for key in keys) for keys in (_TIME_KEYS, _EXPOSURE_KEYS)
    )
    stage: dict[str, JsonValue] = next(
        (each for key in _STAGE_KEYS if isinstance(each := metadata.get(key), dict)), {}
    )
    places = {
        axis: _first(
            (stage.get(low := axis.lower()), stage.get(f"{low}_um"), metadata.get(f"{axis}PositionUm"))
        )
        for axis in "XYZ"
    }
    return {
        **_measures("Delta", {"T": None if elapsed_ms is None else elapsed_ms / 1000}, "s"),
        **_measures("Exposure", {"Time": None if exposure_ms is None else exposure_ms / 1000}, "s"),
        **_measures("Position", places, "µm"),
    }


def _first(values: Iterable[JsonValue]) -> float | None:
    """Return the first value that is a finite number, or None."""
    return next((number for value in values if (number := _number(value)) is not None), None)


def _number(value: JsonValue) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _annotation(number: int, image: Image) -> Iterator[str]:
    """Yield the annotation that contains the axes and positions of an Image, as JSON."""
    axes: dict[str, Any] = {"fixed": image.fixed}
    for dimension in DIMENSIONS:
        if dimension in image.axes:
            positions = image.positions[dimension]
            axes[dimension] = {"axis": image.axes[dimension], "positions": positions}
    attributes = {"ID": f"Annotation:{number}", "Namespace": AXES_NAMESPACE}
    text = escape(json.dumps(axes))
    yield f"{_tag('CommentAnnotation', attributes, end='>')}<Value>{text}</Value></CommentAnnotation>"


def _color(color: str | None) -> int | None:
    """Return the color ``RRGGBB`` as OME stores it: RGBA in a signed 32-bit integer."""
    if color is None or not re.fullmatch("[0-9A-Fa-f]{6}", color):
        return None
    return int.from_bytes(bytes.fromhex(f"{color}FF"), "big", signed=True)


def _measures(begin: str, values: Mapping[str, float | None], unit: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in values.items():
        if value is not None:
            found |= {f"{begin}{name}": float(value), f"{begin}{name}Unit": unit}
    return found


def _tag(name: str, attributes: Attributes, end: str = "/>") -> str:
    """Return a tag without the attributes that are None. Characters that XML cannot contain are replaced."""
    known = {key: str(value) for key, value in attributes.items() if value is not None}
    pairs = (f" {key}={quoteattr(_FORBIDDEN.sub(_REPLACED, value))}" for key, value in known.items())
    return f"<{name}{''.join(pairs)}{end}"
