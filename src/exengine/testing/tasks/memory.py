"""The largest amount of memory that this process has used.

On Linux, ``getrusage`` is not used: a new process starts with the peak of its parent, so a large pytest
process would make each of its children look large.
"""

import contextlib
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def peak_mib() -> float:
    """Return the largest amount of memory that this process has used, in MiB; 0 if it is unknown."""
    if sys.platform.startswith("linux"):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:  # this module does not exist on Windows
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def forget_peak() -> float:
    """Start to measure anew, where the system can; return the peak in MiB from which growth is measured."""
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5", encoding="ascii")  # resets VmHWM to the current size
    return peak_mib()
