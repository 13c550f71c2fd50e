"""One dataset that the jobs of a job array convert together.

Each job builds a part: an unfinished dataset in a hidden folder of its own, with the frames of some units of
work. A job that finds all parts complete joins them without copying pixels. The backend defines the units and
joins the parts; see :class:`~exengine.kernel.frames.sharing.SharedDatasets`.
"""

import array
import contextlib
import json
import os
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.datasets.conversion.build import CHECKED, OWN_FILES, SHARED, Build
from exengine.datasets.conversion.settings import Settings
from exengine.datasets.conversion.source import SourceFrames, read_checked, write_durably
from exengine.datasets.conversion.units import Units
from exengine.datasets.creation import StoragePlan, files_of_writer
from exengine.datasets.workshop import CONVERTING, Workshop, folder_beside
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import DatasetDamagedError, DatasetLockedError, UnsupportedOperationError
from exengine.kernel.frames.sharing import SharedDatasets, owners_of
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_json


class PartBuild(Build):
    """The part that one job builds. It stays an unfinished dataset."""

    fingerprint = ""
    """The fingerprint of the conversion as a whole."""

    def is_finished(self) -> bool:
        return _fingerprint_of(self.path_of(SHARED)) == self.fingerprint

    def finish(self, storage: DataStorage) -> None:
        """Sync the frames."""
        storage.flush(True)

    def mark(self) -> None:
        """Record that the part contains all of its frames."""
        write_durably(self.path_of(SHARED), json.dumps({"fingerprint": self.fingerprint}).encode())


class Share:
    """The share of one job in the conversion of a dataset.

    Parameters
    ----------
    path : str
        The path of the result.
    target : StoragePlan
    settings : Settings
        The settings of the conversion as a whole.
    whole : SourceFrames
        The frames of all jobs.
    units : Units

    Raises
    ------
    UnsupportedOperationError
        If several processes cannot write datasets of this backend, or cannot write these frames in parallel.
    """

    def __init__(
        self, path: str, target: StoragePlan, settings: Settings, whole: SourceFrames, units: Units
    ) -> None:
        cls = target.cls
        if not issubclass(cls, SharedDatasets):
            raise UnsupportedOperationError(
                f"only one process can write a dataset of the backend {target.name}; jobs cannot share it. "
                "Give a pattern in quotes, such as 'data/*', to divide several datasets; or use --dask, so "
                "that a cluster reads the frames; or use --select, so that each job converts a part to a "
                "dataset of its own"
            )
        self._cls = cls
        self._path = path
        self._target = target
        self._settings = settings
        self._whole = whole
        self._units = units

    @cached_property
    def _owners(self) -> npt.NDArray[np.uint32]:
        """The number of the job that converts each frame, counted from 0: ``(frames,)`` uint32."""
        whole = self._whole
        unit_of = self._cls.unit_of(self._plan, self._target.options)
        return owners_of((new for _, new in whole.pairs()), unit_of, self._units.count)

    @cached_property
    def _plan(self) -> SourcePlan:
        """The plan of the whole dataset, assuming that all frames are like the first one."""
        whole = self._whole
        whole.assume(whole.first_layout())
        try:
            return whole.plan()
        finally:
            whole.forget()

    def part(self) -> PartBuild:
        """Return the part of this job, and lock its folder."""
        number, whole = self._units.number, self._whole
        mine = bytearray((self._owners == number - 1).astype(np.uint8).tobytes())
        frames = SourceFrames(whole.dataset, whole.path, whole.selection)
        frames.cluster = whole.cluster
        frames.restrict(mine, self._plan)
        settings = self._settings.with_units(f"{number}/{self._units.count}")
        part = PartBuild(self._path, self._target, settings, frames, self._ending(number))
        part.fingerprint = self._settings.fingerprint
        return part

    def _ending(self, number: int) -> str:
        return f"{CONVERTING}-{number}-of-{self._units.count}"

    def _folder(self, number: int) -> str:
        return folder_beside(self._path, self._ending(number))

    @property
    def _numbers(self) -> range:
        return range(1, self._units.count + 1)

    def missing(self) -> list[int]:
        """Return the numbers of the jobs that have not completed their parts."""
        mine = self._settings.fingerprint
        return [
            number
            for number in self._numbers
            if _fingerprint_of(os.path.join(self._folder(number), SHARED)) != mine
        ]

    # -- the last step ---------------------------------------------------------------------------

    def join(self, build: Build) -> None:
        """Move the frames of all parts to the unfinished result.

        If a part is damaged, the unfinished result is removed, and all frames must be copied again.
        """
        whole = self._whole
        is_checked = self._take_checks()
        if not is_checked:
            whole.assume(whole.first_layout())
        marker = build.path_of(SHARED)
        if _fingerprint_of(marker) is None:
            build.created().close()
            write_durably(marker, json.dumps({"fingerprint": self._settings.fingerprint}).encode())
        name = os.path.basename(self._path)
        parts = [os.path.join(self._folder(number), name) for number in self._numbers]
        try:
            self._cls.join(build.built, parts, self._owners)
        except DatasetDamagedError:
            build.start_again()
            return
        build.note_synced(whole.count)
        if is_checked:
            whole.save(build.path_of(CHECKED))
        whole.forget()

    def _take_checks(self) -> bool:
        """Combine the checksums that the jobs computed; return whether all of them are known."""
        whole, owners = self._whole, self._owners
        layouts: list[Any] = []
        checksums = np.zeros(len(owners), np.uint32)
        for number in self._numbers:
            mine = owners == number - 1
            if not mine.any():
                continue
            found = read_checked(os.path.join(self._folder(number), CHECKED), int(mine.sum()))
            if found is None or len(found[0]) != 1 or (layouts and found[0] != layouts):
                return False
            layouts = found[0]
            checksums[mine] = found[1]
        whole.layouts = layouts
        whole.checksums = array.array("I", checksums.tobytes())
        whole.layout_numbers = array.array("I", bytes(checksums.nbytes))
        return True

    def remove(self) -> None:
        """Remove the parts of all jobs."""
        for number in self._numbers:
            if not os.path.isdir(self._folder(number)):
                continue
            with contextlib.suppress(DatasetLockedError):  # a job that is still running removes its part
                workshop = Workshop(self._path, self._ending(number), "conversion", OWN_FILES)
                try:
                    workshop.clear(files_of_writer)
                finally:
                    workshop.leave()


def _fingerprint_of(marker: str) -> str | None:
    """Return the fingerprint stored in a file that marks a part as complete; None if there is no file."""
    try:
        with os.fdopen(files.open_regular(marker), "rb") as file:
            return str(parse_json(file.read(1000))["fingerprint"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
