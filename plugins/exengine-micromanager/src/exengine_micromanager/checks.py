"""Checks the config, exposure times, properties, devices and channels before anything moves.

Every error message states the request, the alternatives and a way to fix the problem.
"""

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exengine.base_classes import did_you_mean, sequence_error
from exengine.errors import SourceError

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus

PropertyValue = str | int | float | bool


# -- the config file ------------------------------------------------------------------------------


def load_config(core: "CMMCorePlus", path: Path) -> None:
    """Load a Micro-Manager config file, and check that it has a camera.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    path : pathlib.Path

    Raises
    ------
    SourceError
        If the file does not exist or is not a config file, or if a device does not start.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise SourceError(
            f"config {str(path)!r} {what}; give the path of a Micro-Manager .cfg file, "
            "or 'demo' for the demo hardware"
        )
    try:
        core.loadSystemConfiguration(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise SourceError(_load_message(core, path, str(error).strip())) from error
    if len(core.getLoadedDevices()) < 2:  # the core itself counts as a device
        raise SourceError(
            f"config {str(path)!r} contains no devices, so it is not a Micro-Manager .cfg file; such a "
            "file has one line per device, such as 'Device,Camera,DemoCamera,DCam'; create a config with "
            "Micro-Manager's Hardware Configuration Wizard"
        )
    if not core.getCameraDevice():
        raise SourceError(
            f"config {str(path)!r} has no camera; select one in the file with the line "
            "'Property,Core,Camera,<label of the camera>'"
        )


def _load_message(core: "CMMCorePlus", path: Path, reason: str) -> str:
    searched = (
        ", ".join(core.getDeviceAdapterSearchPaths())
        or "nowhere, because no Micro-Manager installation was found"
    )
    message = f"config {str(path)!r} cannot be loaded: {reason}. "
    if "interface version" in reason:
        return message + (
            f"The device adapters (from: {searched}) and pymmcore use different versions of the device "
            "interface. Install the pymmcore version whose fourth number is the adapters' version "
            "(for example, 12.5.1.75.0 for version 75), or install matching adapters with 'mmcore install'"
        )
    if "Failed to load device adapter" in reason:
        return message + (
            f"Device adapters were searched for in: {searched}. Set the option adapter_path to the folder "
            "of your Micro-Manager installation, or install Micro-Manager with 'mmcore install'"
        )
    return message + "Check that the devices are switched on, connected, and not in use by another program"


# -- exposure times and properties ----------------------------------------------------------------------


def set_exposure(core: "CMMCorePlus", camera: str, exposure_ms: float, what: str) -> None:
    """Set an exposure time, and check that the camera accepted it.

    A camera may round the time slightly, which is accepted. A camera may also limit the time to its own range
    without reporting an error, so the resulting time is checked here.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    camera : str
        The label of the camera.
    exposure_ms : float
    what : str
        The origin of the exposure time, for the error message.

    Raises
    ------
    SourceError
        If the camera refuses the exposure time, or uses a time that differs from it by more than 10 percent
        and by more than 0.5 ms.
    """
    try:
        core.setExposure(camera, exposure_ms)
        taken_ms = core.getExposure(camera)
    except RuntimeError as error:
        raise sequence_error(
            "exposures", f"{what}: the camera {camera!r} does not accept {exposure_ms:g} ms: {error}"
        ) from error
    if abs(taken_ms - exposure_ms) > max(0.1 * exposure_ms, 0.5):
        raise sequence_error(
            "exposures",
            f"{what}: the camera {camera!r} does not accept {exposure_ms:g} ms and uses {taken_ms:g} ms "
            "instead; choose a time within its limits",
        )


def set_property(core: "CMMCorePlus", name: str, value: PropertyValue) -> None:
    """Check a value for ``Device.Property``, and set the property to it.

    Micro-Manager silently ignores a value for a read-only property, and interprets text as 0 if the property
    is numeric. This function refuses both.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    name : str
        A device label, a dot and a property name.
    value : str, int, float or bool

    Raises
    ------
    SourceError
        If the device or the property does not exist, or if the property does not accept the value.
    """
    device, prop = _split(core, name)
    text = _checked_value(core, device, prop, value)
    try:
        core.setProperty(device, prop, text)
        core.waitForDevice(device)
    except RuntimeError as error:
        raise SourceError(f"property {name!r} cannot be set to {value!r}: {error}") from error


def _split(core: "CMMCorePlus", name: str) -> tuple[str, str]:
    devices = core.getLoadedDevices()
    # A device label can contain dots, so every dot is tried as the separator.
    cuts = [position for position, letter in enumerate(name) if letter == "."]
    device = next((name[:cut] for cut in cuts if name[:cut] in devices), None)
    if device is None:
        device = name.partition(".")[0]
    _check_device(core, name, device)
    prop = name[len(device) + 1 :]
    known = core.getDevicePropertyNames(device)
    if prop not in known:
        raise SourceError(
            f"property {name!r}: device {device!r} has no property {prop!r}{did_you_mean(prop, known)}; "
            f"its properties: {_listed(known)}"
        )
    return device, prop


def _check_device(core: "CMMCorePlus", name: str, device: str) -> None:
    devices = core.getLoadedDevices()
    if device not in devices:
        raise SourceError(
            f"property {name!r}: the config has no device {device!r}{did_you_mean(device, devices)}; "
            f"its devices: {_listed(devices)}"
        )


def _checked_value(core: "CMMCorePlus", device: str, prop: str, value: PropertyValue) -> str:
    name = f"{device}.{prop}"
    if core.isPropertyReadOnly(device, prop):
        raise SourceError(f"property {name!r} is read-only; leave it out")
    if core.isPropertyPreInit(device, prop):
        raise SourceError(
            f"property {name!r} takes effect only when the device starts; set it in the .cfg file, before "
            "the line 'Property,Core,Initialize,1'"
        )
    text = str(int(value)) if isinstance(value, bool) else str(value)
    numeric = core.getPropertyType(device, prop).name in ("Float", "Integer")
    number: float | None = None
    if numeric:
        with contextlib.suppress(ValueError):
            number = float(text)
        if number is None or not math.isfinite(number):
            raise SourceError(f"property {name!r} must be a number, got {value!r}")
        if number.is_integer():
            text = str(int(number))
    allowed = core.getAllowedPropertyValues(device, prop)
    if allowed and text not in allowed and str(value) not in allowed:
        raise SourceError(
            f"property {name!r} does not accept {value!r}{did_you_mean(text, allowed)}; the allowed values "
            f"are {_listed(allowed)}"
        )
    if number is not None and core.hasPropertyLimits(device, prop):
        low, high = core.getPropertyLowerLimit(device, prop), core.getPropertyUpperLimit(device, prop)
        if not low <= number <= high:
            raise SourceError(
                f"property {name!r} does not accept {value!r}; it must be between {low:g} and {high:g}"
            )
    return text


# -- devices and channels -------------------------------------------------------------------------

ROLES = ("Camera", "Shutter", "Focus", "XYStage", "AutoFocus", "SLM")
"""The core properties that select the device for each role."""


def role_of(core: "CMMCorePlus", role: str) -> str:
    """Return the label of the device that is selected for a role, or an empty string."""
    return str(getattr(core, f"get{_device_method(role)}")())


def set_role(core: "CMMCorePlus", role: str, label: str) -> None:
    """Select a device for a role."""
    getattr(core, f"set{_device_method(role)}")(label)


def _device_method(role: str) -> str:
    return f"{role}Device"


def check_channel(core: "CMMCorePlus", group: str, preset: str) -> None:
    """Raise a :class:`SourceError` if a preset does not exist or a device does not accept its values."""
    groups = core.getAvailableConfigGroups()
    if group not in groups:
        raise sequence_error(
            "channels of the config",
            f"channel {preset!r} belongs to group {group!r}, but the config has no such "
            f"group{did_you_mean(group, groups)}; its groups: {_listed(groups)}; set the option "
            "channel_group to the group that contains your channels",
        )
    presets = core.getAvailableConfigs(group)
    if preset not in presets:
        raise sequence_error(
            "channels of the config",
            f"group {group!r} has no channel {preset!r}{did_you_mean(preset, presets)}; "
            f"its channels: {_listed(presets)}",
        )
    for device, prop, value in core.getConfigData(group, preset):
        if device != "Core":
            check_property(core, device, prop, value, f"channel {preset!r} of group {group!r}")


def check_property(core: "CMMCorePlus", device: str, prop: str, value: Any, what: str) -> None:
    """Raise a :class:`SourceError` if a property does not exist or does not accept a value.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    device, prop : str
    value : object
        The value to check. For ``Position``, it is a number in micrometers or, for an XY stage, a pair of
        numbers.
    what : str
        The origin of the value, for the error message.
    """
    from pymmcore_plus import DeviceType

    name = f"{device}.{prop}"
    try:
        if device == "Core" and prop in ROLES:
            _check_role(core, prop, value)
            return
        _check_device(core, name, device)
        kind = core.getDeviceType(device)
        if prop == "Position" and kind in (DeviceType.Stage, DeviceType.XYStage):
            axes = 2 if kind == DeviceType.XYStage else 1
            if not _is_position(value, axes):
                form = "[x, y]" if axes == 2 else "a number"
                raise SourceError(f"property {name!r} must be {form} in um, got {value!r}")
            return
        _split(core, name)
        _checked_value(core, device, prop, value)
    except SourceError as error:
        raise sequence_error("properties", f"{what}: {error}") from None


def _check_role(core: "CMMCorePlus", role: str, label: Any) -> None:
    known = core.getLoadedDevices()
    if label not in known:
        raise SourceError(f"the config has no device {label!r}{did_you_mean(str(label), known)}")
    if role == "Camera":
        check_camera(core, label)


def check_camera(core: "CMMCorePlus", label: str) -> None:
    """Raise a :class:`SourceError` if a camera does not exist."""
    from pymmcore_plus import DeviceType

    cameras = core.getLoadedDevicesOfType(DeviceType.Camera)
    if label not in cameras:
        raise sequence_error(
            "cameras",
            f"the config has no camera {label!r}{did_you_mean(label, cameras)}; its cameras: "
            f"{_listed(cameras)}",
        )


def _is_position(value: Any, axes: int) -> bool:
    values = value if axes > 1 else (value,)
    if not isinstance(values, list | tuple) or len(values) != axes:
        return False
    try:
        return all(math.isfinite(float(one)) for one in values)
    except (TypeError, ValueError):
        return False


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(map(repr, names[:40]))
    return shown + (f" and {len(names) - 40} more" if len(names) > 40 else "") if names else "none"
