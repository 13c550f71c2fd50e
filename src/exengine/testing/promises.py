"""The labels of the promises made by backends and sources, and the decorator that marks tests with them.

This module has no heavy imports, because the results module and the documentation build import it.
"""

import functools
from collections.abc import Callable
from typing import Any

from exengine.kernel.registry.codes import CONFORMANCE

Test = Callable[..., None]

PROMISES = {
    "P1": "every frame that was put can be read from any thread, bit for bit",
    "P2": "a refused put changes nothing",
    "P3": "changing an array or metadata after put does not change the stored frame",
    "P4": "a frame is never replaced",
    "P5": "put after finish or close raises an error and changes no file",
    "P6": "once put returns, the frame survives the death of the process",
    "P7": "the first I/O error is permanent and reaches the caller",
    "P8": "arrays are stored correctly, or refused before anything is written",
    "P9": "metadata can be any JSON value, and is returned exactly as it was put",
    "R1": "reading at coordinates without a frame raises CoordinatesNotFoundError; `in` never raises",
    "R2": "missing data is never returned as zeros",
    "R3": "another process can read while this one writes, and sees only complete frames",
    "R4": "the order of frames is the same after reopening, with any hash seed",
    "F1": "after flush() all frames survive the death of the process",
    "F2": "after flush(durable=True) all frames survive power loss",
    "N1": "finish and close are idempotent",
    "N2": "a finished dataset is the same after reopening",
    "N3": "a finished dataset survives power loss",
    "N4": "the status of a dataset shows how it ended",
    "N5": "an unfinished dataset keeps every written frame",
    "N6": "the summary metadata is the same after reopening",
    "O1": "an option works as its annotation states: it takes effect, and no accepted value damages data",
    "C1": "opening any path returns a dataset with a status, or raises an ExEngineError",
    "C2": "a damaged frame is reported, never returned",
    "C3": "opening an incomplete dataset writes nothing",
    "C4": "after an I/O error and close, every acknowledged frame can still be read in a new process",
    "C5": "a forked process that exits changes nothing and does not crash",
    "C6": "foreign readers see every acknowledged frame, even right after the writer was killed",
    "C7": "a failed attempt to open a dataset leaves nothing open",
    "D1": "a new dataset is never created in or over an existing one",
    "D2": "a dataset has only one writer",
    "D3": "no name can lead outside the dataset",
    "D4": "overwriting deletes an ExEngine dataset and nothing else",
    "D5": "reading a dataset never unpickles it",
}
"""The promises of a storage backend by label, in the order in which the results list them."""

SOURCE_PROMISES = {
    "S1": "every field of the sequence either visibly affects the frames or is refused before the run",
    "S2": "settings are restored however the run ends; unless the run is complete, shutters are closed",
    "S3": "a sequence that is impossible according to its plan is refused before the run",
}
"""The promises of a frame source by label, in the order in which the results list them."""


class PromiseBrokenError(AssertionError):
    """Raised when a test finds that a promise is broken.

    Parameters
    ----------
    label : str
        The label of the broken promise, a key of ``PROMISES``. If it is empty, all promises that the test is
        marked with are broken.
    message : str
        A description of the fault.
    """

    def __init__(self, label: str, message: str) -> None:
        super().__init__(f"{label}: {message}" if label else message)
        self.label = label


class NotPromised(Exception):  # noqa: N818 - an outcome, not an error
    """Raised when the backend does not make the tested promise and refuses the operation as documented."""


class NotRun(Exception):  # noqa: N818 - an outcome, not an error
    """Raised when the test cannot be run in this environment; the message states the reason."""


def promise(*labels: str, code: str = "") -> Callable[[Test], Test]:
    """Mark a test of the kit with the promises that it tests.

    If the test raises ``NotPromised``, it passes, and the message is stored in ``subject.not_promised_by``.
    If it raises ``NotRun``, it is skipped.

    Parameters
    ----------
    *labels : str
        Keys of ``PROMISES`` or ``SOURCE_PROMISES``.
    code : str, optional
        A key of ``CONFORMANCE``, which is reported if the first of these promises is broken.

    Examples
    --------
    >>> @promise("P4")
    ... def test_a_frame_is_never_replaced(self, subject) -> None: ...
    >>> marks_of(test_a_frame_is_never_replaced)
    (('P4',), '')
    """
    unknown = [*(set(labels) - {*PROMISES, *SOURCE_PROMISES}), *({code} - {"", *CONFORMANCE})]
    if unknown or not labels:
        raise ValueError(f"unknown promises or codes: {unknown}")

    def mark(test: Test) -> Test:
        @functools.wraps(test)
        def marked(self: Any, subject: Any, **fixtures: Any) -> None:
            try:
                test(self, subject, **fixtures)
            except NotPromised as outcome:
                subject.not_promised_by = str(outcome)
            except NotRun as outcome:
                import pytest

                pytest.skip(str(outcome))

        marked.__dict__["exengine_promise"] = (labels, code)
        return marked

    return mark


def marks_of(test: object) -> tuple[tuple[str, ...], str] | None:
    """Return the labels and the code of a test, or None if the test is not marked with a promise."""
    return getattr(test, "exengine_promise", None)
