"""Restores the microscope's settings after a run: promise S2.

Before a run, :class:`Before` records the state of autoshutter, the shutters, the cameras' exposure times and
regions of interest, the selected devices, the stage speeds and the state of continuous focus. After the run,
:meth:`Before.restore` restores these settings, starting with the shutters. It does not restore channel
presets, other properties or the positions of drives.

Guarantees: the settings are restored only once, and if one step fails, the other steps still run.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from exengine_micromanager.checks import ROLES, role_of, set_role

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus

_SPEEDS = ("speed", "velocity")


class Before:
    """The microscope's settings before a run.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    cameras : iterable of str
        Labels of the cameras that the run may use.
    """

    def __init__(self, core: "CMMCorePlus", cameras: Iterable[str]) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._done = False
        self._cameras = tuple(dict.fromkeys(cameras))
        self.settings = read_settings(core, self._cameras)

    def restore(self, *, complete: bool) -> tuple[str, ...]:
        """Restore all settings. Only the first call has an effect.

        Parameters
        ----------
        complete : bool
            Whether the run was complete. After a complete run, the shutters are restored. Otherwise, they are
            closed.

        Returns
        -------
        tuple of str
            One line for each setting that could not be restored.
        """
        with self._lock:
            if self._done:
                return ()
            self._done = True
            return self._restore(complete)

    def _restore(self, complete: bool) -> tuple[str, ...]:
        core, before = self._core, self.settings
        problems: list[str] = []

        def step(what: str, action: Callable[[], None]) -> None:
            try:
                action()
            except Exception as error:
                problems.append(f"{what} could not be restored: {error}")

        def stop() -> None:
            if core.isSequenceRunning():
                core.stopSequenceAcquisition()

        step("the running burst", stop)
        for label, was_open in before["shutters"].items():
            if not complete or was_open is not None:
                step(f"shutter {label!r}", partial(_set_shutter, core, label, complete and bool(was_open)))
        step("autoshutter", partial(_change, core.getAutoShutter, core.setAutoShutter, before["autoshutter"]))
        for role, label in before["devices"].items():
            step(f"Core-{role}", partial(_set_role, core, role, label))
        for camera, exposure_ms in before["exposure_ms"].items():
            step(f"exposure of {camera!r}", partial(_set_exposure, core, camera, exposure_ms))
        for camera, roi in before["roi"].items():
            step(f"region of interest of {camera!r}", partial(_set_roi, core, camera, roi))
        for (device, prop), value in before["speeds"].items():
            step(f"{device}.{prop}", partial(_set_property, core, device, prop, value))
        focusing = before["continuous_focus"]
        if focusing is not None:
            change = partial(_change, core.isContinuousFocusEnabled, core.enableContinuousFocus, focusing)
            step("continuous focus", change)
        return tuple(problems)


def read_settings(core: "CMMCorePlus", cameras: Iterable[str]) -> dict[str, Any]:
    """Return the current value of every setting that is restored after a run."""
    from pymmcore_plus import DeviceType

    settings: dict[str, Any] = {
        "autoshutter": core.getAutoShutter(),
        "shutters": {},
        "devices": {role: role_of(core, role) for role in ROLES},
        "exposure_ms": {},
        "roi": {},
        "speeds": {},
        "continuous_focus": None,
    }
    for label in core.getLoadedDevicesOfType(DeviceType.Shutter):
        settings["shutters"][label] = None  # the state is unknown if the query fails
        with contextlib.suppress(RuntimeError):
            settings["shutters"][label] = bool(core.getShutterOpen(label))
    for camera in cameras:
        with contextlib.suppress(RuntimeError):
            settings["exposure_ms"][camera] = core.getExposure(camera)
        with contextlib.suppress(RuntimeError):
            settings["roi"][camera] = tuple(core.getROI(camera))
    for kind in (DeviceType.Stage, DeviceType.XYStage):
        for label in core.getLoadedDevicesOfType(kind):
            for prop in core.getDevicePropertyNames(label):
                if any(word in prop.lower() for word in _SPEEDS) and not core.isPropertyReadOnly(label, prop):
                    with contextlib.suppress(RuntimeError):
                        settings["speeds"][label, prop] = core.getProperty(label, prop)
    if core.getAutoFocusDevice():
        with contextlib.suppress(RuntimeError):
            settings["continuous_focus"] = core.isContinuousFocusEnabled()
    return settings


def undisturbed(action: Callable[[], Any]) -> Any:
    """Run an action so that Ctrl-C cannot interrupt it, and return its result.

    Python raises keyboard interrupts only on the main thread. The action therefore runs on another thread. If
    an interrupt arrives while the action is running, it is raised again after the action has ended.
    """
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(action()), name="exengine-restore")
    interrupt: KeyboardInterrupt | None = None
    thread.start()
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
    return result[0] if result else None


# -- steps ------------------------------------------------------------------------------------------------


def _set_shutter(core: "CMMCorePlus", label: str, opened: bool) -> None:
    core.setShutterOpen(label, opened)
    core.waitForDevice(label)
    if core.getShutterOpen(label) != opened:
        raise RuntimeError(f"the shutter is still {'closed' if opened else 'open'}")


def _set_role(core: "CMMCorePlus", role: str, label: str) -> None:
    if role_of(core, role) != label:
        set_role(core, role, label)


def _set_exposure(core: "CMMCorePlus", camera: str, exposure_ms: float) -> None:
    if core.getExposure(camera) != exposure_ms:
        core.setExposure(camera, exposure_ms)


def _set_roi(core: "CMMCorePlus", camera: str, roi: tuple[int, ...]) -> None:
    if tuple(core.getROI(camera)) == roi:
        return
    selected = core.getCameraDevice()
    if selected != camera:
        core.setCameraDevice(camera)  # clearROI affects only the selected camera
    try:
        core.clearROI()
        if tuple(core.getROI(camera)) != roi:
            core.setROI(camera, *roi)
    finally:
        if selected != camera:
            core.setCameraDevice(selected)


def _set_property(core: "CMMCorePlus", device: str, prop: str, value: str) -> None:
    if core.getProperty(device, prop) != value:
        core.setProperty(device, prop, value)


def _change(read: Callable[[], bool], write: Callable[[bool], None], value: bool) -> None:
    if read() != value:
        write(value)
