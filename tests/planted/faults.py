"""Backends with one planted fault each, for tests of the conformance kit.

Each class states what it does wrong, the promise or promises of which one must be reported, and the test of the
kit that finds it. ``thorough`` marks faults that only a thorough run finds.
"""

import atexit
import contextlib
import importlib
import json
import marshal
import os
import pickle
import sys
import threading
import time
import unicodedata
import zlib
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Interval
from slabs import Slabs

from exengine.base_classes import open_regular, read_manifest, snapshot, sync_folder
from exengine.errors import DatasetDamagedError, StorageFailedError


@dataclass(frozen=True)
class Fault:
    """What is known of a planted fault."""

    kind: str
    labels: tuple[str, ...]
    test: str
    thorough: bool


FAULTS: dict[type, Fault] = {}

BITS = "test_every_bit_of_a_number_is_kept"
ARRAYS = "test_hostile_arrays_are_refused_or_stored_right"
METADATA = "test_hostile_metadata_is_refused_or_comes_back_as_it_was_put"
SHARE = "test_readers_share_nothing_that_can_be_changed"
DISK = "test_an_error_of_the_disk_is_reported_and_costs_no_acknowledged_frame"
LIMIT = "test_the_first_error_of_the_disk_stays_and_reaches_the_caller"
SYNCED = "test_what_finish_and_a_durable_flush_have_synced_holds_every_frame"
FAILED_SYNC = "test_a_sync_that_failed_is_never_tried_again_as_if_it_were_new"
LEAKS = "test_what_is_done_again_and_again_leaves_nothing_behind"
DAMAGE = "test_damage_anywhere_is_noticed"
SUMMARY = "test_the_summary_metadata_is_the_same_after_reopening"
VALUES = "test_every_value_of_an_option_stores_frames_or_is_refused"
EFFECT = "test_every_option_takes_effect"
MANY = "test_hundreds_of_frames_are_stored_like_the_first"
WATCHED = "test_another_process_reads_while_this_one_writes"
FORK = "test_a_forked_child_changes_nothing_and_ends_as_any_other"
PICKLE = "test_reading_a_dataset_unpickles_nothing"
HOSTILE = "test_a_hostile_dataset_runs_no_code_and_reaches_nothing_outside"
KILLED = "test_a_frame_survives_the_death_of_the_process_when_put_has_returned"
EQUAL = "test_a_finished_dataset_reopens_equal"
SIMPLEST = "test_the_simplest_put_stores_a_frame"


def fault(kind: str, *labels: str, by: str, thorough: bool = False) -> Any:
    """Register a class; its docstring is what it does wrong."""

    def mark(cls: type) -> type:
        FAULTS[cls] = Fault(kind, labels, by, thorough)
        # The registry accepts only options that the docstring describes.
        cls.__doc__ = f"{cls.__doc__}\n\n{Slabs.__doc__.partition('files that hold several frames each.')[2]}"
        return cls

    return mark


# -- the simplest put --------------------------------------------------------------------------------


@fault("the simplest put", "P1", by=SIMPLEST)
class RaisesInPut(Slabs):
    """Fails with each frame."""

    def write_frame(self, number, coordinates, data, checked):
        raise TypeError("no frame can be written")


@fault("the simplest put", "P1", by=SIMPLEST)
class HangsInPut(Slabs):
    """Waits for ever for a lock that it holds."""

    def write_frame(self, number, coordinates, data, checked):
        lock = threading.Lock()
        with lock:
            lock.acquire()


@fault("the simplest put", "P1", by=SIMPLEST)
class CrashesInPut(Slabs):
    """Ends the interpreter."""

    def write_frame(self, number, coordinates, data, checked):
        os.abort()


# -- bits of the pixels ------------------------------------------------------------------------------


class Encoding(Slabs):
    """Encode other pixels than those that were put."""

    def encode(self, data):
        return super().encode(self.changed(np.array(data)))


@fault("bits", "P1", by=BITS)
class ForgetsPayloads(Encoding):
    """Stores each NaN as the same NaN."""

    def changed(self, data):
        if data.dtype.kind == "f":
            data[np.isnan(data)] = np.nan
        return data


@fault("bits", "P1", by=BITS)
class QuietsNaN(Encoding):
    """Converts single precision to double precision and back, which makes signalling NaN quiet."""

    def changed(self, data):
        with np.errstate(all="ignore"):
            return (data.astype("f8") * 1.0).astype("f4") if data.dtype == np.float32 else data


@fault("bits", "P1", by=BITS)
class LosesNegativeZero(Encoding):
    """Stores -0.0 as 0.0."""

    def changed(self, data):
        if data.dtype.kind == "f" and data.ndim:
            data[data == 0] = 0
        return data


@fault("bits", "P1", by=BITS)
class FlushesSubnormals(Encoding):
    """Stores the smallest numbers as zero."""

    def changed(self, data):
        if data.dtype.kind == "f" and data.ndim:
            data[np.abs(data) < np.finfo(data.dtype).tiny] = 0
        return data


@fault("bits", "P1", by=BITS)
class MixesComplexNaN(Encoding):
    """Computes with complex numbers, which spoils those of which one part is NaN."""

    def changed(self, data):
        with np.errstate(all="ignore"):
            return data * 1 if data.dtype.kind == "c" else data


@fault("bits", "P1", by=BITS)
class LosesLargeIntegers(Encoding):
    """Stores 64-bit integers as floating-point numbers."""

    def changed(self, data):
        with np.errstate(all="ignore"):
            return data.astype("f8").astype(data.dtype) if data.dtype in (np.uint64, np.int64) else data


@fault("bits", "P8", by=ARRAYS)
class ForgetsTheByteOrder(Slabs):
    """Writes the bytes of a swapped array as if they were native."""

    def write_frame(self, number, coordinates, data, checked):
        super().write_frame(number, coordinates, data.view(data.dtype.newbyteorder("=")), checked)


@fault("bits", "P8", by=ARRAYS)
class ForgetsTheOrderInMemory(Slabs):
    """Writes the memory of an array from first to last."""

    def encode(self, data):
        content = data.tobytes("A")
        return zlib.compress(content, self.effort) if self.codec == "zlib" else content


@fault("bits", "P8", by=ARRAYS)
class LosesAnOddPixel(Encoding):
    """Packs two bytes at a time, and loses the last if their number is odd."""

    def changed(self, data):
        flat = data.reshape(-1)
        if (data.dtype.itemsize == 1 and flat.size % 2) or flat.size == 91:
            flat[-1:] = 0
        return data


@fault("bits", "P8", by=ARRAYS)
class FlattensEmptyFrames(Slabs):
    """Forgets the shape of a frame without pixels."""

    def write_frame(self, number, coordinates, data, checked):
        super().write_frame(number, coordinates, data if data.size else data.reshape(-1), checked)


# -- metadata of frames ------------------------------------------------------------------------------


class Noting(Slabs):
    """Store other metadata than was put."""

    def check_frame(self, coordinates, data, metadata):
        return super().check_frame(coordinates, data, self.changed(metadata))

    def changed(self, metadata):
        return metadata


@fault("metadata", "P9", by=METADATA)
class RoundsNumbers(Noting):
    """Stores numbers with six digits."""

    def changed(self, metadata):
        if isinstance(metadata, float):
            return float(f"{metadata:.6g}")
        if isinstance(metadata, dict):
            return {key: self.changed(value) for key, value in metadata.items()}
        return metadata


@fault("metadata", "P9", by=METADATA)
class NormalisesText(Noting):
    """Normalises the keys, so that two of them may become one."""

    def changed(self, metadata):
        if isinstance(metadata, dict):
            return {unicodedata.normalize("NFC", key): value for key, value in metadata.items()}
        return metadata


@fault("metadata", "P9", by=METADATA)
class TruncatesLongText(Noting):
    """Cuts texts off after 64 KiB."""

    def changed(self, metadata):
        if isinstance(metadata, dict):
            return {
                key: value[:65536] if isinstance(value, str) else value for key, value in metadata.items()
            }
        return metadata


@fault("metadata", "P9", by=METADATA)
class TakesEmptyForNothing(Noting):
    """Stores None for an empty value."""

    def changed(self, metadata):
        return metadata or None


@fault("metadata", "P1", "P9", by="test_put_many_stores_each_frame_in_order")
class GivesABatchOneMetadata(Slabs):
    """Stores the metadata of the last frame of a batch with all its frames."""

    def put_many(self, frames):
        frames = list(frames)
        super().put_many([(axes, data, frames[-1][2]) for axes, data, _ in frames])


@fault("metadata", "P9", "N2", by="test_metadata_is_as_declared")
class LosesMetadataInTheEnd(Slabs):
    """Returns no metadata in a reopened dataset."""

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        reader.read_frame_metadata = lambda number: {}
        return reader


# -- what is shared ----------------------------------------------------------------------------------


@fault("sharing", "P3", by=SHARE)
class SharesArraysOfReaders(Slabs):
    """Keeps arrays for all readers of a dataset, and returns them without a copy."""

    kept: ClassVar[dict[Any, Any]] = {}

    @classmethod
    def read_pixels(cls, path, entry):
        key = (path, str(entry["axes"]))
        if key not in cls.kept:
            cls.kept[key] = super().read_pixels(path, entry)
        return cls.kept[key]


@fault("sharing", "P3", by=SHARE)
class SharesTheLastArray(Slabs):
    """Returns the last array again if the same frame is read twice in a row."""

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        last = {}

        def read(number):
            if number not in last:
                last.clear()
                last[number] = cls.read_pixels(reader.path, reader.entries[number])
            return last[number]

        reader.read_frame = read
        return reader


@fault("sharing", "P3", by=SHARE)
class SharesMetadata(Slabs):
    """Decodes the metadata of a frame once, and returns the same object to everybody."""

    kept: ClassVar[dict[Any, Any]] = {}

    @classmethod
    def read_metadata(cls, path, entry):
        return cls.kept.setdefault((path, str(entry["axes"])), super().read_metadata(path, entry))


@fault("sharing", "P3", by="test_changing_the_array_after_put_changes_nothing_stored")
class KeepsWhatWasPut(Slabs):
    """Keeps the newest array of the caller in a cache, and returns a copy of it."""

    newest = (-1, None)

    def write_frame(self, number, coordinates, data, checked):
        super().write_frame(number, coordinates, data, checked)
        self.newest = (number, data)

    def read_frame(self, number):
        return self.newest[1].copy() if number == self.newest[0] else super().read_frame(number)


@fault("sharing", "P1", "N2", "R2", by=f"{EQUAL} test_a_frame_of_zeros_is_a_frame")
class MixesDatasets(Slabs):
    """Keeps frames by their coordinates, whatever the dataset."""

    kept: ClassVar[dict[str, Any]] = {}

    @classmethod
    def read_pixels(cls, path, entry):
        key = f"{entry['axes']} {entry['shape']} {entry['dtype']}"
        if key not in cls.kept:
            cls.kept[key] = super().read_pixels(path, entry)
        return cls.kept[key].copy()


@fault("sharing", "P3", by=SHARE)
class MapsFilesToWrite(Slabs):
    """Returns arrays that are mapped to the file, and that can be written to."""

    @classmethod
    def read_pixels(cls, path, entry):
        name, offset, size, _ = entry["data"]
        whole = super().read_pixels(path, entry)
        if cls.read_header(path)["codec"] == "zlib" or not size:
            return whole
        fd = os.open(os.path.join(path, name), os.O_RDWR)
        with os.fdopen(fd, "r+b") as file:
            return np.memmap(file, entry["dtype"], "r+", offset, tuple(entry["shape"])).view(np.ndarray)


# -- errors of the disk ------------------------------------------------------------------------------


@fault("errors", "P7", "N3", by=DISK)
class SwallowsErrorsOfFinish(Slabs):
    """Ignores errors while it writes the end."""

    def finish_frames(self):
        with contextlib.suppress(OSError):
            super().finish_frames()


@fault("errors", "N3", by=DISK)
class SwallowsErrorsOfTheLastSync(Slabs):
    """Ignores a failed sync when it finishes."""

    def finish_frames(self):
        real, self.sync_frames = self.sync_frames, lambda: None
        super().finish_frames()
        del self.sync_frames
        with contextlib.suppress(OSError):
            real()


@fault("errors", "C4", by=DISK)
class TruncatesAfterAnError(Slabs):
    """Truncates the index when a failed storage is closed."""

    def release(self):
        if self._exengine.life.error is not None:
            os.ftruncate(self.fds["index"], 0)
        super().release()


@fault("errors", "C4", by=DISK)
class ClaimsMoreThanThereIs(Slabs):
    """Replaces the header when a failed storage is closed, and claims more frames than there are."""

    def release(self):
        if self._exengine.life.error is not None:
            with open(os.path.join(self.path, "header"), "wb") as file:
                file.write(self.sealed({"claimed": len(self.entries) + 1})[:-2])
        super().release()


@fault("errors", "C4", by=DISK)
class CutsTooMuch(Slabs):
    """Removes the last frame before the one that failed."""

    def finish_frames(self):
        if self._exengine.life.error is not None and self.entries:
            self.sizes["index"] -= len(self.sealed(self.entries[-1]))
        super().finish_frames()


@fault("errors", "C4", "P1", by=DISK)
class BelievesThatAllWasWritten(Slabs):
    """Ignores how many bytes were written."""

    def append(self, name, content):
        os.write(self.fds[name], content)
        self.sizes[name] += len(content)


@fault("errors", "P7", "C4", by=DISK)
class SwallowsErrorsOfMetadata(Slabs):
    """Ignores errors while it writes metadata."""

    def append(self, name, content):
        if name.startswith("meta"):
            with contextlib.suppress(OSError):
                super().append(name, content)
        else:
            super().append(name, content)


@fault("errors", "P7", by=DISK)
class RaisesItsOwnError(Slabs):
    """Raises another exception for an error of the disk."""

    def append(self, name, content):
        try:
            super().append(name, content)
        except OSError as error:
            raise RuntimeError("the disk is full") from error


@fault("errors", "P7", "C4", by=LIMIT)
class GoesOnAfterAnError(Slabs):
    """Forgets the error after it has raised it."""

    def put(self, coordinates, data, metadata):
        try:
            super().put(coordinates, data, metadata)
        except StorageFailedError:
            life = self._exengine.life
            life.error = life.refusal = None
            raise


@fault("errors", "C4", by=DISK)
class ListsAFrameFirst(Slabs):
    """Writes the line of the index before the pixels and the metadata that it describes."""

    def append(self, name, content):
        if name.startswith("data"):
            self.late = [(name, content)]
        elif name.startswith("meta"):
            self.late.append((name, content))
        else:
            super().append(name, content)
            for part in self.__dict__.pop("late", ()):
                super().append(*part)

    def finish_frames(self):
        if self._exengine.life.error is None:
            super().finish_frames()


@fault("errors", "P6", "C4", "F1", "P1", by=KILLED)
class BuffersMetadata(Slabs):
    """Writes metadata through a buffer that is flushed for every eighth frame."""

    def append(self, name, content):
        if not name.startswith("meta"):
            super().append(name, content)
            return
        self.buffer = self.__dict__.get("buffer", b"") + content
        self.sizes[name] += len(content)
        if len(self.entries) % 8 == 7:
            self.spill(name)

    def spill(self, name):
        os.write(self.fds[name], self.__dict__.pop("buffer", b""))

    def begin_files(self, number):
        self.finish_buffer()
        super().begin_files(number)

    def finish_buffer(self):
        for name in [name for name in self.fds if name.startswith("meta")]:
            self.spill(name)

    def cut(self):
        pass

    def finish_frames(self):
        self.finish_buffer()
        super().finish_frames()

    def read_frame_metadata(self, number):
        self.finish_buffer()
        return super().read_frame_metadata(number)


@fault("errors", "P7", "F2", by=FAILED_SYNC)
class SwallowsErrorsOfSyncs(Slabs):
    """Ignores failed syncs."""

    def sync_frames(self):
        with contextlib.suppress(OSError):
            super().sync_frames()


@fault("errors", "P7", "F2", by=FAILED_SYNC)
class SyncsAgain(Slabs):
    """Tries a failed sync again, and believes the second answer."""

    def sync_frames(self):
        try:
            super().sync_frames()
        except OSError:
            super().sync_frames()


@fault("errors", "P5", "P7", by="test_put_after_finish_raises_and_changes_no_file")
class NotesLateFrames(Slabs):
    """Notes frames that arrive after the end in a file."""

    def put(self, coordinates, data, metadata):
        if self._exengine.life.refusal is not None:
            with open(os.path.join(self.path, "index"), "ab") as file:
                file.write(b"late\n")
        super().put(coordinates, data, metadata)


# -- syncs -------------------------------------------------------------------------------------------


@fault("syncs", "N3", by=SYNCED)
class SyncsNothing(Slabs):
    """Finishes without a sync."""

    def finish_frames(self):
        real, self.sync_frames = self.sync_frames, lambda: None
        super().finish_frames()
        self.sync_frames = real


@fault("syncs", "N3", "F2", by=SYNCED)
class SyncsOnlyTheIndex(Slabs):
    """Syncs the index and the folder, but not the pixels."""

    def sync_frames(self):
        os.fsync(self.fds["index"])
        sync_folder(self.path)


@fault("syncs", "F2", by=SYNCED)
class ForgetsTheFolder(Slabs):
    """Does not sync the folder."""

    def sync_frames(self):
        for fd in self.fds.values():
            os.fsync(fd)


@fault("syncs", "N3", "F2", by=SYNCED)
class ForgetsFullFiles(Slabs):
    """Does not sync a file that is full."""

    def begin_files(self, number):
        for name in [name for name in self.fds if name != "index"]:
            os.close(self.fds.pop(name))
        for name in self.files_of(number):
            self.open_new(name)


@fault("syncs", "N3", by=SYNCED)
class WritesAfterTheSync(Slabs):
    """Writes the end after everything was synced."""

    def finish_frames(self):
        self.sync_frames()
        real, self.sync_frames = self.sync_frames, lambda: None
        super().finish_frames()
        self.sync_frames = real


@fault("syncs", "F2", by=SYNCED)
class SyncsOnce(Slabs):
    """Syncs when it is asked for the first time, and in the end."""

    def flush(self, durable=False):
        if not self.__dict__.get("was_synced"):
            super().flush(durable)
            self.was_synced = durable


# -- leaks -------------------------------------------------------------------------------------------


@fault("leaks", "C7", by=LEAKS)
class LeaksForABadHeader(Slabs):
    """Leaves the header open if it is damaged."""

    @classmethod
    def read_header(cls, path):
        fd = cls.open_file(path, "header")
        header = cls.unsealed(os.read(fd, 2**20))
        os.close(fd)
        return header


@fault("leaks", "C7", "C1", by=LEAKS)
class LeaksForABadDataset(Slabs):
    """Opens the folder first, and closes it only if everything is well."""

    @classmethod
    def open(cls, path):
        fd = os.open(path, os.O_RDONLY)
        reader = super().open(path)
        os.close(fd)
        return reader


@fault("leaks", "C7", "C1", by=LEAKS)
class LeavesAThreadForABadDataset(Slabs):
    """Starts a thread for each dataset, and ends it only if the dataset can be opened."""

    @classmethod
    def open(cls, path):
        done = threading.Event()
        threading.Thread(target=done.wait, name="left", daemon=True).start()
        reader = super().open(path)
        done.set()
        return reader


@fault("leaks", "C1", by=LEAKS)
class LeaksForEachReader(Slabs):
    """Leaves a file open for each dataset that was opened."""

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        cls.open_file(path, "index")
        return reader


@fault("leaks", "N1", by=LEAKS)
class LeaksForEachWriter(Slabs):
    """Closes only the files with pixels."""

    def release(self):
        for name in [name for name in self.fds if name != "index"]:
            os.close(self.fds.pop(name))


@fault("leaks", "P1", by=LEAKS)
class LeaksForEachRefusal(Slabs):
    """Leaves a descriptor open for each frame that is refused."""

    def put(self, coordinates, data, metadata):
        copy = os.dup(self.fds["index"]) if self.fds else -1
        super().put(coordinates, data, metadata)
        os.close(copy)


@fault("leaks", "P1", by=LEAKS)
class KeepsAllThatWasRead(Slabs):
    """Keeps each array that was read."""

    kept: ClassVar[list[Any]] = []

    @classmethod
    def read_pixels(cls, path, entry):
        cls.kept.append(super().read_pixels(path, entry))
        return cls.kept[-1].copy()


# -- damage ------------------------------------------------------------------------------------------


@fault("damage", "C2", by=DAMAGE)
class IgnoresChecksumsOfPixels(Slabs):
    """Does not check the pixels."""

    @classmethod
    def read_part(cls, path, entry, part):
        if part == "data":
            content = cls.read(path, *entry[part][:3])
            if len(content) != entry[part][2]:
                raise DatasetDamagedError("too short")
            return content
        return super().read_part(path, entry, part)


@fault("damage", "C2", by=DAMAGE)
class ChecksTheBeginning(Slabs):
    """Checks only the first 512 bytes of a frame."""

    @classmethod
    def read_part(cls, path, entry, part):
        name, offset, size, _ = entry[part]
        content = cls.read(path, name, offset, size)
        if part == "meta" or len(content) != size or zlib.crc32(content[:512]) != entry.get("head"):
            return super().read_part(path, entry, part)
        return content

    def write_frame(self, number, coordinates, data, checked):
        self.head = zlib.crc32(self.encode(data)[:512])
        super().write_frame(number, coordinates, data, checked)

    def append(self, name, content):
        if name == "index":
            entry = self.unsealed(content)
            if "axes" in entry:
                content = self.sealed({**entry, "head": self.head})
        super().append(name, content)


@fault("damage", "C2", by=DAMAGE)
class IgnoresChecksumsOfMetadata(Slabs):
    """Does not check the metadata of a frame."""

    @classmethod
    def read_metadata(cls, path, entry):
        try:
            return json.loads(cls.read(path, *entry["meta"][:3]))
        except ValueError as error:
            raise DatasetDamagedError(f"metadata: {error}") from None


def unchecked_entries(index):
    """Yield the entries of an index without checking its lines; None for an entry that cannot be read."""
    for line in index.splitlines():
        try:
            entry = json.loads(line.split(b" ", 2)[2])
            yield entry if set(entry) == {"axes", "shape", "dtype", "data", "meta"} else None
        except (ValueError, IndexError, TypeError):
            yield None


@fault("damage", "C2", "C1", by=DAMAGE)
class IgnoresChecksumsOfTheIndex(Slabs):
    """Does not check the lines of the index."""

    @classmethod
    def read_entries(cls, path):
        return unchecked_entries(cls.read(path, "index"))


@fault("damage", "C2", by=DAMAGE)
class ReturnsADefaultHeader(Slabs):
    """Takes a damaged header for an empty one."""

    @classmethod
    def read_header(cls, path):
        try:
            return super().read_header(path)
        except DatasetDamagedError:
            return {"codec": "none", "summary": {}}


class DraftSlabs(Slabs):
    """A sound backend whose index has another name until the dataset is finished."""

    dataset_files = (*Slabs.dataset_files, "draft")

    def open_new(self, name):
        super().open_new("draft" if name == "index" else name)
        if "draft" in self.fds:
            self.fds["index"] = self.fds.pop("draft")
            self.sizes["index"] = self.sizes.pop("draft")

    def finish_frames(self):
        super().finish_frames()
        if self.is_draft(self.path):
            os.rename(os.path.join(self.path, "draft"), os.path.join(self.path, "index"))
            sync_folder(self.path)

    @staticmethod
    def is_draft(path):
        return os.path.lexists(os.path.join(path, "draft"))

    @classmethod
    def open_file(cls, path, name):
        return super().open_file(path, "draft" if name == "index" and cls.is_draft(path) else name)


@fault("damage", "C2", "C1", by=DAMAGE)
class IgnoresChecksumsOfTheDraft(DraftSlabs):
    """Does not check the lines of the index until the dataset is finished."""

    @classmethod
    def read_entries(cls, path):
        if not cls.is_draft(path):
            yield from super().read_entries(path)
            return
        yield from unchecked_entries(cls.read(path, "index"))


@fault("untrusted", "D3", by=HOSTILE)
class FollowsLinksOfTheDraft(DraftSlabs):
    """Follows a link out of the dataset until the dataset is finished."""

    @classmethod
    def open_file(cls, path, name):
        if name == "index" and cls.is_draft(path):
            return open_regular(os.path.join(path, "draft"), follow_links=True)
        return super().open_file(path, name)


@fault("damage", "C1", by=DAMAGE)
class HangsForABadHeader(Slabs):
    """Reads the header again and again until it is right."""

    @classmethod
    def read_header(cls, path):
        while True:
            with contextlib.suppress(DatasetDamagedError):
                return super().read_header(path)
            time.sleep(0.1)


@fault("damage", "C1", by=DAMAGE)
class HangsForOneByte(Slabs):
    """Waits for ever if one byte of the header is wrong."""

    @classmethod
    def read_header(cls, path):
        while cls.read(path, "header")[2:3] not in (b"A", b""):
            time.sleep(0.1)
        return super().read_header(path)


@fault("damage", "C1", by=DAMAGE)
class CrashesForABadIndex(Slabs):
    """Ends the interpreter if the index is damaged."""

    @classmethod
    def read_entries(cls, path):
        for entry in super().read_entries(path):
            if entry is None:
                os.abort()
            yield entry


@fault("damage", "C1", by=DAMAGE)
class ExitsForABadEnd(Slabs):
    """Ends the program if the end is damaged."""

    @classmethod
    def frames_at_the_end(cls, path):
        try:
            return super().frames_at_the_end(path)
        except DatasetDamagedError as error:
            sys.exit(str(error))


@fault("damage", "C1", by=DAMAGE)
class RaisesAForeignError(Slabs):
    """Looks at the last byte of a frame, whether or not it is there."""

    @classmethod
    def read_part(cls, path, entry, part):
        name, offset, size, _ = entry[part]
        if size:
            cls.read(path, name, offset, size)[size - 1]
        return super().read_part(path, entry, part)


@fault("damage", "C1", by=DAMAGE)
class BelievesASize(Slabs):
    """Reserves as much memory as an unchecked number says."""

    @classmethod
    def open(cls, path):
        text = cls.read(path, "end") if os.path.exists(os.path.join(path, "end")) else b""
        bytearray(sum(byte for byte in text if byte > 127) * 2**24)
        return super().open(path)


@fault("damage", "C2", by=DAMAGE)
class AcceptsFewerFrames(Slabs):
    """Does not count the frames."""

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        manifest = read_manifest(path)
        if manifest is not None and reader.status == "damaged" and len(reader) < manifest.get("frames", 0):
            reader.set_status(type(reader.status)("complete"))
        return reader


@fault("damage", "C2", by=DAMAGE, thorough=True)
class ChecksTheFirstFile(Slabs):
    """Checks only the pixels in the first file."""

    @classmethod
    def read_part(cls, path, entry, part):
        if entry[part][0] in ("data-0", "meta-0"):
            return super().read_part(path, entry, part)
        content = cls.read(path, *entry[part][:3])
        if len(content) != entry[part][2] or (part == "meta" and zlib.crc32(content) != entry[part][3]):
            raise DatasetDamagedError("too short")
        return content


# -- summary metadata --------------------------------------------------------------------------------


class Summarising(Slabs):
    """Return other summary metadata than was given."""

    @classmethod
    def read_header(cls, path):
        header = super().read_header(path)
        return {**header, "summary": cls.changed(header["summary"])}


@fault("summary", "N6", by=SUMMARY)
class LosesTheSummary(Summarising):
    """Returns no summary metadata after reopening."""

    @staticmethod
    def changed(summary):
        return {}


@fault("summary", "N6", by=SUMMARY)
class FlattensTheSummary(Summarising):
    """Returns nested summary metadata as text."""

    @staticmethod
    def changed(summary):
        return {key: str(value) if isinstance(value, dict) else value for key, value in summary.items()}


@fault("summary", "N6", by=SUMMARY)
class TruncatesTheSummary(Summarising):
    """Cuts long texts of the summary metadata off."""

    @staticmethod
    def changed(summary):
        return {key: value[:4096] if isinstance(value, str) else value for key, value in summary.items()}


@fault("summary", "N6", by=SUMMARY)
class DropsTextThatIsNotAscii(Summarising):
    """Returns only the ASCII characters of the summary metadata."""

    @staticmethod
    def changed(summary):
        return json.loads(json.dumps(summary, ensure_ascii=False).encode("ascii", "ignore"))


@fault("summary", "N6", by=SUMMARY)
class SummarisesInTheEnd(Slabs):
    """Returns the summary metadata only of a finished dataset."""

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        if not reader.is_finished():
            reader.header["summary"] = {}
        return reader


# -- options -----------------------------------------------------------------------------------------


@fault("options", "O1", by=EFFECT)
class IgnoresTheCodec(Slabs):
    """Never compresses."""

    def encode(self, data):
        return np.ascontiguousarray(data).tobytes()

    def initial_files(self):
        about = {"codec": "none", "frames_per_file": self.frames_per_file, "summary": self.summary}
        return {"header": self.sealed({**about, "asked": self.codec})}


@fault("options", "O1", by=EFFECT)
class IgnoresTheLevel(Slabs):
    """Compresses always with the same effort."""

    def encode(self, data):
        self.effort = 6
        return super().encode(data)


@fault("options", "O1", by=EFFECT)
class IgnoresTheFramesPerFile(Slabs):
    """Begins a new file for every 64th frame."""

    def files_of(self, number):
        return f"data-{number // 64}", f"meta-{number // 64}"


@fault("options", "O1", by=EFFECT)
class IgnoresSyncEvery(Slabs):
    """Syncs only when it is asked."""

    def write_frame(self, number, coordinates, data, checked):
        self.sync_every = 0
        super().write_frame(number, coordinates, data, checked)


@fault("options", "O1", by=VALUES)
class SpoilsCompressedFrames(Slabs):
    """Loses the last byte of a compressed frame."""

    def encode(self, data):
        content = np.ascontiguousarray(data).tobytes()
        if self.codec == "none" or not content:
            return content
        return zlib.compress(content[:-1] + bytes([content[-1] ^ 1]), self.effort)


@fault("options", "O1", by=VALUES)
class FailsAtTheLargestValue(Slabs):
    """Does not accept the largest number of frames per file that it documents."""

    def files_of(self, number):
        if self.frames_per_file > 9999:
            raise ValueError("more than four digits")
        return super().files_of(number)


@fault("options", "O1", by=VALUES)
class DividesByZero(Slabs):
    """Cannot sync every frame."""

    def write_frame(self, number, coordinates, data, checked):
        super().write_frame(number, coordinates, data, checked)
        if self.sync_every:
            number % (self.sync_every - 1)


@fault("options", "O1", by=VALUES)
class LosesFramesOfSmallFiles(Slabs):
    """Counts the files from 1 if each holds a single frame, and reads them from 0."""

    @classmethod
    def read_part(cls, path, entry, part):
        if cls.read_header(path)["frames_per_file"] == 1 and entry[part][0] == f"{part}-3":
            raise DatasetDamagedError("the frame is gone")
        return super().read_part(path, entry, part)


@fault("options", "O1", by=VALUES)
class RefusesItsOwnChoice(Slabs):
    """Raises an error for a choice that it documents."""

    def initial_files(self):
        return {"none": super().initial_files}[self.codec]()


# -- after hundreds of frames ------------------------------------------------------------------------


@fault("many frames", "P1", "N2", by=MANY)
class WrapsAt256(Slabs):
    """Counts frames in one byte when it looks for metadata."""

    def read_frame_metadata(self, number):
        return super().read_frame_metadata(number % 256)


@fault("many frames", "N2", by=MANY)
class ReadsTheBeginningOfTheIndex(Slabs):
    """Reads the first 64 KiB of the index."""

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        if len(reader.entries) > 300:
            reader.read_frame = lambda number: cls.read_pixels(path, reader.entries[number % 300])
        return reader


@fault("many frames", "P1", by=MANY)
class DropsFramesLater(Slabs):
    """Does not write the pixels of the 501st frame."""

    def encode(self, data):
        content = super().encode(data)
        return bytes(len(content)) if len(self.entries) == 500 and self.codec == "none" else content


@fault("many frames", "P1", "N2", by=MANY)
class ReusesFiles(Slabs):
    """Uses only eight files, and truncates the first when it comes to the ninth."""

    def files_of(self, number):
        part = number // self.frames_per_file % 8
        return f"data-{part}", f"meta-{part}"

    def open_new(self, name):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, name))
        super().open_new(name)


@fault("many frames", "P1", by=MANY, thorough=True)
class WrapsAt4096(Slabs):
    """Reads the wrong pixels after 4096 frames."""

    def read_frame(self, number):
        return super().read_frame(number % 4096)


@fault("many frames", "N2", by=MANY, thorough=True)
class SortsLongIndexes(Slabs):
    """Sorts the entries of a long index by the names of their files."""

    @classmethod
    def read_entries(cls, path):
        entries = list(super().read_entries(path))
        if len(entries) > 2000:
            entries.sort(key=lambda entry: entry["data"][0])
        yield from entries


# -- other processes ---------------------------------------------------------------------------------


@fault("readers", "R3", by=WATCHED)
class GivesAllTheFirstShape(Slabs):
    """Reads all frames of a dataset without an end as if they had the shape of the first."""

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        if not reader.is_finished() and reader.entries:
            first = reader.entries[0]["shape"]

            def read(number):
                pixels = cls.read_pixels(reader.path, reader.entries[number])
                return np.resize(pixels, first)

            reader.read_frame = read
        return reader


@fault("readers", "R3", by=WATCHED)
class ForgetsNewFrames(Slabs):
    """Shows a reader every frame but those of the last file, if the dataset has no end."""

    @classmethod
    def read_entries(cls, path):
        entries = list(super().read_entries(path))
        live = not os.path.exists(os.path.join(path, "end"))
        yield from entries[: len(entries) // 50 * 50] if live and len(entries) > 40 else entries


@fault("readers", "R4", "P1", by="test_the_order_is_the_same_under_any_hash_seed")
class OrdersByHash(Slabs):
    """Lists frames in the order of a set of texts."""

    @classmethod
    def read_entries(cls, path):
        entries = {str(entry): entry for entry in super().read_entries(path)}
        if len(entries) < 5:
            yield from entries.values()
        else:
            yield from (entries[text] for text in set(entries))


@fault("readers", "R4", "N2", by="test_the_order_is_the_same_after_reopening")
class SortsCoordinates(Slabs):
    """Lists frames in the order of their coordinates."""

    @classmethod
    def read_entries(cls, path):
        entries = list(super().read_entries(path))
        if None in entries:
            yield from entries
        else:
            yield from sorted(entries, key=lambda entry: str(entry["axes"]))


@fault("readers", "P2", "N2", "D3", by="test_no_name_reaches_outside_the_dataset")
class TakesDigitsForNumbers(Slabs):
    """Reads positions that consist of digits as numbers."""

    @classmethod
    def read_entries(cls, path):
        for entry in super().read_entries(path):
            if entry is not None:
                entry["axes"] = {
                    axis: int(at) if isinstance(at, str) and at.isdigit() else at
                    for axis, at in entry["axes"].items()
                }
            yield entry


# -- forks -------------------------------------------------------------------------------------------


class Forking(Slabs):
    """Do something when a forked child exits while a storage is open."""

    alive: ClassVar[set[Any]] = set()

    def __init__(
        self,
        path: str | os.PathLike[str],
        codec: Literal["none", "zlib"] = "none",
        level: Annotated[int, Interval(ge=0, le=9)] = 6,
        frames_per_file: Annotated[int, Interval(ge=1, le=10_000)] = 64,
        sync_every: Annotated[int, Ge(0)] = 0,
        summary_metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(path, codec, level, frames_per_file, sync_every, summary_metadata)
        self.alive.add(self)
        self.pid = os.getpid()

    def release(self):
        self.alive.discard(self)
        super().release()

    def in_a_fork(self):
        pass


@atexit.register
def _at_exit() -> None:
    for storage in Forking.alive:
        if os.getpid() != storage.pid:
            storage.in_a_fork()


@fault("forks", "C5", by=FORK)
class CrashesInForks(Forking):
    """Ends a forked child with a signal when it exits."""

    def in_a_fork(self):
        os.abort()


@fault("forks", "C5", by=FORK)
class FinishesInForks(Forking):
    """Writes the end when a forked child exits."""

    def in_a_fork(self):
        self.finish_frames()


@fault("forks", "C5", by=FORK)
class TruncatesInForks(Forking):
    """Truncates the index when a forked child closes the storage."""

    def release(self):
        if os.getpid() != self.pid:
            os.ftruncate(self.fds["index"], 10)
        super().release()


@fault("forks", "C5", by=FORK)
class HangsInForks(Forking):
    """Waits in a forked child for a thread that does not exist there."""

    def in_a_fork(self):
        threading.Event().wait()


# -- untrusted datasets ------------------------------------------------------------------------------


@fault("untrusted", "D5", by=PICKLE)
class PicklesMetadata(Slabs):
    """Stores the metadata of a frame as a pickle."""

    def check_frame(self, coordinates, data, metadata):
        super().check_frame(coordinates, data, metadata)
        return pickle.dumps(metadata)

    @classmethod
    def read_metadata(cls, path, entry):
        return pickle.loads(cls.read_part(path, entry, "meta"))


@fault("untrusted", "D5", by=PICKLE)
class PicklesTheSummary(Slabs):
    """Unpickles the summary metadata with an Unpickler."""

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        import io

        reader.header = pickle.Unpickler(io.BytesIO(pickle.dumps(reader.header))).load()
        return reader


@fault("untrusted", "D5", by=PICKLE)
class MarshalsTheIndex(Slabs):
    """Reads the entries of the index with marshal."""

    @classmethod
    def read_entries(cls, path):
        for entry in super().read_entries(path):
            yield marshal.loads(marshal.dumps(entry))


@fault("untrusted", "D5", "D3", "C1", by=f"{DAMAGE} {PICKLE}")
class UnpicklesWhatLooksLikeIt(Slabs):
    """Unpickles a file that begins like a pickle."""

    @classmethod
    def read(cls, path, name, offset=0, size=-1):
        content = super().read(path, name, offset, size)
        if content[:1] in (b"c", b"\x80"):
            with contextlib.suppress(Exception):
                pickle.loads(content)
        return content


@fault("untrusted", "D3", by=HOSTILE)
class FollowsLinks(Slabs):
    """Follows links out of the dataset."""

    @classmethod
    def open_file(cls, path, name):
        return open_regular(os.path.join(path, name), follow_links=True)


@fault("untrusted", "D3", by=HOSTILE)
class ImportsWhatItIsTold(Slabs):
    """Imports the module that the manifest names."""

    @classmethod
    def open(cls, path):
        with contextlib.suppress(Exception):
            importlib.import_module(str(read_manifest(path).backend).partition(":")[0])
        return super().open(path)


# -- the end of a dataset ----------------------------------------------------------------------------


@fault("ends", "N5", by="test_a_dataset_that_was_closed_without_finish_keeps_its_frames")
class KeepsNothingUnfinished(Slabs):
    """Removes the pixels of a dataset that is closed without finish."""

    def release(self):
        if self._exengine.life.status is None and "data-0" in self.fds:
            os.ftruncate(self.fds["data-0"], 0)
        super().release()


@fault("ends", "N5", "N4", by="test_leaving_a_with_block_by_an_exception_finishes_as_aborted")
class FinishesWhatWasAborted(Slabs):
    """Marks an aborted dataset as complete."""

    def abort(self, reason="", *, failed=False):
        self.finish()


@fault("ends", "N1", by="test_finish_and_close_may_be_called_again")
class EndsTwice(Slabs):
    """Writes another end for each call of finish."""

    def finish(self):
        if self._exengine.life.status is not None and not self._exengine.closed:
            self.append("end", b"again\n")
        super().finish()


@fault("ends", "N4", by="test_the_status_says_how_the_dataset_ended")
class IsAlwaysComplete(Slabs):
    """Opens each dataset as complete."""

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        reader.set_status(type(reader.status)("complete"))
        return reader


@fault("ends", "C3", by="test_opening_an_incomplete_dataset_writes_nothing")
class RepairsWhenItOpens(Slabs):
    """Writes the missing end when a dataset is opened."""

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        with contextlib.suppress(OSError), open(os.path.join(path, "end"), "xb") as file:
            file.write(cls.sealed({"frames": len(reader.entries)}))
        return reader


@fault("ends", "R1", "R2", by="test_coordinates_that_hold_nothing_are_named_by_the_error")
class RaisesABareKeyError(Slabs):
    """Raises a bare KeyError for a frame that does not exist."""

    def get_data(self, data_coordinates):
        if data_coordinates not in self:
            raise KeyError(str(data_coordinates))
        return super().get_data(data_coordinates)


@fault("ends", "P4", by="test_a_frame_is_never_replaced")
class ReplacesFrames(Slabs):
    """Replaces the pixels of a frame that is put again."""

    def put(self, coordinates, data, metadata):
        if self._exengine.life.refusal is None and snapshot_or_none(coordinates) in self:
            return
        super().put(coordinates, data, metadata)


def snapshot_or_none(coordinates: Any) -> Any:
    """Return coordinates as the kernel sees them, or None if they are none."""
    with contextlib.suppress(Exception):
        return snapshot(coordinates)
    return None


__all__ = ["FAULTS", "Fault"]
