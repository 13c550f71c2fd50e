"""The bounds of a data handler, and the policies for a full queue and for a failing process function."""

from dataclasses import dataclass
from typing import Literal

from exengine.kernel.errors import OptionError
from exengine.kernel.wording import did_you_mean

WHEN_FULL = ("block", "drop", "error")
ON_PROCESS_ERROR = ("stop", "skip", "raw")
MOST_WORKERS = 64


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The options that the parts of a data handler share; see :class:`exengine.DataHandler`.

    Raises
    ------
    OptionError
        If a value is not allowed.
    """

    max_pending: int = 2**30
    max_frames: int | None = None
    when_full: Literal["block", "drop", "error"] = "block"
    block_timeout_s: float | None = None
    workers: int = 1
    on_process_error: Literal["stop", "skip", "raw"] = "stop"
    sync_every_s: float | None = None

    def __post_init__(self) -> None:
        for name, most in (("max_pending", None), ("max_frames", None), ("workers", MOST_WORKERS)):
            value = getattr(self, name)
            if value is None and name == "max_frames":
                continue
            if type(value) is not int or value < 1 or (most is not None and value > most):
                allowed = f"an int from 1 to {most}" if most else "a positive int"
                raise OptionError(f"{name} must be {allowed}, got {value!r:.60}")
        for name in ("block_timeout_s", "sync_every_s"):
            time_s = getattr(self, name)
            if time_s is not None and (
                isinstance(time_s, bool) or not isinstance(time_s, int | float) or not time_s > 0
            ):
                raise OptionError(f"{name} must be a positive number of seconds, got {time_s!r:.60}")
        for name, choices in (("when_full", WHEN_FULL), ("on_process_error", ON_PROCESS_ERROR)):
            value = getattr(self, name)
            if value not in choices:
                near = did_you_mean(str(value), choices)
                raise OptionError(f"{name} must be one of {', '.join(choices)}; got {value!r:.60}{near}")

    @property
    def frame_limit(self) -> int:
        """The maximum number of frames in flight."""
        return 2**63 if self.max_frames is None else self.max_frames
