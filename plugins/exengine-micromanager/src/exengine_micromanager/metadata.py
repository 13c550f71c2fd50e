"""Converts Micro-Manager's metadata, both for a frame and for the whole microscope, to plain JSON.

This module defines one documented representation. Field names include their units, and values are limited to
``None``, ``bool``, ``int``, finite ``float``, ``str``, ``list`` and ``dict``. Storing the metadata is the
responsibility of other modules.
"""

import datetime
import enum
import math
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import useq
    from pymmcore_plus import CMMCorePlus

_RENAMED = {"camera_device": "camera"}
_CONVERTED = {"position", "property_values", "mda_event", "format", "version"}


def plain(value: Any) -> Any:
    """Convert a value to types that JSON can represent. NaN and infinities become None.

    Parameters
    ----------
    value : object
        A mapping, sequence, set, numpy scalar or array, enum, date, time or pydantic model, nested to any
        depth. A value of any other type is converted with ``str``.

    Returns
    -------
    None, bool, int, float, str, list or dict
        The converted value. All containers are new, at every level.

    Examples
    --------
    >>> import numpy as np
    >>> plain({"gain": np.float32(0.5), "roi": (0, 0), "temperature": float("nan")})
    {'gain': 0.5, 'roi': [0, 0], 'temperature': None}
    """
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return readable(str.__str__(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, AbstractSet)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(exclude_unset=True))
    return str(value)


def readable(text: str) -> str:
    """Return a device's text, with a replacement character for each byte that is not valid UTF-8.

    Micro-Manager passes on device text in its original encoding. For example, a Latin-1 ``µ`` is a byte that
    is not valid UTF-8. Python decodes such a byte to an unpaired surrogate, which JSON cannot represent.
    """
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _replaced(value: Any, path: str = "") -> Iterator[str]:
    """For JSON-like data, yield the path of each text that contains a replacement character."""
    if isinstance(value, dict):
        for key, item in value.items():
            place = f"{path}.{key}" if path else key
            if "\ufffd" in key:
                yield place
            yield from _replaced(item, place)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _replaced(item, f"{path}[{number}]")
    elif isinstance(value, str) and "\ufffd" in value:
        yield path


def event_json(event: "useq.MDAEvent") -> dict[str, Any]:
    """Return the settings that were requested for one frame, with the field names of ``useq.MDAEvent``.

    Parameters
    ----------
    event : useq.MDAEvent

    Returns
    -------
    dict
        The fields that have a value, excluding the sequence to which the event belongs.
    """
    fields: dict[str, Any] = plain(
        event.model_dump(exclude={"sequence"}, exclude_unset=True, exclude_none=True)
    )
    if "metadata" in fields:
        fields["metadata"].pop("runner_t0", None)  # a reading of the runner's own clock
        if not fields["metadata"]:
            del fields["metadata"]
    return fields


def frame_json(meta: Mapping[str, Any], *, received_at: "datetime.datetime | None" = None) -> dict[str, Any]:
    """Return the metadata for one frame.

    Parameters
    ----------
    meta : mapping
        The frame's ``FrameMetaV1`` from pymmcore-plus.
    received_at : datetime.datetime, optional
        The time at which the source received the frame, with a time zone.

    Returns
    -------
    dict
        JSON: ``camera``, ``exposure_ms``, ``pixel_size_um``, ``runner_time_ms``, ``received_at``,
        ``hardware_triggered``, ``position``, ``properties``, ``event``, and the other
        fields of ``meta``.

    Examples
    --------
    >>> frame_json({"exposure_ms": 10.0, "property_values": [{"dev": "Cam", "prop": "Gain", "val": "2"}]})
    {'exposure_ms': 10.0, 'hardware_triggered': False, 'properties': {'Cam': {'Gain': '2'}}}
    """
    frame = {_RENAMED.get(key, key): plain(item) for key, item in meta.items() if key not in _CONVERTED}
    if received_at is not None:
        frame["received_at"] = received_at.isoformat()
    frame.setdefault("hardware_triggered", False)
    if "position" in meta:
        frame["position"] = _position_json(meta["position"])
    properties: dict[str, dict[str, Any]] = {}
    for setting in meta.get("property_values", ()):
        properties.setdefault(setting["dev"], {})[setting["prop"]] = plain(setting["val"])
    frame["properties"] = properties
    if meta.get("mda_event") is not None:
        frame["event"] = event_json(meta["mda_event"])
    return frame


def _position_json(position: Mapping[str, Any]) -> dict[str, Any]:
    axes = {f"{axis}_um": plain(position[axis]) for axis in ("x", "y", "z") if axis in position}
    stages = {stage["device_label"]: plain(stage["position"]) for stage in position.get("all_stages", ())}
    return {**axes, "stages_um": stages} if stages else axes


def summary_json(core: "CMMCorePlus", sequence: "useq.MDASequence | None", *, config: str) -> dict[str, Any]:
    """Return the metadata for a whole acquisition: the state of the microscope, and the planned sequence.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
        A core with its config loaded.
    sequence : useq.MDASequence or None
        None if the events are not known in advance.
    config : str
        The name by which the user refers to the config.

    Returns
    -------
    dict
        The metadata as JSON.
    """
    from pymmcore_plus.metadata import functions

    system: Mapping[str, Any] = functions.system_info(core)
    image: Mapping[str, Any] = functions.image_info(core)
    summary = {
        "source": "micromanager",
        "prepared_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "config": config,
        "config_file": system["system_configuration_file"],
        "camera": image["camera_label"],
        "pixel_format": image["pixel_format"],
        "bit_depth": core.getImageBitDepth(),
        "roi": image.get("roi", (0, 0, image["width"], image["height"])),
        "exposure_ms": core.getExposure(),
        "pixel_size_um": image["pixel_size_um"],
        "pixel_size_config": image["pixel_size_config_name"],
        "pixel_size_affine": image.get("pixel_size_affine"),
        "position": _position_json(functions.position(core)),
        "channel_group": core.getChannelGroup(),
        "devices": [_device_json(core, label) for label in core.getLoadedDevices()],
        "versions": {
            "mmcore": system["mmcore_version"],
            "device_api": system["device_api_version"],
            "pymmcore": system["pymmcore_version"],
            "pymmcore_plus": system["pymmcore_plus_version"],
        },
        "adapter_paths": system["device_adapter_search_paths"],
        "sequence": sequence,
    }
    if "num_camera_adapter_channels" in image:
        summary["cameras"] = image["num_camera_adapter_channels"]
    converted: dict[str, Any] = plain(summary)
    replaced = list(_replaced(converted))
    if replaced:
        converted["replaced_text"] = replaced
    return converted


def _device_json(core: "CMMCorePlus", label: str) -> dict[str, Any]:
    from pymmcore_plus.metadata import functions

    try:
        device: Mapping[str, Any] = functions.device_info(core, label=label, include_property_details=False)
    except (TypeError, RuntimeError) as error:  # a label that is not UTF-8 cannot be queried
        return {"label": label, "problem": str(error)}
    return {
        "label": device["label"],
        "adapter": device["library"],
        "name": device["name"],
        "type": device["type"].removesuffix("Device"),
        "description": device["description"],
        "properties": {item["name"]: item["value"] for item in device["properties"]},
    }
