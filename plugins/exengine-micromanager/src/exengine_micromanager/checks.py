"""Checks made before anything moves: config, properties, and what a sequence needs.

Every error says what was asked for, what there is, and how to go on.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from exengine.base_classes import did_you_mean
from exengine.errors import SourceError

if TYPE_CHECKING:
    import useq
    from pymmcore_plus import CMMCorePlus

PropertyValue = str | int | float | bool


# -- the config file ------------------------------------------------------------------------------


def load_config(core: "CMMCorePlus", path: Path) -> None:
    """Load a Micro-Manager config file, and check that it gives a camera.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    path : pathlib.Path

    Raises
    ------
    SourceError
        When there is no such file, it is no config file, or a device does not start.
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
    if len(core.getLoadedDevices()) < 2:  # the core itself is one
        raise SourceError(
            f"config {str(path)!r} names no device: it is no Micro-Manager .cfg file, whose lines look like "
            "'Device,Camera,DemoCamera,DCam'; Micro-Manager's Hardware Configuration Wizard writes one"
        )
    if not core.getCameraDevice():
        raise SourceError(
            f"config {str(path)!r} gives no camera; name one in the file with the line "
            "'Property,Core,Camera,<label of the camera>'"
        )


def _load_message(core: "CMMCorePlus", path: Path, reason: str) -> str:
    searched = ", ".join(core.getDeviceAdapterSearchPaths()) or "nowhere: no Micro-Manager was found"
    message = f"config {str(path)!r} cannot be loaded: {reason}. "
    if "interface version" in reason:
        return message + (
            f"The device adapters ({searched}) and pymmcore were built for different versions of the device "
            "interface: install the pymmcore whose version has the adapters' number in its fourth place "
            "(12.5.1.75.0 is for 75), or the adapters that fit with 'mmcore install'"
        )
    if "Failed to load device adapter" in reason:
        return message + (
            f"Device adapters were looked for in: {searched}. Set the option adapter_path to the folder of "
            "your Micro-Manager installation, or install one with 'mmcore install'"
        )
    return message + "Check that the devices are switched on and connected, and not used by another program"


# -- exposure times and properties ----------------------------------------------------------------------


def set_exposure(core: "CMMCorePlus", exposure_ms: float, what: str) -> None:
    """Set an exposure time, and check that the camera took it.

    A camera may round a little; one that cuts the time to what it can do does not say so.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    exposure_ms : float
    what : str
        Who asks for it, for the message.

    Raises
    ------
    SourceError
        When the camera refuses it, or exposes for a time that differs by more than a tenth.
    """
    try:
        core.setExposure(exposure_ms)
        taken_ms = core.getExposure()
    except RuntimeError as error:
        raise SourceError(f"{what}: the camera does not take {exposure_ms:g} ms: {error}") from error
    if abs(taken_ms - exposure_ms) > max(0.1 * exposure_ms, 0.5):
        raise SourceError(
            f"{what}: the camera does not take {exposure_ms:g} ms, it took {taken_ms:g} ms instead; "
            "choose a time that it can expose for"
        )


def set_property(core: "CMMCorePlus", name: str, value: PropertyValue) -> None:
    """Set ``Device.Property`` to a value that it takes.

    Micro-Manager itself ignores a value for a property that is read-only, and takes text for a number
    as 0; both are refused here.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    name : str
        Label of the device, a dot, name of the property.
    value : str, int, float or bool

    Raises
    ------
    SourceError
        When device or property do not exist, or the property does not take the value.
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
    # A label may have dots in it, so every dot is tried.
    cuts = [position for position, letter in enumerate(name) if letter == "."]
    device = next((name[:cut] for cut in cuts if name[:cut] in devices), None)
    if device is None:
        wanted = name.partition(".")[0]
        raise SourceError(
            f"property {name!r}: the config has no device {wanted!r}{did_you_mean(wanted, devices)}; "
            f"its devices are {_listed(devices)}"
        )
    prop = name[len(device) + 1 :]
    known = core.getDevicePropertyNames(device)
    if prop not in known:
        raise SourceError(
            f"property {name!r}: device {device!r} has no property {prop!r}{did_you_mean(prop, known)}; "
            f"its properties are {_listed(known)}"
        )
    return device, prop


def _checked_value(core: "CMMCorePlus", device: str, prop: str, value: PropertyValue) -> str:
    name = f"{device}.{prop}"
    if core.isPropertyReadOnly(device, prop):
        raise SourceError(f"property {name!r} can only be read; leave it out of the option properties")
    if core.isPropertyPreInit(device, prop):
        raise SourceError(
            f"property {name!r} is only read when the device starts; set it in the .cfg file, before the "
            "line 'Property,Core,Initialize,1'"
        )
    text = str(int(value)) if isinstance(value, bool) else str(value)
    numeric = core.getPropertyType(device, prop).name in ("Float", "Integer")
    number: float | None = None
    if numeric:
        with contextlib.suppress(ValueError):
            number = float(text)
        if number is None or not math.isfinite(number):
            raise SourceError(f"property {name!r} takes a number, got {value!r}")
        if number.is_integer():
            text = str(int(number))
    allowed = core.getAllowedPropertyValues(device, prop)
    if allowed and text not in allowed:
        raise SourceError(
            f"property {name!r} does not take {value!r}{did_you_mean(text, allowed)}; "
            f"it takes {_listed(allowed)}"
        )
    if number is not None and core.hasPropertyLimits(device, prop):
        low, high = core.getPropertyLowerLimit(device, prop), core.getPropertyUpperLimit(device, prop)
        if not low <= number <= high:
            raise SourceError(f"property {name!r} does not take {value!r}; it takes {low:g} to {high:g}")
    return text


# -- what a sequence needs ------------------------------------------------------------------------


@dataclass
class Needs:
    """What the events of a sequence ask of the microscope; gathered while they pass by."""

    channels: dict[tuple[str, str], None] = field(default_factory=dict)
    settings: set[tuple[str, str]] = field(default_factory=set)
    exposures_ms: set[float] = field(default_factory=set)
    focus: bool = False
    stage: bool = False
    autofocus: bool = False
    slm: bool = False
    roi: bool = False

    def frames_of(self, events: "Iterable[useq.MDAEvent]") -> "Iterator[useq.MDAEvent]":
        """Note what each event needs; yield those that give frames."""
        import useq

        for event in events:
            if event.channel is not None:
                self.channels[event.channel.group, event.channel.config] = None
            self.settings.update((device, prop) for device, prop, _ in event.properties or ())
            if event.exposure is not None:
                self.exposures_ms.add(event.exposure)
            self.focus = self.focus or event.z_pos is not None
            self.stage = self.stage or event.x_pos is not None or event.y_pos is not None
            self.slm = self.slm or event.slm_image is not None
            self.roi = self.roi or event.roi is not None
            self.autofocus = self.autofocus or isinstance(event.action, useq.HardwareAutofocus)
            if event.action is None or isinstance(event.action, useq.AcquireImage):
                yield event

    def check(self, core: "CMMCorePlus") -> None:
        """Raise a :class:`SourceError` where the microscope cannot do what is needed."""
        for there, needed, what, plan, role in (
            (core.getFocusDevice(), self.focus, "focus drive", "a z position", "Focus"),
            (core.getXYStageDevice(), self.stage, "XY stage", "an XY position", "XYStage"),
            (core.getAutoFocusDevice(), self.autofocus, "autofocus device", "an autofocus step", "AutoFocus"),
            (core.getSLMDevice(), self.slm, "SLM", "an SLM image", "SLM"),
        ):
            if needed and not there:
                raise SourceError(
                    f"the sequence has {plan}, but the config has no {what}; take it out of the sequence, or "
                    f"name the device in the .cfg file with 'Property,Core,{role},<label>'"
                )
        for group, preset in self.channels:
            check_channel(core, group, preset)
        before_ms = core.getExposure()
        for exposure_ms in sorted(self.exposures_ms):
            set_exposure(core, exposure_ms, "the sequence")
        if self.exposures_ms:
            core.setExposure(before_ms)

    def changes_image(self, core: "CMMCorePlus") -> bool:
        """Return whether a channel or an event sets the camera up anew, so that frames may differ."""
        camera = core.getCameraDevice()
        settings = set(self.settings)
        for group, preset in self.channels:
            settings.update((device, prop) for device, prop, _ in core.getConfigData(group, preset))
        return self.roi or any(
            device == camera and prop not in ("Exposure", "Gain", "Offset", "TriggerMode")
            for device, prop in settings
        )


def check_channel(core: "CMMCorePlus", group: str, preset: str) -> None:
    """Raise a :class:`SourceError` when the config has no such preset."""
    groups = core.getAvailableConfigGroups()
    if group not in groups:
        raise SourceError(
            f"channel {preset!r} is of group {group!r}, which the config does not have"
            f"{did_you_mean(group, groups)}; its groups are {_listed(groups)}: name the one with your "
            "channels in the option channel_group"
        )
    presets = core.getAvailableConfigs(group)
    if preset not in presets:
        raise SourceError(
            f"there is no channel {preset!r} in group {group!r}{did_you_mean(preset, presets)}; "
            f"its channels are {_listed(presets)}"
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(map(repr, names[:40]))
    return shown + (f" and {len(names) - 40} more" if len(names) > 40 else "") if names else "none"
