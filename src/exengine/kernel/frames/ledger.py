"""The ledger of an acquisition: a record of every frame (promise N4).

It has two sides, each of which must balance. Incoming: offered = passed on + dropped + discarded + failed.
Outgoing: produced = stored + failed. Frames that were not stored are listed with their coordinates and the
reason.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from exengine.kernel.wording import html_table

MAX_NAMED = 1000
"""The maximum number of unstored frames that are listed; any others are only counted."""

_MOST_SHOWN = 10  # frames in the table for notebooks
_MOST_OF_A_REASON = 1000  # characters
_MOST_OF_A_POSITION = 200
_MOST_AXES = 64
_INT_LIMIT = 2**63


class Ledger:
    """Counts of frames, as plain ints, and a list of frames that were not stored.

    Attributes
    ----------
    offered : int
        Frames that the source delivered.
    dropped : int
        Frames that were rejected by a policy that drops frames.
    discarded : int
        Frames that were accepted but that the process function deliberately did not pass on.
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
    """

    __slots__ = (
        "discarded",
        "dropped",
        "failed_in",
        "failed_out",
        "not_stored",
        "offered",
        "passed_on",
        "produced",
        "stored",
        "stored_bytes",
    )

    def __init__(self) -> None:
        self.offered = self.passed_on = self.dropped = self.discarded = self.failed_in = 0
        self.produced = self.stored = self.failed_out = self.stored_bytes = 0
        self.not_stored: list[tuple[dict[str, int | str], str]] = []

    @property
    def failed(self) -> int:
        """Frames lost to an error, on either side of the ledger."""
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

    def name_loss(self, coordinates: object, reason: str) -> None:
        """Record the coordinates of a frame that was not stored, and the reason.

        Parameters
        ----------
        coordinates : object
            The coordinates as passed, whether valid or not. An invalid position is kept as text, and a long
            position is truncated.
        reason : str
            The reason, which is truncated if it is long.
        """
        if len(self.not_stored) < MAX_NAMED:
            self.not_stored.append((_as_json(coordinates), _plain(reason, _MOST_OF_A_REASON)))

    def forget_refusals(self, coordinates: Mapping[str, int | str]) -> None:
        """Remove the record of a rejected frame that was put again and accepted."""
        given = _as_json(coordinates)
        kept = [loss for loss in self.not_stored if loss[0] != given]
        self.offered -= len(self.not_stored) - len(kept)
        self.failed_in -= len(self.not_stored) - len(kept)
        self.not_stored = kept

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
            "balanced": self.balanced,
            "not_stored": [{"coordinates": where, "reason": reason} for where, reason in self.not_stored],
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
    """Return text that can be encoded, truncated to ``most`` characters."""
    if not isinstance(value, str):
        try:
            value = repr(value)
        except Exception:  # for example, an int with too many digits to print
            value = f"<{type(value).__name__}>"
    text = value if len(value) <= most else f"{value[:most]}..."
    return text.encode(errors="backslashreplace").decode()
