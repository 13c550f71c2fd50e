"""An independent witness: cameras, shutters and drives in Python, which write down what they were set to.

Filter wheel, autofocus device and their config are the demo adapters of Micro-Manager. The core is that of
pymmcore-plus for Python devices; where it does not do yet what the C++ core does for its own devices (autoshutter,
presets that select a Python device, focusing), the witness does it.
"""

import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import (
    ShutterDevice,
    SimpleCameraDevice,
    StageDevice,
    UniMMCore,
    XYStageDevice,
)

from exengine_micromanager.engine import CarefulCore

CONFIG = """\
Property,Core,Initialize,0
Device,Wheel,DemoCamera,DWheel
Device,AF,DemoCamera,DAutoFocus
#py pyDevice,CamA,witness,CameraA
#py pyDevice,CamB,witness,CameraB
#py pyDevice,Shut,witness,Shutter
#py pyDevice,Shut2,witness,Shutter
#py pyDevice,Z,witness,Focus
#py pyDevice,XY,witness,Stage
Property,Core,Initialize,1
#py Property,Core,Camera,CamA
#py Property,Core,Shutter,Shut
#py Property,Core,Focus,Z
#py Property,Core,XYStage,XY
Property,Core,AutoFocus,AF
Property,Core,AutoShutter,1
Label,Wheel,0,DAPI
Label,Wheel,1,FITC
ConfigGroup,Channel,DAPI,Wheel,Label,DAPI
ConfigGroup,Channel,FITC,Wheel,Label,FITC
ConfigGroup,Channel,Slow,Wheel,Label,DAPI
#py ConfigGroup,Channel,Slow,CamA,Exposure,30
ConfigGroup,Channel,Manual,Core,AutoShutter,0
ConfigGroup,Channel,Auto,Core,AutoShutter,1
#py ConfigGroup,Channel,Second,Core,Shutter,Shut2
ConfigGroup,Channel,SecondManual,Core,AutoShutter,0
#py ConfigGroup,Channel,SecondManual,Core,Shutter,Shut2
ConfigPixelSize,Res,Wheel,State,0
PixelSize_um,Res,1.0
ConfigPixelSize,Res2,Wheel,State,1
PixelSize_um,Res2,1.0
"""

FOCUS_CORRECTION_UM = 0.5
START = {"x": 3.0, "y": -2.0, "z": 20.0}
EXPOSURE_MS = 10.0


@dataclass(frozen=True)
class Seen:
    """What the devices were set to when a camera exposed."""

    number: int
    camera: str
    exposure_ms: float
    x: float
    y: float
    z: float
    wheel: str
    open_shutters: frozenset[str]
    autoshutter: bool


class Witness:
    """What was seen of the core that is in use."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.core = None
        self.exposures = []
        self.focused_at = []
        self.moves = 0
        self.open_shutters = set()
        self.fail_at = None  # the exposure at which the camera breaks
        self.lock = threading.Lock()

    @property
    def shutter_open(self):
        return bool(self.open_shutters)


WITNESS = Witness()


class _Camera(SimpleCameraDevice):
    size = (24, 32)
    kind = np.uint16

    def __init__(self):
        self._exposure = EXPOSURE_MS
        super().__init__()

    def get_exposure(self):
        return self._exposure

    def set_exposure(self, exposure):
        self._exposure = exposure

    def sensor_shape(self):
        return self.size

    def dtype(self):
        return self.kind

    def start_sequence(self, n, get_buffer):
        core = WITNESS.core
        auto, shutter = core.getAutoShutter(), core.getShutterDevice()
        if auto:
            WITNESS.open_shutters.add(shutter)
        try:
            yield from super().start_sequence(n, get_buffer)
        finally:
            if auto:
                WITNESS.open_shutters.discard(shutter)

    def snap(self, buffer):
        core = WITNESS.core
        with WITNESS.lock:
            number = len(WITNESS.exposures)
            if WITNESS.fail_at is not None and number >= WITNESS.fail_at:
                raise RuntimeError("the camera was unplugged")
            x, y = core.getXYPosition()
            seen = Seen(
                number, self.get_label(), self._exposure, round(x, 6) + 0.0, round(y, 6) + 0.0,
                round(core.getPosition(), 6) + 0.0, core.getStateLabel("Wheel"),
                frozenset(WITNESS.open_shutters), core.getAutoShutter(),
            )  # fmt: skip
            WITNESS.exposures.append(seen)
        buffer[:] = number % 250
        return {}


class CameraA(_Camera):
    """A camera of 16 bits."""


class CameraB(_Camera):
    """A smaller camera of 8 bits, which takes exposures of at most 60 ms."""

    size = (16, 16)
    kind = np.uint8

    def set_exposure(self, exposure):
        super().set_exposure(min(exposure, 60.0))


class Shutter(ShutterDevice):
    """A shutter."""

    def get_open(self):
        return self.get_label() in WITNESS.open_shutters

    def set_open(self, open):  # noqa: A002 -- of the base class
        (WITNESS.open_shutters.add if open else WITNESS.open_shutters.discard)(self.get_label())


class _Drive:
    def home(self):
        raise AssertionError("nobody asked to home")

    def stop(self):
        """Nothing moves."""

    def set_origin(self):
        raise AssertionError("nobody asked for an origin")

    set_origin_x = set_origin_y = set_origin


class Focus(_Drive, StageDevice):
    """A focus drive."""

    at = START["z"]

    def set_position_um(self, val):
        WITNESS.moves += 1
        self.at = val

    def get_position_um(self):
        return self.at


class Stage(_Drive, XYStageDevice):
    """An XY stage."""

    at = (START["x"], START["y"])

    def set_position_um(self, x, y):
        WITNESS.moves += 1
        self.at = (x, y)

    def get_position_um(self):
        return self.at


class _DemoAsPython(UniMMCore):
    """What the C++ core does for C++ devices, for Python devices."""

    roles: ClassVar = {"Camera": "setCameraDevice", "Shutter": "setShutterDevice", "Focus": "setFocusDevice"}

    def setProperty(self, label, name, value):
        if label == "Core" and name in (*self.roles, "XYStage"):
            getattr(self, self.roles.get(name, "setXYStageDevice"))(value)
        elif label in ("CamA", "CamB") and name == "Exposure":
            self.setExposure(label, float(value))
        else:
            super().setProperty(label, name, value)

    def setConfig(self, group, preset):
        for label, name, value in self.getConfigData(group, preset):
            self.setProperty(label, name, value)
        self._last_config = (group, preset)

    def setShutterDevice(self, label):
        before = self.getShutterDevice()
        was_open = bool(before) and before != label and self.getShutterOpen(before)
        if was_open:
            self.setShutterOpen(before, False)
        super().setShutterDevice(label)
        if was_open and label:
            self.setShutterOpen(label, True)

    def fullFocus(self):
        WITNESS.focused_at.append(round(self.getPosition(), 6))
        self.setPosition(self.getPosition() + FOCUS_CORRECTION_UM)

    def isContinuousFocusLocked(self):
        return False

    def isContinuousFocusEnabled(self):
        return False

    def enableContinuousFocus(self, enable):
        """There is none."""


class WitnessCore(CarefulCore, _DemoAsPython):
    """The core that the source uses, seen by the witness."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        WITNESS.core = self


assert issubclass(WitnessCore, CMMCorePlus)
