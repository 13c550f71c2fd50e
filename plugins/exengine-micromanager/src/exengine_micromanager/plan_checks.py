"""Checks a sequence against the microscope's devices: promises S1 and S3.

The checks find requests that the devices cannot fulfill, before anything moves: missing devices, channels and
cameras, and invalid exposure times, properties and regions of interest. To find out the layout of each
camera's frames and the exposure times that it accepts, the checks temporarily change camera settings and
then restore them. They do not touch any device that moves.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exengine.base_classes import CompleteEvents, plans_of, point_plans, sequence_error, sub_sequences
from exengine_micromanager.checks import (
    check_camera,
    check_channel,
    check_property,
    set_exposure,
    set_role,
)
from exengine_micromanager.orders import Order, Orders, Setting
from exengine_micromanager.role_checks import (
    check_drives,
    check_shutter,
    need_device,
    role_at_start,
    stated_in_setup,
)

if TYPE_CHECKING:
    import useq
    from pymmcore_plus import CMMCorePlus

DEVICE_RULES = {
    "devices": "The config has every device that the sequence uses to move, to focus or to display an image.",
    "channels of the config": "Every channel is a preset of its config group.",
    "cameras": "Every camera that a channel uses exists; the cameras of one device share one frame layout.",
    "exposures": "Every camera accepts the exposure times that the sequence sets for it.",
    "properties": "Every property exists and accepts its value.",
    "drives": "x, y and z move one XY stage and one focus drive, and nothing else moves these devices.",
    "shutter": "keep_shutter_open_across needs a shutter, and autoshutter must be on.",
    "field of view": "Grids need a pixel size in the config, or fov_width and fov_height of their own.",
    "region of interest": "The region of interest in the setup is within the camera's sensor.",
    "autofocus": "autofocus_device_name is a focus drive, and autofocus_motor_offset is set as well.",
}

Layout = tuple[tuple[int, ...], str]


@dataclass(frozen=True)
class CameraFacts:
    """Facts about the frames that a camera delivers with certain settings.

    Attributes
    ----------
    channels : tuple of str
        A name for each frame of one exposure. If there are several physical cameras, the names are their
        labels.
    layout : tuple
        The shape and dtype of a frame.
    """

    channels: tuple[str, ...]
    layout: Layout


@dataclass
class Examined:
    """Facts about the cameras that a sequence uses.

    Attributes
    ----------
    physical : dict
        Maps each camera device to the labels of its physical cameras.
    facts : dict
        Maps each camera, together with its settings, to the facts about its frames.
    field_of_view_um : tuple of float or None
        The width and height of the field of view after the sequence's setup, or None if the pixel size is
        unknown.
    pixel_size_um : float or None
        The size of a pixel after the sequence's setup, or None if the config does not define one.
    """

    physical: dict[str, tuple[str, ...]] = field(default_factory=dict)
    facts: dict[tuple[str, tuple[tuple[Setting, Any], ...]], CameraFacts] = field(default_factory=dict)
    field_of_view_um: tuple[float, float] | None = None
    pixel_size_um: float | None = None

    def of(self, order: Order) -> CameraFacts:
        """Return the facts about the camera that an order uses."""
        return self.facts[self.key(order)]

    def cameras(self, core: "CMMCorePlus") -> tuple[str, ...]:
        """Return the selected camera and every other camera that the run may use."""
        used = {camera for camera, _ in self.facts}
        behind = {physical for camera in used for physical in self.physical.get(camera, ())}
        return (core.getCameraDevice(), *used, *behind)

    def key(self, order: Order) -> tuple[str, tuple[tuple[Setting, Any], ...]]:
        """Return the camera that an order uses, and the settings that affect its frames."""
        cameras = {order.camera, *self.physical.get(order.camera, ())}
        return order.camera, camera_settings(order.settings, cameras)


def camera_settings(
    settings: Mapping[Setting, Any], cameras: Iterable[str]
) -> tuple[tuple[Setting, Any], ...]:
    """Return the camera settings that may affect the layout of the frames."""
    cameras = set(cameras)
    plain = ("Exposure", "Gain", "Offset", "TriggerMode")
    return tuple(
        (name, value) for name, value in settings.items() if name[0] in cameras and name[1] not in plain
    )


# -- devices, channels and properties ------------------------------------------------------------------------


def check_devices(core: "CMMCorePlus", complete: CompleteEvents) -> None:
    """Refuse a sequence that needs a device, channel or property that the config does not have.

    Raises
    ------
    SourceError
        If something is missing. The error's ``rule`` attribute contains the violated rule.
    """
    sequence, setup = complete.sequence, complete.sequence.setup
    parts = [sequence, *(own for _, own in sub_sequences(sequence))]
    for part in parts:
        for channel in part.channels:
            check_channel(core, channel.group, channel.config)
            if channel.camera is not None:
                check_camera(core, channel.camera)
    if setup is not None:
        if setup.channel is not None:
            check_channel(core, setup.channel.group, setup.channel.config)
        for device, prop, value in setup.properties or ():
            check_property(core, device, prop, value, "setup.properties")
    start = stated_in_setup(core, setup)
    _check_autofocus(core, start, [part.autofocus_plan for part in parts if part.autofocus_plan is not None])
    for position in sequence.stage_positions if isinstance(sequence.stage_positions, tuple) else ():
        for device, prop, value in position.properties or ():
            where = f"the properties of position {position.name!r}" if position.name else "properties"
            check_property(core, device, prop, value, where)
    check_drives(core, complete)
    slm = setup is not None and setup.slm_image is not None and not setup.slm_image.device
    moved = (
        complete.moves_z or (setup is not None and setup.z_pos is not None),
        "Focus",
        "focus drive",
        "a z position",
    )
    if slm and not role_at_start(core, start, "SLM"):
        moved = (True, "SLM", "SLM", "an SLM image")
    need_device(core, start, *moved)
    stage = complete.moves_xy or (setup is not None and (setup.x_pos, setup.y_pos) != (None, None))
    need_device(core, start, stage, "XYStage", "XY stage", "an XY position")
    check_shutter(core, complete)


def _check_autofocus(
    core: "CMMCorePlus", start: Mapping[Setting, str], plans: "list[useq.AxesBasedAF]"
) -> None:
    from pymmcore_plus import DeviceType

    need_device(core, start, bool(plans), "AutoFocus", "autofocus device", "an autofocus step")
    drives = core.getLoadedDevicesOfType(DeviceType.Stage)
    for plan in plans:
        name = plan.autofocus_device_name
        if name is not None and name not in drives:
            raise sequence_error(
                "autofocus",
                "autofocus_device_name must be the focus drive for the autofocus offset, but the config "
                f"has no focus drive {name!r}; its focus drives: {', '.join(map(repr, drives)) or 'none'}",
            )
        if name is not None and plan.autofocus_motor_offset is None:
            raise sequence_error(
                "autofocus",
                f"autofocus_device_name {name!r} would have no effect without autofocus_motor_offset; set "
                "the offset in um, or leave out the name",
            )


# -- the cameras --------------------------------------------------------------------------------------------


def examine_cameras(
    core: "CMMCorePlus", complete: CompleteEvents, exposure_ms: float | None, *, laid_out: bool = True
) -> Examined:
    """Return facts about the cameras as the sequence configures them.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    complete : CompleteEvents
    exposure_ms : float or None
        The source's option of the same name.
    laid_out : bool
        Whether the grids already have a field of view. If not, only the field of view is determined.

    Raises
    ------
    SourceError
        If a camera does not accept a region of interest or an exposure time.
    """
    from pymmcore_plus import DeviceType

    found = Examined()
    selected = core.getCameraDevice()
    cameras = core.getLoadedDevicesOfType(DeviceType.Camera)
    before: dict[str, Any] = {camera: _attempt(core.getROI, camera) for camera in cameras}
    times: dict[str, Any] = {camera: _attempt(core.getExposure, camera) for camera in cameras}
    changed: dict[Setting, Any] = {}
    try:
        for label in cameras:
            found.physical[label] = _exposing(core, label)
        core.setCameraDevice(selected)
        orders = Orders(core, complete, found.physical, exposure_ms)
        _try_setup(core, complete.sequence.setup, orders, changed)
        orders.begin()
        pixel_um = found.pixel_size_um = _pixel_size_um(core, complete.sequence.setup) or None
        if pixel_um is not None:
            *_, width, height = core.getROI()
            found.field_of_view_um = width * pixel_um, height * pixel_um
        if not laid_out:
            return found
        seen_exposures: dict[tuple[str, float], None] = {}
        for _, order in orders.events(anchored=False):
            key = found.key(order)
            if key not in found.facts:
                set_role(core, "Camera", order.camera)
                _try(core, dict(key[1]), changed)
                found.facts[key] = CameraFacts(camera_channels(core, order.camera), image_layout(core))
            for camera, time_ms in order.exposures_ms.items():
                if time_ms != times.get(camera):
                    seen_exposures[camera, time_ms] = None
        for camera, time_ms in sorted(seen_exposures):
            set_exposure(core, camera, time_ms, "the sequence")
    finally:
        _undo(core, selected, changed, before, times)
    return found


def _exposing(core: "CMMCorePlus", label: str) -> tuple[str, ...]:
    """Return a camera device's physical cameras, or the device itself if it has none."""
    core.setCameraDevice(label)
    names = tuple(core.getPhysicalCameraDevice(n) for n in range(_frames(core)) if _frames(core) > 1)
    return names if names and set(names) <= set(core.getLoadedDevices()) else (label,)


def _frames(core: "CMMCorePlus") -> int:
    with suppress(RuntimeError):
        return int(core.getNumberOfCameraChannels())
    return 1


def camera_channels(core: "CMMCorePlus", label: str) -> tuple[str, ...]:
    """Return a name for each frame that one exposure of the selected camera device produces."""
    number = _frames(core)
    names = tuple(core.getPhysicalCameraDevice(n) for n in range(number)) if number > 1 else (label,)
    return names if len(set(names)) == number and all(names) else tuple(f"{label}-{n}" for n in range(number))


def image_layout(core: "CMMCorePlus") -> Layout:
    """Return the shape and dtype of the selected camera's frames."""
    components = core.getNumberOfComponents()
    plane = (core.getImageHeight(), core.getImageWidth())
    if not (components and all(plane) and core.getBytesPerPixel()):
        raise sequence_error(
            "cameras",
            f"camera {core.getCameraDevice()!r} delivers no image with the current settings; if one device "
            "combines several cameras, they need the same region of interest, binning and pixel type",
        )
    shape = plane if components == 1 else (*plane, 3)
    return shape, f"uint{8 * core.getBytesPerPixel() // components}"


def _try_setup(
    core: "CMMCorePlus", setup: "useq.MDAEvent | None", orders: Orders, changed: dict[Setting, Any]
) -> None:
    """Apply the camera settings from the sequence's setup."""
    if setup is None:
        return
    order = orders.setup_order(setup)
    core.setCameraDevice(order.camera)
    cameras = core.getLoadedDevices()
    stated = dict(camera_settings(order.settings, cameras))
    _try(core, {name: value for name, value in stated.items() if name[0] == order.camera}, changed)
    for camera, time_ms in order.exposures_ms.items():
        set_exposure(core, camera, time_ms, "setup")
    if setup.roi is not None:
        core.clearROI()
        *_, width, height = core.getROI()
        roi = setup.roi
        inside = roi.offset_x + roi.width <= width and roi.offset_y + roi.height <= height
        if not (inside and roi.width and roi.height):
            raise sequence_error(
                "region of interest",
                f"setup.roi ({roi.offset_x}, {roi.offset_y}, {roi.width}, {roi.height}) must be x, y, width "
                f"and height in pixels, within the {width} x {height} pixels of camera {order.camera!r}",
            )
        core.setROI(roi.offset_x, roi.offset_y, roi.width, roi.height)


def _try(core: "CMMCorePlus", settings: Mapping[Setting, Any], changed: dict[Setting, Any]) -> None:
    for name, value in settings.items():
        before = core.getProperty(*name)
        if str(before) != str(value):
            changed.setdefault(name, before)
            try:
                core.setProperty(*name, value)
            except RuntimeError as error:
                raise sequence_error(
                    "properties", f"property {'.'.join(name)!r} cannot be set to {value!r}: {error}"
                ) from error


def _undo(
    core: "CMMCorePlus",
    selected: str,
    changed: Mapping[Setting, Any],
    rois: Mapping[str, Any],
    times: Mapping[str, Any],
) -> None:
    for (device, prop), value in reversed(list(changed.items())):
        with suppress(RuntimeError):
            core.setProperty(device, prop, value)
    for camera, roi in rois.items():
        if roi is not None and _attempt(core.getROI, camera) != roi:
            with suppress(RuntimeError):
                core.setCameraDevice(camera)
                core.clearROI()
                if core.getROI(camera) != roi:
                    core.setROI(camera, *roi)
    for camera, time_ms in times.items():
        if time_ms is not None and _attempt(core.getExposure, camera) != time_ms:
            with suppress(RuntimeError):
                core.setExposure(camera, time_ms)
    core.setCameraDevice(selected)


def _attempt(read: Any, camera: str) -> Any:
    with suppress(RuntimeError):
        return read(camera)
    return None


# -- the field of view ----------------------------------------------------------------------------------


def _pixel_size_um(core: "CMMCorePlus", setup: "useq.MDAEvent | None") -> float:
    """Return the pixel size that will be in effect after the setup, which has not been applied yet."""
    stated = stated_in_setup(core, setup)
    if not stated:
        return float(core.getPixelSizeUm())
    for name in core.getAvailablePixelSizeConfigs():
        needs = core.getPixelSizeConfigData(name)
        if all(stated.get((dev, prop), core.getProperty(dev, prop)) == value for dev, prop, value in needs):
            binning = 1.0
            with suppress(RuntimeError, ValueError):
                binning = float(core.getProperty(core.getCameraDevice(), "Binning"))
            return float(core.getPixelSizeUmByID(name) * binning / core.getMagnificationFactor())
    return 0.0


def check_field_of_view(sequence: "useq.MDASequence", field_of_view_um: tuple[float, float] | None) -> None:
    """Refuse grids and other plans of several points if the spacing of the points is unknown."""
    if field_of_view_um is not None:
        return
    for plan in point_plans(sequence):
        spaced = hasattr(plan, "overlap") or getattr(plan, "allow_overlap", True) is False
        if spaced and (plan.fov_width is None or plan.fov_height is None):
            where = "grid_plan" if "g" in plans_of(sequence) else "well_points_plan"
            raise sequence_error(
                "field of view",
                f"{where}: the field of view is unknown, because the config has no pixel size; set "
                "fov_width and fov_height of the plan in um, or calibrate the pixel size in Micro-Manager",
            )
