"""The base class for backends that first write a spool, and build their file when the dataset is finished.

An HDF5 or TIFF file cannot be trusted while it is being written: after a crash or on a full disk, its
own index may be lost. A frame is therefore acknowledged when it is in the spool (promise P6). ``finish``
builds the file from the spool under another name, compares it with the spool, syncs it, and gives it its
final name. Only then is the spool deleted. Until then, the dataset's own file is a small valid file of its
format, and ExEngine reads the spool instead.

If the file cannot be built, for example because the disk is full, the spool remains, with all frames.
``exengine recover`` builds the file later. While the file is being built, the disk holds all pixels twice.
"""

import errno
import json
import os
import zlib
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, NamedTuple

import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DatasetStatus, JsonValue
from exengine.kernel.errors import MetadataError
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.description import plan_of
from exengine.kernel.storage.file_patterns import FILE
from exengine.kernel.storage.managed import ManagedStorage
from exengine.kernel.storage.one_file.continued import take_over
from exengine.kernel.storage.one_file.spool import (
    FRAMES,
    JOURNAL,
    SpooledFrame,
    SpoolWriter,
    as_stored,
    describe,
    read_pixels,
)
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_json

_DAMAGED = {
    "": "exengine.damaged-file",
    FRAMES: "exengine.damaged-frames",
    JOURNAL: "exengine.damaged-journal",
}
SPOOL_PATTERNS = (FILE, *(f"{FILE}.{part}" for part in (FRAMES, JOURNAL, *_DAMAGED.values())))
"""The ``dataset_files`` of a backend with a spool."""
_MOST_TEXT_BYTES = 2**26


class FrameToBuild(NamedTuple):
    """A frame for :meth:`SpooledStorage.build_file`.

    Attributes
    ----------
    coordinates : DataCoordinates
    shape : tuple of int
    dtype : str
        The name of the numpy dtype.
    crc : int
        The checksum of the pixels as C-contiguous little-endian bytes.
    pixels : callable
        Returns the pixels, as a little-endian C-contiguous array.
    metadata : callable
        Returns the metadata.
    """

    coordinates: DataCoordinates
    shape: tuple[int, ...]
    dtype: str
    crc: int
    pixels: Callable[[], npt.NDArray[Any]]
    metadata: Callable[[], JsonValue]


class SpooledStorage(ManagedStorage):
    """The base class for storages with a spool. Override :meth:`build_file` and ``initial_files``.

    Parameters
    ----------
    path : path
        The path of the new file.
    summary_metadata : JSON value, optional
        Metadata of the dataset as a whole.
    """

    dataset_files = SPOOL_PATTERNS

    def __init__(self, path: str | os.PathLike[str], *, summary_metadata: JsonValue = None) -> None:
        self._spool: SpoolWriter | None = None
        self._spooled: list[SpooledFrame] = []
        self._layouts: list[tuple[tuple[int, ...], str]] = []
        self.plan = SourcePlan()
        super().__init__(path, summary_metadata=summary_metadata)
        assert self.path is not None
        try:
            if self.continues:
                self._continue(self.path)
            else:
                self._spool = SpoolWriter(
                    self.path, self.summary_metadata, self.checksum, options=self.build_options()
                )
        except BaseException as error:
            self.cannot_begin(error)
            raise

    def _continue(self, path: str) -> None:
        """Take over the frames of an existing dataset."""
        place = self._exengine.place
        if place is not None and place.status is DatasetStatus.COMPLETE:
            self.begin_continuing()  # raises StorageFinishedError
        found = take_over(type(self), path, self.summary_metadata, self.build_options())
        self._spool, self._spooled = found.spool, found.frames
        self.begin_continuing()
        self._spool.cut()
        self.continue_from(found.coordinates)

    @staticmethod
    def checksum(data: Any) -> int:
        """Return a 32-bit CRC of pixels or of a record. Readers must compute the same value."""
        return zlib.crc32(data)

    @classmethod
    @abstractmethod
    def build_file(
        cls,
        path: str,
        frames: Sequence[FrameToBuild],
        *,
        summary: JsonValue,
        manifest: bytes,
        plan: SourcePlan,
        options: dict[str, Any],
    ) -> None:
        """Write a finished file, compare it with the frames, and sync it.

        Parameters
        ----------
        path : str
            The path of the new file. A file left by an earlier attempt may already exist there.
        frames : sequence of FrameToBuild
            The frames, in order of arrival.
        summary : JSON value
            The summary metadata.
        manifest : bytes
            The manifest to be stored in the file; see ``ManagedStorage.manifest_for_file``.
        plan : SourcePlan
            The known facts about the acquisition, such as the pixel size.
        options : dict
            The result of :meth:`build_options`.

        Raises
        ------
        OSError
            If the file could not be written, or differs from the frames.
        """

    def build_options(self) -> dict[str, Any]:
        """Return the options of :meth:`build_file`, such as the compression."""
        return {}

    @classmethod
    def options_of_frame(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        """Return the :meth:`build_file` options for recovering a file, given the description of a frame."""
        return {}

    @property
    def recorded_plan(self) -> SourcePlan:
        """The known facts about the acquisition, such as the pixel size."""
        return self.plan

    def prepare_frames(self, plan: SourcePlan) -> None:
        self.plan = plan

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: JsonValue) -> Any:
        text = describe(coordinates.__dict__, data, metadata)
        if len(text) > _MOST_TEXT_BYTES:
            raise MetadataError(
                f"the metadata takes up {len(text)} bytes as JSON; the limit is {_MOST_TEXT_BYTES}"
            )
        return text

    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        assert self._spool is not None
        frame = self._spool.append(number, as_stored(data), checked)
        del self._spooled[number:]  # an interrupted write may have left a frame without a number
        self._spooled.append(frame)

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        assert self._spool is not None
        frame = self._spooled[number]
        return read_pixels(self._spool.pixels, frame, self._text(frame), self.checksum, f"frame {number}")

    def read_frame_metadata(self, number: int) -> JsonValue:
        metadata: JsonValue = self._text(self._spooled[number])["m"]
        return metadata

    def _text(self, frame: SpooledFrame) -> dict[str, Any]:
        assert self._spool is not None
        text: dict[str, Any] = parse_json(files.read_at(self._spool.journal, frame.text_size, frame.text_at))
        return text

    def sync_frames(self) -> None:
        assert self._spool is not None
        self._spool.sync()

    def finish_frames(self) -> None:
        if self._spool is None:
            return
        self._spool.sync()
        if self._exengine.life.error is not None:
            return  # the frames remain in the spool, from which ``recover`` can build the file later
        self.plan = plan_of(self)
        build_safely(
            type(self),
            self.new_file,
            [self._to_build(number, coordinates) for number, coordinates in enumerate(self)],
            summary=self.summary_metadata,
            manifest=self.manifest_for_file(),
            plan=self.plan,
            options=self.build_options(),
        )
        self.publish_file()
        remove_spool(f"{self.path}")

    def _to_build(self, number: int, coordinates: DataCoordinates) -> FrameToBuild:
        frame = self._spooled[number]
        text = self._text(frame)
        return FrameToBuild(
            coordinates,
            tuple(text["s"]),
            text["d"],
            frame.crc,
            lambda: self.read_frame(number),
            lambda: self.read_frame_metadata(number),
        )

    @classmethod
    def recover_in_place(
        cls, path: str | os.PathLike[str], lost: Collection[DataCoordinates], notes: Any = None, /
    ) -> None:
        """Build the file without the lost frames, from the spool or from the damaged file."""
        path = os.fspath(path)
        new = f"{path}.exengine.new"
        with closing(cls.open(path)) as opened:
            reader: Any = opened  # a ``SpoolReader``
            frames = _kept(reader.frames_to_build(), set(lost), notes or {})
            known = dict(reader.manifest) if reader.manifest is not None else {"backend": cls.backend_name}
            known |= {"status": DatasetStatus.ABORTED.value, "frames": len(frames)}
            known.pop("samples", None)
            build_safely(
                cls,
                new,
                frames,
                summary=reader.summary_metadata,
                manifest=json.dumps(known).encode(),
                plan=plan_of(reader),
                options=cls.options_of_frame(reader.describe(0)) if frames else {},
            )
        if lost or notes:
            keep_damaged(path)
        os.replace(new, path)
        files.sync_folder(os.path.dirname(path))
        remove_spool(path)

    def release(self) -> None:
        if self._spool is not None:
            self._spool.close()


def _kept(
    frames: Sequence[FrameToBuild], lost: set[DataCoordinates], notes: Mapping[DataCoordinates, JsonValue]
) -> list[FrameToBuild]:
    """Return the frames that a recovery keeps, with the notes that replace lost metadata."""
    found = []
    for frame in frames:
        if frame.coordinates in notes:
            note = notes[frame.coordinates]
            frame = frame._replace(metadata=lambda note=note: note)  # type: ignore[misc]
        if frame.coordinates not in lost:
            found.append(frame)
    return found


def build_safely(cls: type[SpooledStorage], path: str, frames: Sequence[FrameToBuild], **named: Any) -> None:
    """Build a file. After any error, remove the unfinished file, and raise an OSError."""
    try:
        cls.build_file(path, frames, **named)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(path)
        if isinstance(error, OSError) or not isinstance(error, Exception):
            raise
        raise OSError(errno.EIO, f"the file could not be built: {error}", path) from error


def remove_spool(path: str) -> None:
    """Delete the spool of a dataset. The dataset's file must already be complete and synced."""
    for part in (JOURNAL, FRAMES):
        with suppress(FileNotFoundError):
            os.unlink(f"{path}.{part}")
    files.sync_folder(os.path.dirname(path))


def is_spooled(path: str) -> bool:
    """Return whether there is a spool next to a file."""
    return os.path.lexists(f"{path}.{JOURNAL}")


def keep_damaged(path: str) -> None:
    """Keep the files that a recovery in place is about to replace, by linking them to other names."""
    for part, kept in _DAMAGED.items():
        with suppress(FileExistsError, FileNotFoundError):
            os.link(f"{path}.{part}" if part else path, f"{path}.{kept}")
