"""The ledger of an acquisition: the account of every frame (promise N4).

It has two sides, each of which must balance. In: offered = passed on + dropped + discarded + failed. Out:
produced = stored + failed. A frame that was not stored is named with its coordinates and the reason.
"""

import itertools
from collections.abc import Mapping
from typing import Any

MAX_NAMED = 1000
"""Largest number of unstored frames that are named; the others are only counted."""

_MOST_OF_A_REASON = 1000  # characters
_MOST_OF_A_POSITION = 200
_MOST_AXES = 64
_INT_LIMIT = 2**63


class Ledger:
    """Counts of frames; attributes are plain ints.

    Attributes
    ----------
    offered : int
        Frames that the source delivered.
    dropped : int
        Frames that were not accepted, by a policy that drops frames.
    discarded : int
        Frames that were accepted, and deliberately not passed on by the process function.
    failed_in : int
        Frames lost to an error in the process function, or rejected when they were offered; a frame that is
        put again and accepted counts once.
    produced : int
        Frames that the process function returned; without one, all frames passed on.
    stored : int
        Frames for which ``put`` of the storage has returned.
    failed_out : int
        Frames that the storage rejected or could not write.
    stored_bytes : int
        Size of the pixels of the stored frames.
    not_stored : list of (dict, str)
        Coordinates and reason of the first frames that were dropped or failed.
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
        """Frames lost to an error, on the way in or out."""
        return self.failed_in + self.failed_out

    @property
    def balanced(self) -> bool:
        """Whether every frame is accounted for; False while frames are in flight."""
        taken = self.passed_on + self.dropped + self.discarded + self.failed_in
        return self.offered == taken and self.produced == self.stored + self.failed_out

    @property
    def complete(self) -> bool:
        """Whether nothing was dropped and nothing failed."""
        return self.balanced and not self.dropped and not self.failed

    def name_loss(self, coordinates: object, reason: str) -> None:
        """Record the coordinates of a frame that was not stored, and the reason.

        Parameters
        ----------
        coordinates : object
            The coordinates as passed, valid or not: an invalid position is kept as text, a long one is
            truncated.
        reason : str
            The reason; a long one is truncated.
        """
        if len(self.not_stored) < MAX_NAMED:
            self.not_stored.append((_as_json(coordinates), _plain(reason, _MOST_OF_A_REASON)))

    def forget_refusals(self, coordinates: Mapping[str, int | str]) -> None:
        """Undo the record of a rejected frame: it was put again, and accepted."""
        given = _as_json(coordinates)
        kept = [loss for loss in self.not_stored if loss[0] != given]
        self.offered -= len(self.not_stored) - len(kept)
        self.failed_in -= len(self.not_stored) - len(kept)
        self.not_stored = kept

    def to_dict(self) -> dict[str, Any]:
        """Return the ledger as JSON."""
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


def _as_json(coordinates: Any) -> dict[str, int | str]:
    """Return coordinates of any type as JSON for a manifest; an empty dict if they are not a mapping."""
    try:
        return {
            _plain(axis, _MOST_OF_A_POSITION): value
            if type(value) is int and -_INT_LIMIT <= value < _INT_LIMIT
            else _plain(value, _MOST_OF_A_POSITION)
            for axis, value in itertools.islice(coordinates.items(), _MOST_AXES)
        }
    except Exception:  # not a mapping, or one that raises
        return {}


def _plain(value: object, most: int) -> str:
    """Return a text that can be encoded, truncated to ``most`` characters."""
    if not isinstance(value, str):
        try:
            value = repr(value)
        except Exception:  # such as a number with too many digits
            value = f"<{type(value).__name__}>"
    text = value if len(value) <= most else f"{value[:most]}..."
    return text.encode(errors="backslashreplace").decode()
