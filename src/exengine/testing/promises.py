"""The labels of the storage promises and the codes of the capabilities, and how a test names them.

This module imports nothing heavy: the pytest plugin, the results and the documentation read it.
"""

import functools
from collections.abc import Callable
from typing import Any

from exengine.kernel.registry.codes import CONFORMANCE

Test = Callable[..., None]

PROMISES = {
    "P1": "what was put is there, bit-equal, from any thread",
    "P2": "a put that was refused has changed nothing",
    "P3": "changing an array or metadata afterwards changes nothing stored",
    "P4": "a frame is never replaced",
    "P5": "put after finish or close raises, and no file changes",
    "P6": "put returns when the frame survives the death of the process",
    "P7": "the first I/O error stays, and reaches the caller",
    "P8": "arrays are stored right, or refused before anything is written",
    "P9": "metadata is any JSON value, and comes back as it was put",
    "R1": "coordinates that hold nothing raise CoordinatesNotFoundError; `in` never raises",
    "R2": "missing data is never returned as zeros",
    "R3": "another process reads while this one writes, and sees whole frames only",
    "R4": "the order is the same after reopening, under any hash seed",
    "F1": "after flush() all frames survive the death of the process",
    "F2": "after flush(durable=True) all frames survive power loss",
    "N1": "finish and close are idempotent",
    "N2": "a finished dataset reopens equal",
    "N3": "a finished dataset survives power loss",
    "N4": "the dataset says how it ended",
    "N5": "a dataset that was not finished keeps every written frame",
    "C1": "opening anything ends with a status or with an exception of ours",
    "C2": "a damaged frame is reported, never returned",
    "C3": "opening an incomplete dataset writes nothing",
    "D1": "a new dataset never lands on an old one",
    "D2": "one writer per dataset",
    "D3": "names never reach outside the dataset",
    "D4": "overwriting deletes a dataset of ExEngine, and nothing else",
}
"""Label -> what is promised, in the order of the results."""

SOURCE_PROMISES = {
    "S1": "every field of the sequence is carried out or refused before the run, and the frames say so",
    "S2": "settings are as before after every end; after any but a complete one, shutters are closed",
    "S3": "what the plan shows to be impossible is refused before the run",
}
"""Label -> what a frame source promises."""

NEED_FAULTS = {
    "N3": "only a loss of power shows it: tests/campaigns/power_loss.py in ExEngine's repository tests it, "
    "not this kit"
}
"""Promises that the kit cannot test by itself, and why."""


class PromiseBrokenError(AssertionError):
    """A test found that a promise is not kept.

    Parameters
    ----------
    label : str
        Of the promise: a key of ``PROMISES``; empty for the one that the test names itself.
    message : str
        What was found.
    """

    def __init__(self, label: str, message: str) -> None:
        super().__init__(f"{label}: {message}" if label else message)
        self.label = label


class NotPromised(Exception):  # noqa: N818 - an outcome, no error
    """The backend does not promise this, and its documented refusal was seen."""


class NotRun(Exception):  # noqa: N818 - an outcome, no error
    """The test cannot be run here; the message says why."""


def promise(*labels: str, code: str = "") -> Callable[[Test], Test]:
    """Mark a test of the kit with the promises that it is about.

    The test may raise ``NotPromised``: then it passes, and ``subject.not_promised_by`` says what it
    raised. With ``NotRun`` it is skipped.

    Parameters
    ----------
    *labels : str
        Keys of ``PROMISES``.
    code : str, optional
        Key of ``CONFORMANCE``: what is reported when the first of the promises is broken.

    Examples
    --------
    >>> @promise("P4")
    ... def test_a_frame_is_never_replaced(self, subject) -> None: ...
    >>> marks_of(test_a_frame_is_never_replaced)
    (('P4',), '')
    """
    unknown = [*(set(labels) - {*PROMISES, *SOURCE_PROMISES}), *({code} - {"", *CONFORMANCE})]
    if unknown or not labels:
        raise ValueError(f"no such promise or code: {unknown}")

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
    """Return the labels and the code of a test; None for a test that is not about promises."""
    return getattr(test, "exengine_promise", None)
