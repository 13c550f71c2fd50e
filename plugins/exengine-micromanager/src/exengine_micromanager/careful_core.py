"""A core that records its first failure.

This module imports pymmcore-plus, so import it only inside functions.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

from pymmcore_plus import CMMCorePlus

from exengine.errors import SourceError

_STEPS = {
    "setCameraDevice": "the camera could not be selected",
    "setConfig": "the channel could not be set",
    "setExposure": "the exposure time could not be set",
    "setXYPosition": "the XY stage could not be moved",
    "setPosition": "a stage could not be moved",
    "setProperty": "a device property could not be set",
    "setROI": "the region of interest could not be set",
    "clearROI": "the region of interest could not be set",
    "setSLMImage": "the SLM could not be set",
    "setSLMPixelsTo": "the SLM could not be set",
    "setSLMExposure": "the SLM could not be set",
    "displaySLMImage": "the SLM could not be set",
    "snapImage": "the camera could not acquire the image",
}
"""The core methods whose failures are recorded, each with the beginning of its error message."""


def _failure(name: str, error: Exception) -> SourceError:
    failure = SourceError(f"{_STEPS[name]}: {error}")
    failure.__cause__ = error
    return failure


def _remembering(name: str) -> Callable[..., Any]:
    original = getattr(CMMCorePlus, name)

    @functools.wraps(original)
    def method(self: "_RememberingCore", *args: Any, **options: Any) -> Any:
        try:
            return getattr(super(_RememberingCore, self), name)(*args, **options)
        except Exception as error:
            if self.failure is None:
                self.failure = _failure(name, error)
            raise

    return method


class _RememberingCore(CMMCorePlus):
    """A core that records its first failure, without the other changes in :class:`CarefulCore`.

    This is a separate class so that tests can replace its base class with another core, such as a core with
    Python devices.
    """

    failure: SourceError | None = None

    # The metaclass of the core does not allow its methods to be replaced after the class has been created.
    vars().update({name: _remembering(name) for name in _STEPS})


class CarefulCore(_RememberingCore):
    """A core that records its first failure, for use with an engine that catches exceptions.

    Attributes
    ----------
    failure : SourceError or None
        The first failure. Its ``__cause__`` is the exception that the core raised.
    """

    def setShutterOpen(self, *args: Any) -> None:
        """Open or close a shutter. Closing has no effect if no shutter is selected.

        The engine closes the shutter after each image, even if the microscope has no shutter.
        """
        if len(args) > 1 or args[0] or self.getShutterDevice():
            super().setShutterOpen(*args)


class CoreView:
    """Wraps a user's own core and records its first failure, as :class:`CarefulCore` does.

    The wrapper does not change the core and does not keep it alive. All other attributes are those of the
    core.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus

    Attributes
    ----------
    failure : SourceError or None
        The first failure, which the failed method also raised. Its ``__cause__`` is the core's exception.
    """

    failure: SourceError | None

    def __init__(self, core: CMMCorePlus) -> None:
        object.__setattr__(self, "_core_ref", weakref.ref(core))
        object.__setattr__(self, "failure", None)

    def __getattr__(self, name: str) -> Any:
        core = object.__getattribute__(self, "_core_ref")()
        if core is None:
            raise SourceError("the core of this engine no longer exists; keep a reference to the core")
        value = getattr(core, name)
        if name not in _STEPS:
            return value

        @functools.wraps(value)
        def method(*args: Any, **options: Any) -> Any:
            try:
                return value(*args, **options)
            except Exception as error:
                failure = _failure(name, error)
                if self.failure is None:
                    object.__setattr__(self, "failure", failure)
                raise failure from error

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "failure":
            object.__setattr__(self, name, value)
        else:
            setattr(object.__getattribute__(self, "_core_ref")(), name, value)

    def setShutterOpen(self, *args: Any) -> None:
        """Open or close a shutter. Closing has no effect if no shutter is selected."""
        if len(args) > 1 or args[0] or self.getShutterDevice():
            self.__getattr__("setShutterOpen")(*args)
