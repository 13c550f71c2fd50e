"""A core that keeps its first failure.

This module imports pymmcore-plus, so import it only inside functions.
"""

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
    """A core that keeps its first failure, without the other changes in :class:`CarefulCore`.

    This is a separate class so that tests can replace its base class with another core, such as a core with
    Python devices.
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
    snapImage = _remembering("snapImage", "the camera could not acquire the image")


class CarefulCore(_RememberingCore):
    """A core that keeps its first failure, for use with an engine that catches exceptions.

    Attributes
    ----------
    failure : SourceError or None
        The first failure. Its ``__cause__`` is the exception that the core raised.
    """

    def setShutterOpen(self, *args: Any) -> None:
        """Open or close a shutter. Closing has no effect without a shutter.

        The engine closes the shutter after each image, even if the microscope has no shutter.
        """
        if len(args) > 1 or args[0] or self.getShutterDevice():
            super().setShutterOpen(*args)
