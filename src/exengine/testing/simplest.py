"""Puts one frame and reads it back before any test of the kit runs.

If this fails, most tests of the kit would fail for the same cause. The kit then reports it once, as a broken
P1 with the place in the backend's code, and does not run the other tests.
"""

import traceback
from pathlib import Path
from typing import Any

import pytest

from exengine.kernel.errors import describe
from exengine.testing.promises import PromiseBrokenError
from exengine.testing.subject import Subject

_NOT_RUN = "the simplest put failed, see P1"
_MOST_PLACES = 4
_failed: set[tuple[Any, ...]] = set()
_worked: set[tuple[Any, ...]] = set()


def try_simplest_put(subject: Subject) -> None:
    """Put one frame and read it back, once for each backend and set of options.

    Raises
    ------
    PromiseBrokenError
        If this fails, when it is tried.
    pytest.skip.Exception
        If it failed earlier.
    """
    # A fixture returns a new function for each test, with the same code.
    made_by = getattr(subject.factory, "__code__", subject.factory)
    tried = (subject.cls, made_by, repr(sorted(subject.options.items())))
    if tried in _worked:
        return
    if tried in _failed:
        pytest.skip(_NOT_RUN)
    try:
        axes = subject.axes(0)
        storage = subject.create()
        storage.put(axes, subject.frame(axes), subject.metadata_value)
        storage.get_data(axes)
        storage.get_metadata(axes)
    except Exception as error:
        _failed.add(tried)
        message = f"the simplest put failed: {describe(error)}; {places(error)}"
        raise PromiseBrokenError("P1", message) from error
    finally:
        subject.close_all()
    _worked.add(tried)


def places(error: BaseException) -> str:
    """Return the innermost lines of code that an exception and its causes passed through, on one line."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    frames = [
        f'{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}: "{frame.line}"'
        for frame in traceback.extract_tb(first.__traceback__)
        if frame.filename != __file__
    ][-_MOST_PLACES:]
    return " > ".join(frames)
