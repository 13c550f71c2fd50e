"""Acquires a time-lapse of 72 hours within seconds, while the computer's clock is changed.

The clock is injected, so that waits of the source advance it immediately. During the run, the time of day is
changed by an hour forwards and backwards, as for summer time, by days, and to a time before the dataset
began. Frames must remain in the order of acquisition, in the dataset and after reopening, and none may be
missing.

Run ``python tests/campaigns/clock_steps.py``.
"""

import argparse
import datetime
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from results import BY_DEFAULT, save
from variants import Variant, add_arguments, variant_of

import exengine
from exengine.acquisition.run import Acquisition
from exengine.frame_sources import simulated
from exengine.kernel import notifications
from exengine.kernel.storage import manifest, place

HOURS = 72
FRAME_EVERY_S = 100
STEPS = {  # hour -> number of hours by which the time of day is changed
    8: 1, 15: -1, 26: 1, 33: -1, 40: 24 * 7, 47: -24 * 30, 54: 24 * 23, 61: -0.5, 68: 0.5,
}  # fmt: skip
BEGIN = datetime.datetime(2024, 3, 30, 12, tzinfo=datetime.UTC)


class Clock:
    """A clock that advances when a caller waits, with a time of day that is changed occasionally."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self._steps = dict(STEPS)
        self._set_by_s = 0.0

    def perf_counter(self) -> float:
        """Return the monotonic time, in seconds."""
        return self.elapsed_s

    def wait(self, seconds: float) -> bool:
        """Replace the wait for a cancellation."""
        self.elapsed_s += seconds
        while self._steps and self.elapsed_s >= 3600 * next(iter(self._steps)):
            self._set_by_s += 3600 * self._steps.pop(next(iter(self._steps)))
        return False

    def time_of_day(self) -> float:
        """Return the time of day, in seconds since 1970."""
        return BEGIN.timestamp() + self.elapsed_s + self._set_by_s

    def gmtime(self) -> time.struct_time:
        """Return the time of day."""
        return time.gmtime(self.time_of_day())

    def now(self, zone: Any = None) -> datetime.datetime:
        """Return the time of day."""
        return datetime.datetime.fromtimestamp(self.time_of_day(), zone)

    @contextmanager
    def in_place(self, source: simulated.SimulatedSource, *, wrong: bool) -> Iterator[None]:
        """Install this clock wherever the product reads the time of day, and in a source.

        Parameters
        ----------
        source : SimulatedSource
        wrong : bool
            Whether the source uses the time of day.
        """
        passing = self.time_of_day if wrong else self.perf_counter
        fake = SimpleNamespace(
            time=self.time_of_day, gmtime=self.gmtime, strftime=time.strftime, monotonic_ns=time.monotonic_ns
        )
        with (
            mock.patch.object(simulated, "time", SimpleNamespace(perf_counter=passing)),
            mock.patch.object(place, "time", fake),
            mock.patch.object(notifications, "datetime", SimpleNamespace(now=self.now)),
            mock.patch.object(time, "time", self.time_of_day),
            mock.patch.object(source, "_cancelled", SimpleNamespace(wait=self.wait, is_set=lambda: False)),
        ):
            yield


def time_lapse(
    folder: str, *, variant: Variant = BY_DEFAULT, hours: int = HOURS, wrong: bool = False
) -> tuple[dict[str, object], list[str]]:
    """Acquire, reopen and compare.

    Parameters
    ----------
    folder : str
        An empty folder to use.
    variant : Variant
    hours : int
    wrong : bool
        Whether the source uses the time of day, a fault that must be found.

    Returns
    -------
    tuple of (dict, list of str)
        The figures, and the broken promises.
    """
    loops = hours * 3600 // FRAME_EVERY_S // 6
    config = {
        "storage": {
            "backend": variant.backend,
            "path": f"{folder}/data",
            "options": variant.with_files(2**20, 2 * 64 * 64),
        },
        "source": {"name": "simulated", "options": {"width": 64, "height": 64, "rate_hz": 1 / FRAME_EVERY_S}},
        "sequence": {
            "channels": ["DAPI", "FITC"],
            "z_plan": {"range": 2, "step": 1},
            "time_plan": {"interval": 6 * FRAME_EVERY_S, "loops": loops},
            "axis_order": "tcz",
        },
    }
    wanted = [
        {"time": t, "channel": channel, "z": z}
        for t, channel, z in itertools.product(range(loops), ("DAPI", "FITC"), range(3))
    ]
    clock = Clock()
    times_of_day = []
    acquisition = Acquisition(config)
    with clock.in_place(acquisition.source, wrong=wrong), acquisition:
        deliver = acquisition.source.run

        def run(sink: Any) -> None:
            def note(*frame: Any) -> None:
                times_of_day.append(clock.time_of_day())
                sink(*frame)

            deliver(note)

        with mock.patch.object(acquisition.source, "run", run):
            ledger = acquisition.run()
        begun = manifest.read_manifest(f"{folder}/data")["created"]
        in_storage = [dict(coordinates) for coordinates in acquisition.storage]
    found = []
    if begun != BEGIN.strftime("%Y-%m-%dT%H:%M:%SZ") or clock.elapsed_s < 3600 * hours - 2 * FRAME_EVERY_S:
        found.append(f"the clock was not the injected one: {begun}, {clock.elapsed_s} s")
    back = sum(later < earlier for earlier, later in itertools.pairwise(times_of_day))
    if back < sum(step < 0 and hour < hours for hour, step in STEPS.items()):
        found.append(f"the time of day went back {back} times only: the case proves nothing")
    if (ledger.offered, ledger.stored, ledger.failed, ledger.dropped) != (len(wanted), len(wanted), 0, 0):
        found.append(f"the ledger says {ledger}")
    if in_storage != wanted:
        found.append("the order in the storage is another one")
    with exengine.open_dataset(f"{folder}/data") as dataset:
        if [dict(coordinates) for coordinates in dataset] != wanted:
            found.append("the order after reopening is another one")
        if dataset.status != "complete":
            found.append(f"the status is {dataset.status}")
        elapsed = []
        for number, axes in enumerate(wanted):
            if dict(simulated.decode(dataset.get_data(axes))) != axes:
                found.append(f"another frame is at {axes}")
            metadata = dataset.get_metadata(axes)
            elapsed.append(metadata["elapsed_ms"])
            if metadata["frame_number"] != number:
                found.append(f"frame {metadata['frame_number']} is at {axes}, not {number}")
        if elapsed != sorted(elapsed):
            found.append("the elapsed times go back")
    figures: dict[str, object] = {"hours": hours, "frames": len(wanted), "clock set": len(STEPS)}
    figures |= {"time of day went back": back, "frames lost": len(wanted) - ledger.stored}
    return figures, found


def main() -> int:
    """Run the time-lapse; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", action="store_true")
    add_arguments(parser)
    given = parser.parse_args()
    variant = variant_of(given)
    with tempfile.TemporaryDirectory() as folder:
        figures, found = time_lapse(folder, variant=variant)
    for name, value in figures.items():
        print(f"{name}: {value}")
    for text in found:
        print(f"BROKEN {text}\nagain: python tests/campaigns/clock_steps.py{variant.arguments}")
    if given.save and not found:
        save("clock_steps", "python tests/campaigns/clock_steps.py", None, figures, variant=variant)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
