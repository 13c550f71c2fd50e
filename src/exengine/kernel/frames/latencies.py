"""The waiting times of frames, as a histogram of constant size."""

import math

_BINS_PER_DOUBLING = 8  # so that a percentile is at most 9 % above the true value
_PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Latencies:
    """Counts latencies in bins on a logarithmic scale.

    Examples
    --------
    >>> latencies = Latencies()
    >>> for number in range(1000):
    ...     latencies.add((number + 1) / 1e6)
    >>> summary = latencies.summary_us()
    >>> 500 <= summary["p50"] <= 545, summary["max"]
    (True, 1000)
    """

    __slots__ = ("_counts", "_most_us", "_total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._total = 0
        self._most_us = 0.0

    def add(self, seconds: float, frames: int = 1) -> None:
        """Count frames that all have the same latency, in seconds."""
        us = max(1.0, seconds * 1e6)
        bin_number = math.ceil(math.log2(us) * _BINS_PER_DOUBLING)
        self._counts[bin_number] = self._counts.get(bin_number, 0) + frames
        self._total += frames
        self._most_us = max(self._most_us, us)

    def summary_us(self) -> dict[str, int]:
        """Return ``p50``, ``p99``, ``p99.9`` and ``max``, in microseconds; empty if nothing was counted."""
        if not self._total:
            return {}
        found = {}
        left = list(_PERCENTILES.items())
        seen = 0
        for bin_number, count in sorted(self._counts.items()):
            seen += count
            upper = min(self._most_us, 2 ** (bin_number / _BINS_PER_DOUBLING))
            while left and seen >= left[0][1] * self._total:
                found[left.pop(0)[0]] = math.ceil(upper)
        return {**found, "max": math.ceil(self._most_us)}
