"""A core that keeps its first failure. Imports pymmcore-plus: import it only inside functions."""

import functools
from collections.abc import Callable
from typing import Any

from pymmcore_plus import CMMCorePlus

from exengine.errors import SourceError


def _remembering(name: str, what: str) -> Callable[..., Any]:
    original = getattr(CMMCorePlus, name)

    @functools.wraps(original)
    def method(self: "_RememberingCore", *args: Any, **options: Any) -> Any:
        try:
            return getattr(super(_RememberingCore, self), name)(*args, **options)
        except Exception as error:
            if self.failure is None:
                self.failure = SourceError(f"{what}: {error}")
                self.failure.__cause__ = error
            raise

    return method


class _RememberingCore(CMMCorePlus):
    """Keeps the first failure; without the changes of :class:`CarefulCore`.

    It is a separate class, so that tests can put another core below it, such as one with Python devices.
    """

    failure: SourceError | None = None

    setCameraDevice = _remembering("setCameraDevice", "the camera could not be selected")
    setConfig = _remembering("setConfig", "the channel could not be set")
    setExposure = _remembering("setExposure", "the exposure time could not be set")
    setXYPosition = _remembering("setXYPosition", "the XY stage could not be moved")
    setPosition = _remembering("setPosition", "a stage could not be moved")
    setProperty = _remembering("setProperty", "a device property could not be set")
    setROI = _remembering("setROI", "the region of interest could not be set")
    clearROI = _remembering("clearROI", "the region of interest could not be set")
    setSLMImage = _remembering("setSLMImage", "the SLM could not be set")
    setSLMPixelsTo = _remembering("setSLMPixelsTo", "the SLM could not be set")
    setSLMExposure = _remembering("setSLMExposure", "the SLM could not be set")
    displaySLMImage = _remembering("displaySLMImage", "the SLM could not be set")
    snapImage = _remembering("snapImage", "the camera could not take the image")


class CarefulCore(_RememberingCore):
    """A core that keeps its first failure, for an engine that catches failures.

    Attributes
    ----------
    failure : SourceError or None
        The first failure; its ``__cause__`` is the exception of the core.
    """

    def setShutterOpen(self, *args: Any) -> None:
        """Open or close a shutter; closing does nothing if there is none.

        The engine closes the shutter after each image, even if the microscope has none.
        """
        if len(args) > 1 or args[0] or self.getShutterDevice():
            super().setShutterOpen(*args)
