"""Loads one plugin: imports its target, checks the class, and turns every failure into an outcome.

Only the user's interrupt is raised to the caller. A ``KeyboardInterrupt`` or ``SystemExit`` raised by a
plugin is treated as a fault in the plugin.
"""

import contextlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from exengine.kernel.errors import describe
from exengine.kernel.registry.names import SOURCES_GROUP
from exengine.kernel.registry.records import Outcome, broken

if TYPE_CHECKING:
    from exengine.kernel.data_storage_base import DataStorage
    from exengine.kernel.frame_source_base import FrameSource

_MOST_OUTPUT = 10_000  # maximum number of characters
_MOST_TRACEBACK = 20_000


class Imported(NamedTuple):
    """The object that an entry point names, or the reason why it could not be imported.

    Attributes
    ----------
    value : object
        The imported object; unspecified if the import failed.
    fault : Outcome or None
        The outcome of a failed import; None if the import succeeded.
    output : str
        Text that the plugin printed while it was imported.
    """

    value: Any
    fault: Outcome | None
    output: str


def base_class(group: str) -> "type[DataStorage] | type[FrameSource]":
    """Return the base class for plugins in a group."""
    if group == SOURCES_GROUP:
        from exengine.kernel.frame_source_base import FrameSource

        return FrameSource
    from exengine.kernel.data_storage_base import DataStorage

    return DataStorage


def load_class(target: str, group: str) -> Outcome:
    """Import a plugin class, and check that it meets the contract and is documented.

    Parameters
    ----------
    target : str
        A valid target, in the form ``module:Class``.
    group : str
        Group of the entry point.

    Raises
    ------
    KeyboardInterrupt
        If the user pressed Ctrl-C, even if the plugin suppressed the interrupt.
    """
    from exengine.kernel.registry.class_checks import check_class

    with user_interrupt() as interrupted:
        value, fault, output = import_target(target, interrupted)
        findings = () if fault else tuple(check_class(value, base_class(group)))
    if interrupted():
        raise KeyboardInterrupt
    if fault:
        return fault
    if findings:
        error = "; ".join(map(str, findings))
        return Outcome("invalid", "contract", error, findings=findings, output=output)
    return Outcome("valid", output=output, loaded=value)


def import_target(target: str, interrupted: Callable[[], bool]) -> Imported:
    """Import the object that an entry point names, and redirect the plugin's standard output to stderr.

    Parameters
    ----------
    target : str
        The target of the entry point.
    interrupted : callable
        The function that :func:`user_interrupt` provides.
    """
    import importlib
    import traceback

    module_name, _, attribute = target.partition(":")
    doing, stage = "importing", "import"
    value: Any = None
    error = details = ""
    printed = _Captured()
    try:
        with contextlib.redirect_stdout(printed):
            value = importlib.import_module(module_name)
            doing, stage = "reading", "attribute"
            for part in attribute.split("."):
                value = getattr(value, part)
    except BaseException as raised:  # SystemExit and KeyboardInterrupt from a plugin are faults too
        if interrupted():
            raise KeyboardInterrupt from raised
        error = f"{doing} {target} raised {describe(raised)}"
        details = "".join(traceback.format_exception(raised))[-_MOST_TRACEBACK:]
    output = printed.getvalue()[:_MOST_OUTPUT]
    if output:
        sys.stderr.write(output)
    return Imported(value, broken(stage, error, details, output) if error else None, output)


class _Captured(io.StringIO):
    """A text stream that a plugin cannot close."""

    def close(self) -> None:
        pass


@contextlib.contextmanager
def user_interrupt() -> Iterator[Callable[[], bool]]:
    """Watch for Ctrl-C. The context provides a function that returns whether the user has pressed it.

    A ``KeyboardInterrupt`` raised by a plugin does not change the result.

    Python handles signals only in the main thread. In any other thread, every ``KeyboardInterrupt`` comes
    from the plugin, and the function returns False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    import signal

    pressed = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        if callable(before):
            before(number, frame)

    if not callable(before):  # Python does not handle SIGINT, so Ctrl-C raises no exception
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        if signal.getsignal(signal.SIGINT) is note:  # do not replace a handler that the plugin has set
            signal.signal(signal.SIGINT, before)
