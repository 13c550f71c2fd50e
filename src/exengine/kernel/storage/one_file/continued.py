"""Takes over a single-file dataset whose writer has ended, so that another writer can store further frames.

If the spool exists, it is checked and appended to. If the dataset was finished as aborted or failed, its
frames are in the file, and are copied to a new spool first. The file and the manifest are not changed.
"""

import os
from contextlib import closing, suppress
from typing import Any, NamedTuple

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import DatasetDamagedError, OptionError
from exengine.kernel.storage.one_file.spool import (
    FRAMES,
    JOURNAL,
    SpooledFrame,
    SpoolWriter,
    as_stored,
    describe,
)
from exengine.kernel.system import files

_NEW_JOURNAL = "exengine.new"


class Continued(NamedTuple):
    """A spool to append to, and the frames that it already contains, in order."""

    spool: SpoolWriter
    frames: list[SpooledFrame]
    coordinates: list[DataCoordinates]


def take_over(cls: Any, path: str, summary: Any, options: dict[str, Any]) -> Continued:
    """Open the spool of a dataset to append frames. This process must hold the dataset's lock.

    Parameters
    ----------
    cls : type
        A subclass of ``SpooledStorage``.
    path : str
        The path of the dataset.
    summary : JSON value
        The summary metadata of the new storage.
    options : dict
        The ``build_options`` of the new storage.

    Raises
    ------
    OptionError
        If the dataset was created with other options or other summary metadata.
    DatasetDamagedError
        If a frame is damaged or missing, or if the dataset has no frames.
    OSError
    """
    with closing(cls.open(path)) as reader:
        coordinates, frames = [*reader], [reader.place_of(number) for number in range(len(reader))]
        if reader.faults or not frames:
            problem = reader.faults[0] if reader.faults else "it has no frames"
            raise DatasetDamagedError(f"{path} cannot be continued: {problem}")
        known = cls.options_of_frame(reader.describe(0))
        if reader.reads_spool:
            known = reader.head.get("options", {})
        if reader.summary_metadata != summary or {**options, **known} != options:
            raise OptionError(
                f"{path} was created with other options or other summary metadata, so it cannot be continued"
            )
        if not reader.reads_spool:
            frames = _make_spool(cls, path, reader, coordinates, options)
    last = max(frame.offset + frame.size for frame in frames)
    spool = SpoolWriter.reopen(path, frames, cls.checksum)
    if last > os.fstat(spool.pixels).st_size:
        spool.close()
        raise DatasetDamagedError(
            f"{path} cannot be continued: its spool lacks pixels; recover the dataset first"
        )
    return Continued(spool, frames, coordinates)


def _make_spool(
    cls: Any, path: str, reader: Any, coordinates: list[DataCoordinates], options: dict[str, Any]
) -> list[SpooledFrame]:
    """Copy the frames of a finished file to a new spool, and sync it."""
    new = f"{path}.{_NEW_JOURNAL}"
    try:
        spool = SpoolWriter(
            path, reader.summary_metadata, cls.checksum, options=options, journal=_NEW_JOURNAL
        )
        with closing(spool):
            frames = []
            for number, each in enumerate(coordinates):
                pixels = as_stored(reader.read_frame(number))
                text = describe(each.coordinate_dict, pixels, reader.read_frame_metadata(number))
                frames.append(spool.append(number, pixels, text))
            spool.sync()
        # Only now rename the complete journal, because readers use the spool as soon as it has a journal.
        os.replace(new, f"{path}.{JOURNAL}")
    except BaseException:
        for name in (new, f"{path}.{FRAMES}"):
            with suppress(OSError):
                os.unlink(name)
        raise
    files.sync_folder(os.path.dirname(path))
    return frames
