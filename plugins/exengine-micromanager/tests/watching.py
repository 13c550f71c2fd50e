"""A core that writes down what the devices were set to at each exposure."""

from dataclasses import dataclass

from pymmcore_plus import DeviceType

from exengine_micromanager import engine as engine_module


@dataclass
class Exposure:
    """The state of the microscope when the camera took one image, or began a burst."""

    camera: str
    exposure_ms: float
    x_um: float | None
    y_um: float | None
    z_um: float | None
    autoshutter: bool
    open_shutters: tuple[str, ...]
    gain: str


def watched_core(monkeypatch, **methods):
    """Make sources use a core that logs; return the log. Methods replace those of the core."""
    log: list[Exposure] = []

    def look(core) -> None:
        x, y = core.getXYPosition() if core.getXYStageDevice() else (None, None)
        shutters = core.getLoadedDevicesOfType(DeviceType.Shutter)
        log.append(
            Exposure(
                camera=core.getCameraDevice(),
                exposure_ms=core.getExposure(),
                x_um=None if x is None else round(x, 1) + 0.0,
                y_um=None if y is None else round(y, 1) + 0.0,
                z_um=round(core.getZPosition(), 3) + 0.0 if core.getFocusDevice() else None,
                autoshutter=core.getAutoShutter(),
                open_shutters=tuple(label for label in shutters if core.getShutterOpen(label)),
                gain=core.getProperty("Left", "Gain") if "Left" in core.getLoadedDevices() else "",
            )
        )

    class Watched(engine_module.CarefulCore):
        def snapImage(self):
            look(self)
            super().snapImage()

        def startSequenceAcquisition(self, *args):
            look(self)
            super().startSequenceAcquisition(*args)

    monkeypatch.setattr(engine_module, "CarefulCore", type("WatchedCore", (Watched,), methods))
    return log
