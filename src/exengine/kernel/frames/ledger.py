"""The ledger of an acquisition: a record of every frame (promise N4).

It has two sides, each of which must balance. Incoming: offered = passed on + dropped + discarded + failed.
Outgoing: produced = stored + failed. Frames that were not stored are listed with their coordinates and the
reason. The ledger also records gaps in the camera's own counter, late frames, and how long frames waited to
be stored.
"""

import itertools
from typing import Any

from exengine.kernel.frames.latencies import Latencies
from exengine.kernel.wording import html_table

MAX_NAMED = 1000
"""The maximum number of unstored frames that are listed; any others are only counted."""

_MOST_SHOWN = 10  # maximum number of frames in the table for notebooks
_MOST_OF_A_REASON = 1000  # maximum number of characters
_MOST_OF_A_POSITION = 200
_MOST_AXES = 64
_INT_LIMIT = 2**63

Loss = tuple[dict[str, int | str], str]
"""The coordinates of a frame that was not stored, and the reason."""


class Ledger:
    """Counts of frames, as plain ints, and a list of frames that were not stored.

    Attributes
    ----------
    offered : int
        Frames that the source delivered.
    dropped : int
        Frames that were dropped because the queue was full.
    discarded : int
        Accepted frames that the process function deliberately did not pass on.
    failed_in : int
        Frames lost to an error in the process function, or rejected when they were offered. A rejected frame
        that is put again and accepted is counted only once, as accepted.
    produced : int
        Frames that the process function returned; without a process function, all frames passed on.
    stored : int
        Frames for which the storage's ``put`` has returned.
    failed_out : int
        Frames that the storage rejected or could not write.
    stored_bytes : int
        The size of the stored frames' pixel data, in bytes.
    not_stored : list of (dict, str)
        The coordinates of the first frames that were dropped or failed, each with the reason.
    passed_raw : list of (dict, str)
        The coordinates of the first frames that were stored as they arrived because the process function
        failed, each with the reason.
    gaps : list of dict
        Gaps in the image numbers of a camera, where the camera or its driver lost frames. The keys are
        ``camera``, ``after`` and ``before`` (the coordinates of the frames around the gap), and ``missing``
        (the number of lost frames).
    stored_before : int
        Frames that earlier runs had stored, if this run continues a dataset. No other count includes them.
    skipped_by_plan : int
        Combinations of planned positions for which the plan contains no frame.
    late : list of (dict, float)
        The first frame of each late time point, and its delay in seconds.
    stalled : int
        Frames for which the source had to wait, because the queue was full.
    stalled_s : float
        The total duration of these waits, in seconds.
    most_frames, most_bytes : int
        The largest number of frames in flight, and the largest amount of pixel data in flight, in bytes.
    """

    __slots__ = (
        "discarded",
        "dropped",
        "failed_in",
        "failed_out",
        "gaps",
        "late",
        "latencies",
        "most_bytes",
        "most_frames",
        "not_stored",
        "offered",
        "passed_on",
        "passed_raw",
        "produced",
        "skipped_by_plan",
        "stalled",
        "stalled_s",
        "stored",
        "stored_before",
        "stored_bytes",
    )

    def __init__(self) -> None:
        self.offered = self.passed_on = self.dropped = self.discarded = self.failed_in = 0
        self.produced = self.stored = self.failed_out = self.stored_bytes = 0
        self.stored_before = 0
        self.not_stored: list[tuple[dict[str, int | str], str]] = []
        self.passed_raw: list[tuple[dict[str, int | str], str]] = []
        self.gaps: list[dict[str, Any]] = []
        self.late: list[tuple[dict[str, int | str], float]] = []
        self.skipped_by_plan = self.stalled = self.most_frames = self.most_bytes = 0
        self.stalled_s = 0.0
        self.latencies = Latencies()  # from the arrival of a frame until it was stored

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        Ledger.__init__(self)  # a pickle from an earlier version has fewer fields
        for name, value in state[1].items():
            setattr(self, name, value)

    @property
    def failed(self) -> int:
        """The number of frames lost to errors, on both sides of the ledger."""
        return self.failed_in + self.failed_out

    @property
    def balanced(self) -> bool:
        """Whether every frame is accounted for; False while frames are in flight."""
        taken = self.passed_on + self.dropped + self.discarded + self.failed_in
        return self.offered == taken and self.produced == self.stored + self.failed_out

    @property
    def complete(self) -> bool:
        """Whether every frame is accounted for and none was dropped or failed."""
        return self.balanced and not self.dropped and not self.failed

    @property
    def latency_us(self) -> dict[str, int]:
        """The time from the arrival of a frame until it was stored, in microseconds.

        The keys are ``p50``, ``p99``, ``p99.9`` and ``max``; the dict is empty if no frame was stored. Every
        frame of a batch is counted with the time of the oldest frame in the batch.
        """
        return self.latencies.summary_us()

    def name_loss(self, coordinates: object, reason: str) -> "Loss | None":
        """Record the coordinates of a frame that was not stored, and the reason.

        Parameters
        ----------
        coordinates : object
            The coordinates as passed, whether valid or not. An invalid position is converted to a string, and
            a long position is truncated.
        reason : str
            The reason, which is truncated if it is long.

        Returns
        -------
        tuple or None
            The new entry of ``not_stored``; None if the list is full.
        """
        if len(self.not_stored) >= MAX_NAMED:
            return None
        entry = _as_json(coordinates), _plain(reason, _MOST_OF_A_REASON)
        self.not_stored.append(entry)
        return entry

    def name_raw(self, coordinates: object, reason: str) -> None:
        """Record a frame that was passed on unprocessed, and the reason; see :meth:`name_loss`."""
        if len(self.passed_raw) < MAX_NAMED:
            self.passed_raw.append((_as_json(coordinates), _plain(reason, _MOST_OF_A_REASON)))

    def name_gap(self, camera: str, after: object, before: object, missing: int) -> None:
        """Record a gap in the image numbers of a camera, between two frames.

        Parameters
        ----------
        camera : str
            The label of the camera; empty if the label is unknown.
        after, before : object
            The coordinates of the last frame before the gap and of the first frame after it.
        missing : int
            The number of missing frames.
        """
        if len(self.gaps) < MAX_NAMED:
            self.gaps.append(
                {
                    "camera": _plain(camera, _MOST_OF_A_POSITION),
                    "after": _as_json(after),
                    "before": _as_json(before),
                    "missing": missing,
                }
            )

    def name_late(self, coordinates: object, delay_s: float) -> None:
        """Record a frame that arrived later than planned, and its delay in seconds."""
        if len(self.late) < MAX_NAMED:
            self.late.append((_as_json(coordinates), round(delay_s, 3)))

    def forget_refusals(self, times: int, entries: "list[Loss]") -> None:
        """Remove the record of a frame that was rejected, once or several times, and then accepted.

        Parameters
        ----------
        times : int
        entries : list
            The entries that :meth:`name_loss` returned for the frame.
        """
        forgotten = set(map(id, entries))
        self.not_stored = [loss for loss in self.not_stored if id(loss) not in forgotten]
        self.offered -= times
        self.failed_in -= times

    def to_dict(self) -> dict[str, Any]:
        """Return the ledger as a dict of JSON values."""
        return {
            "offered": self.offered,
            "passed_on": self.passed_on,
            "dropped": self.dropped,
            "discarded": self.discarded,
            "produced": self.produced,
            "stored": self.stored,
            "failed": self.failed,
            "stored_bytes": self.stored_bytes,
            "stored_before": self.stored_before,
            "balanced": self.balanced,
            "not_stored": [{"coordinates": where, "reason": reason} for where, reason in self.not_stored],
            "passed_raw": [{"coordinates": where, "reason": reason} for where, reason in self.passed_raw],
            "gaps": self.gaps,
            "skipped_by_plan": self.skipped_by_plan,
            "late": [{"coordinates": where, "delay_s": delay_s} for where, delay_s in self.late],
            "stalled": {"frames": self.stalled, "seconds": round(self.stalled_s, 3)},
            "latency_us": self.latency_us,
            "high_water": {"frames": self.most_frames, "bytes": self.most_bytes},
        }

    def __repr__(self) -> str:
        return (
            f"Ledger(offered={self.offered}, stored={self.stored}, dropped={self.dropped}, "
            f"discarded={self.discarded}, failed={self.failed})"
        )

    def _repr_html_(self) -> str:
        """Return a table for notebooks: the counts, and the first frames that were not stored."""
        names = ("offered", "stored", "dropped", "discarded", "failed")
        rows = [(name, f"{getattr(self, name):,}") for name in names]
        state = "complete" if self.complete else "balanced" if self.balanced else "frames are in flight"
        rows += [(f"not stored: {where}", reason) for where, reason in self.not_stored[:_MOST_SHOWN]]
        if len(self.not_stored) > _MOST_SHOWN:
            rows.append(("not stored", f"{len(self.not_stored) - _MOST_SHOWN} more"))
        return html_table(f"Ledger: {state}", rows)


def _as_json(coordinates: Any) -> dict[str, int | str]:
    """Return coordinates of any type as JSON for a manifest; an empty dict if they are not a mapping."""
    try:
        return {
            _plain(axis, _MOST_OF_A_POSITION): value
            if type(value) is int and -_INT_LIMIT <= value < _INT_LIMIT
            else _plain(value, _MOST_OF_A_POSITION)
            for axis, value in itertools.islice(coordinates.items(), _MOST_AXES)
        }
    except Exception:  # not a mapping, or a mapping that raises an error
        return {}


def _plain(value: object, most: int) -> str:
    """Return a value as text that can be encoded, truncated to ``most`` characters."""
    if not isinstance(value, str):
        try:
            value = repr(value)
        except Exception:  # for example, an int with too many digits to print
            value = f"<{type(value).__name__}>"
    text = value if len(value) <= most else f"{value[:most]}..."
    return text.encode(errors="backslashreplace").decode()
