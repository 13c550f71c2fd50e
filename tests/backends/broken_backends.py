"""Backends for tests of the kit: valid ones, and others with one fault each, which the kit must find.

Each class in ``FAULTS`` names the promises and codes that must be reported for it. The tests copy this file
into a distribution, so that other processes find its classes through the registry.
"""

import atexit
import contextlib
import importlib
import json
import os
import pickle
import shutil
import tempfile
import threading
import time
import zlib
from typing import ClassVar, Literal

import numpy as np

from exengine.base_classes import (
    CoordinateIndex,
    DataCoordinates,
    DatasetReader,
    DatasetStatus,
    DataStorage,
    ManagedStorage,
    StorageCapabilities,
    clean_metadata,
    open_regular,
    read_manifest,
    snapshot,
    status_of,
)
from exengine.errors import (
    CoordinatesError,
    CoordinatesExistError,
    CoordinatesNotFoundError,
    DatasetDamagedError,
    StorageClosedError,
    StorageFailedError,
    StorageFinishedError,
    UnsupportedDataError,
)

FAULTS = {}


def fault(*red):
    """Name the promises and codes that must be reported for a class."""

    def mark(cls):
        cls.__doc__ = f"Do one thing wrong: {cls.__name__}."
        FAULTS[cls] = red
        return cls

    return mark


def capabilities(cls, **changed):
    return StorageCapabilities(**{**dict(cls.capabilities.items()), **changed})


# -- in memory, with the six methods and no more -----------------------------------------------------


class Plain(DataStorage):
    """Keep frames in a dict, with only the methods that the contract requires."""

    capabilities = StorageCapabilities(
        string_axes=True, negative_indices=True, metadata=True, concurrent_readers=True
    )

    def __init__(self):
        self.frames = {}
        self.ended = None
        self.lock = threading.Lock()

    def put(self, coordinates, data, metadata):
        self._check_state()
        key, data, metadata = snapshot(coordinates), self._take(data), clean_metadata(metadata)
        with self.lock:
            self._check_place(key)
            self._keep(key, data, metadata)

    def _check_state(self):
        if self.ended:
            raise self.ended("no more frames")

    def _take(self, data):
        if not isinstance(data, np.ndarray) or data.dtype.hasobject or isinstance(data, np.ma.MaskedArray):
            raise UnsupportedDataError("no array of numbers")
        return np.array(data)

    def _check_place(self, key):
        if key in self.frames:
            raise CoordinatesExistError(f"a frame is at {key}")

    def _keep(self, key, data, metadata):
        self.frames[key] = (data, json.dumps(metadata))

    def _find(self, coordinates):
        key = snapshot(coordinates)
        if key not in self.frames:
            raise CoordinatesNotFoundError(self._absence(key))
        return self.frames[key]

    def _absence(self, key):
        return f"nothing at {key}; the axes are {sorted({axis for axes in self.frames for axis in axes})}"

    def get_data(self, coordinates):
        return self._find(coordinates)[0].copy()

    def get_metadata(self, coordinates):
        return json.loads(self._find(coordinates)[1])

    def __contains__(self, coordinates):
        try:
            return snapshot(coordinates) in self.frames
        except Exception:
            return False

    def finish(self):
        self.ended = self.ended or StorageFinishedError

    def close(self):
        self.ended = StorageClosedError


@fault("P3")
class KeepsTheArray(Plain):
    def _take(self, data):
        super()._take(data)
        return data


@fault("P3")
class KeepsTheMetadata(Plain):
    def put(self, coordinates, data, metadata):
        super().put(coordinates, data, metadata)
        self.frames[snapshot(coordinates)] = (self.frames[snapshot(coordinates)][0], metadata)

    def get_metadata(self, coordinates):
        return self._find(coordinates)[1]


@fault("P9", "EX304")
class LosesMetadata(Plain):
    def get_metadata(self, coordinates):
        self._find(coordinates)
        return {}


@fault("P4")
class ReplacesFrames(Plain):
    def _check_place(self, key):
        pass


@fault("P5")
class TakesFramesAfterFinish(Plain):
    def _check_state(self):
        pass


@fault("P1", "P8", "EX302")
class ChangesTheDtype(Plain):
    def get_data(self, coordinates):
        data = super().get_data(coordinates)
        return data if len(self.frames) == 1 else data.astype(np.float64)


@fault("P1")
class MisplacesFrames(Plain):
    def get_data(self, coordinates):
        self._find(coordinates)
        keys = list(self.frames)
        return self.frames[keys[keys.index(snapshot(coordinates)) ^ 1 if len(keys) > 5 else 0]][0]


@fault("R1", "R2")
class GivesZerosForWhatIsMissing(Plain):
    def get_data(self, coordinates):
        return super().get_data(coordinates) if coordinates in self else np.zeros((24, 40), np.uint16)


@fault("P1")
class DropsFramesSilently(Plain):
    def _keep(self, key, data, metadata):
        if len(self.frames) != 7:
            super()._keep(key, data, metadata)


@fault("R1")
class RaisesInContains(Plain):
    def __contains__(self, coordinates):
        return snapshot(coordinates) in self.frames


@fault("P2")
class KeepsWhatItRefused(Plain):
    def put(self, coordinates, data, metadata):
        self._check_state()
        key = snapshot(coordinates)
        self._check_place(key)
        self.frames[key] = (np.zeros((1, 1)), "{}")
        self._keep(key, self._take(data), clean_metadata(metadata))


@fault("P8")
class IgnoresTheOrderInMemory(Plain):
    def _take(self, data):
        data = super()._take(data)
        return np.frombuffer(data.tobytes("A"), data.dtype).reshape(data.shape) if data.size else data


@fault("P9")
class TakesNaN(Plain):
    def put(self, coordinates, data, metadata):
        super().put(coordinates, data, None if isinstance(metadata, float) else metadata)


@fault("EX302", "P8")
class DeclaresADtypeThatItRefuses(Plain):
    capabilities = capabilities(Plain, dtypes=("uint16", "float32"))

    def _take(self, data):
        if super()._take(data).dtype != np.uint16:
            raise UnsupportedDataError("uint16 only")
        return super()._take(data)


@fault("EX302", "P8")
class TakesADtypeThatItDoesNotDeclare(Plain):
    capabilities = capabilities(Plain, dtypes=("uint16", "uint8"))


@fault("EX302", "P8")
class DeclaresOneNumberOfDimensions(Plain):
    capabilities = capabilities(Plain, ndim=(2,))


@fault("EX302", "P8")
class DeclaresOneShape(Plain):
    capabilities = capabilities(Plain, same_shape=True)


@fault("EX303", "P2")
class TakesTextsThatItDoesNotDeclare(Plain):
    capabilities = capabilities(Plain, string_axes=False)


@fault("EX303", "P2")
class DeclaresNegativePositions(Plain):
    def _check_place(self, key):
        super()._check_place(key)
        if any(isinstance(at, int) and at < 0 for at in key.values()):
            raise CoordinatesError("positions from 0")


@fault("EX304", "P9")
class KeepsMetadataThatItDoesNotDeclare(Plain):
    capabilities = capabilities(Plain, metadata=False)


@fault("EX305", "R4")
class DeclaresAnOrder(Plain):
    capabilities = capabilities(Plain, iterable=True)

    def __iter__(self):
        return iter(sorted(self.frames, key=str))

    def __len__(self):
        return len(self.frames)


@fault("EX305", "R4")
class CountsWithoutSaying(Plain):
    def __len__(self):
        return len(self.frames)


@fault("EX305", "R4")
class IsFalseWhenItIsEmpty(Plain):
    def __bool__(self):
        return bool(self.frames)


@fault("EX306", "P1")
class SharesABuffer(Plain):
    def get_data(self, coordinates):
        data = self._find(coordinates)[0]
        if not hasattr(self, "buffer") or self.buffer.shape != data.shape or self.buffer.dtype != data.dtype:
            self.buffer = np.empty_like(data)
        for row in range(len(data)):
            self.buffer[row] = data[row]
            time.sleep(0)  # another thread runs
        return self.buffer.copy()


@fault("EX309", "F2")
class FlushesWithoutSaying(Plain):
    def flush(self, durable=False):
        pass


@fault("N1")
class FinishesOnce(Plain):
    def finish(self):
        self._check_state()
        super().finish()


@fault("N4")
class IsAlwaysComplete(Plain):
    status = DatasetStatus.COMPLETE


@fault("EX301", "N2")
class OpensWithoutSaying(Plain):
    @classmethod
    def open(cls, path):
        return cls()


# -- on the disk -------------------------------------------------------------------------------------


class Disk(ManagedStorage):
    """Write each frame to its own file, with a checksum."""

    capabilities = StorageCapabilities(
        persistent=True, string_axes=True, negative_indices=True, metadata=True, iterable=True, reopen=True,
        read_while_writing=True, concurrent_readers=True, checksums=True, safety_of_put="written", durable_flush=True,
    )  # fmt: skip

    dataset_files = ("{number}.frame", "{number}.frame.new")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)

    def __contains__(self, coordinates):
        try:
            return super().__contains__(coordinates)
        except Exception:
            return False

    checks = True

    @classmethod
    def can_open(cls, path):
        return os.path.isfile(os.path.join(path, "0.frame"))

    @classmethod
    def open(cls, path):
        return Reader.of(path, cls)

    def check_frame(self, coordinates, data, metadata):
        if data.dtype.kind not in "biufc":
            raise UnsupportedDataError("numbers only")
        return metadata

    open_file = staticmethod(open_regular)

    def write_frame(self, number, coordinates, data, checked):
        head = [coordinates.coordinate_dict, data.dtype.str, data.shape, checked]
        text = json.dumps(head).encode() + b"\n" + data.tobytes()
        path = os.path.join(self.path, f"{number}.frame")
        with open(path + ".new", "wb") as file:
            file.write(b"%08x" % zlib.crc32(text) + text)
        os.replace(path + ".new", path)

    def read_frame(self, number):
        return _read(self, number)[1]

    def read_frame_metadata(self, number):
        return _read(self, number)[0][3]


def _read(storage, number):
    try:
        with os.fdopen(storage.open_file(os.path.join(storage.path, f"{number}.frame")), "rb") as file:
            content = file.read()
        if storage.checks and zlib.crc32(content[8:]) != int(content[:8], 16):
            raise ValueError("the checksum differs")
        text, _, pixels = content[8:].partition(b"\n")
        head = json.loads(text)
        return head, np.frombuffer(pixels, head[1]).reshape(head[2]).copy()
    except (OSError, ValueError) as error:
        raise DatasetDamagedError(f"frame {number}: {error}") from error


class Reader(DatasetReader):
    open_file = staticmethod(open_regular)
    read_frame = Disk.read_frame
    read_frame_metadata = Disk.read_frame_metadata

    def __contains__(self, coordinates):
        try:
            return super().__contains__(coordinates)
        except Exception:
            return False

    @classmethod
    def of(cls, path, writer):
        manifest = read_manifest(path)
        if manifest is None and not writer.can_open(path):
            raise DatasetDamagedError(f"no dataset at {path}")
        index = CoordinateIndex()
        reader = cls(os.fspath(path), index, status_of(manifest), manifest)
        reader.checks, reader.open_file = writer.checks, writer.open_file
        reader.capabilities = writer.capabilities
        names = os.listdir(path)
        numbers = [number for number in range(len(names)) if f"{number}.frame" in names]
        reader.numbers = []
        for number in numbers:
            try:
                head = _read(reader, number)[0]
                if index.add(DataCoordinates(head[0]).coordinate_dict) is not None:
                    reader.numbers.append(number)
            except DatasetDamagedError:
                reader.set_status(DatasetStatus.DAMAGED)
        if manifest is None or manifest.get("frames", len(numbers)) != len(numbers):
            reader.set_status(DatasetStatus.DAMAGED if manifest else reader.status)
        reader.read_frame = lambda number: _read(reader, reader.numbers[number])[1]
        reader.read_frame_metadata = lambda number: _read(reader, reader.numbers[number])[0][3]
        return reader


class Resuming(Disk):
    """Continue a dataset whose writer has ended."""

    capabilities = capabilities(Disk, resumable=True)

    @classmethod
    def resume(cls, path, /, **options):
        continued = type(cls.__name__, (cls,), {"continues": True, "__doc__": cls.__doc__})
        return continued(path, **options)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        if self.continues:
            self.begin_continuing()
            self.continue_from(Reader.of(self.path, Disk))


class Limited(Disk):
    """Store frames with the same axes, at most two, so that other programs see them immediately.

    Parameters
    ----------
    path : path
        Where.
    hidden : bool
        Whether other programs see nothing. In this case, any axes are accepted.
    """

    capabilities = capabilities(Disk, same_axes=True, most_axes=2, live_readers=("cat",))
    variants: ClassVar = {"hidden": {"hidden": True}}
    foreign_reader = "broken_backends:read_with_cat"

    def __init__(self, path: str | os.PathLike[str], hidden: bool = False) -> None:
        self.capabilities = type(self).capabilities_for({"hidden": hidden})
        super().__init__(path)

    @classmethod
    def capabilities_for(cls, options, path=None, /):
        if not options.get("hidden"):
            return cls.capabilities
        return capabilities(cls, same_axes=False, most_axes=None, live_readers=())


class WrongVariant(Limited):
    __doc__ = Limited.__doc__
    variants: ClassVar = {"wrong": {"hidden": True}}

    @classmethod
    def capabilities_for(cls, options, path=None, /):
        return cls.capabilities  # any axes are accepted if the frames are hidden

    def __init__(self, path: str | os.PathLike[str], hidden: bool = False) -> None:
        super().__init__(path, hidden)
        if hidden:
            self._exengine.checks.limits_axes = False


class MisspeltVariant(Limited):
    __doc__ = Limited.__doc__
    variants: ClassVar = {"wrong": {"hiden": True}}


def read_with_cat(path, coordinates):
    """Return the pixels of a frame without using the backend."""
    for name in os.listdir(path):
        if name.endswith(".frame"):
            with open(os.path.join(path, name), "rb") as file:
                text, _, pixels = file.read()[8:].partition(b"\n")
            head = json.loads(text)
            if head[0] == coordinates:
                return np.frombuffer(pixels, head[1]).reshape(head[2])
    raise FileNotFoundError(coordinates)


def read_at_the_end(path, coordinates):
    """Return the frames that a reader sees in a format with its index at the end."""
    pixels = read_with_cat(path, coordinates)
    return pixels if read_manifest(path).status == "complete" else np.zeros_like(pixels)


@fault("C6")
class ShowsFramesAtTheEnd(Disk):
    capabilities = capabilities(Disk, live_readers=("cat",))
    foreign_reader = "broken_backends:read_at_the_end"


@fault("P2", "EX303")
class DeclaresTheSameAxes(Plain):
    capabilities = capabilities(Plain, same_axes=True)


@fault("P2", "EX303")
class DeclaresFewAxes(Plain):
    capabilities = capabilities(Plain, most_axes=3)


@fault("P2", "EX303")
class TakesOnlyTheAxesOfTheFirst(Disk):
    def check_frame(self, coordinates, data, metadata):
        if len(self) and set(next(iter(self))) != set(coordinates):
            raise CoordinatesError("other axes")
        return super().check_frame(coordinates, data, metadata)


@fault("P2", "EX303")
class TakesFewAxes(Disk):
    def check_frame(self, coordinates, data, metadata):
        if len(coordinates) > 5:
            raise CoordinatesError("too many axes")
        return super().check_frame(coordinates, data, metadata)


@fault("N2", "EX301")
class ReportsOtherCapabilitiesThanItHas(Disk):
    @classmethod
    def capabilities_for(cls, options, path=None, /):
        return capabilities(cls, concurrent_readers=False)


@fault("EX301", "N2")
class RecognisesEverything(Disk):
    @classmethod
    def can_open(cls, path):
        return True


@fault("EX301", "N2")
class DeclaresThatItReopens(Disk):
    @classmethod
    def open(cls, path):
        raise DatasetDamagedError("never")


@fault("EX301", "N2")
class OpensWithoutTheCapabilities(Disk):
    @classmethod
    def open(cls, path):
        reader = super().open(path)
        reader.capabilities = StorageCapabilities()
        return reader


@fault("EX301", "N5")
class DeclaresThatItResumes(Disk):
    capabilities = capabilities(Disk, resumable=True)


@fault("EX301", "N5")
class ForgetsAFrameWhenItResumes(Resuming):
    def continue_from(self, frames):
        super().continue_from(list(frames)[:-1])


@fault("EX301", "N5")
class ResumesAFinishedDataset(Resuming):
    def begin_continuing(self):
        pass


@fault("EX301", "N5")
class ResumesWithoutSaying(Resuming):
    capabilities = Disk.capabilities


@fault("EX308", "P6", "EX306", "R3", "F1", "F2", "EX309", "N5")
class WritesAtFinish(Disk):
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.waiting = {}
        super().__init__(path)

    def write_frame(self, number, coordinates, data, checked):
        self.waiting[number] = (coordinates, data.copy(), checked)

    def finish_frames(self):
        for number, frame in self.waiting.items():
            super().write_frame(number, *frame)
        self.waiting.clear()
        super().finish_frames()

    def read_frame(self, number):
        return self.waiting[number][1].copy() if number in self.waiting else super().read_frame(number)

    def read_frame_metadata(self, number):
        return self.waiting[number][2] if number in self.waiting else super().read_frame_metadata(number)


@fault("EX307", "C2")
class HasNoChecksums(Disk):
    checks = False


@fault("C1")
class LetsForeignErrorsOut(Disk):
    @classmethod
    def open(cls, path):
        reader = super().open(path)
        if reader.status is DatasetStatus.DAMAGED:
            reader.get_metadata = lambda at: 1 / 0
        return reader


@fault("N3", "EX309")
class SyncsNothing(Disk):
    def sync_frames(self):
        pass


@fault("N6", "O1")
class IgnoresItsOptions(Disk):
    def __init__(
        self,
        path: str | os.PathLike[str],
        order: Literal["C", "F"] = "C",
        summary_metadata: dict | None = None,
    ) -> None:
        super().__init__(path)


IgnoresItsOptions.__doc__ = """Ignore all options.

Parameters
----------
path : path
    The path of the dataset.
order : {"C", "F"}
    The order of the pixels.
summary_metadata : dict, optional
    Metadata of the whole dataset.
"""


@fault("C4")
class TruncatesAFrameAfterAFailure(Disk):
    def release(self):
        if self._exengine.life.error is not None:
            os.truncate(os.path.join(self.path, "0.frame"), 10)


@fault("C5")
class EndsForkedProcesses(Disk):
    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        pid = os.getpid()
        atexit.register(lambda: os.getpid() != pid and os.abort())


@fault("C7")
class LeaksWhenItCannotOpen(Disk):
    @classmethod
    def open(cls, path):
        folder = os.open(path, os.O_RDONLY)
        reader = super().open(path)
        os.close(folder)
        return reader


@fault("D5")
class UnpicklesNumbers(Disk):
    def read_frame(self, number):
        return super().read_frame(pickle.loads(pickle.dumps(number)))

    @classmethod
    def open(cls, path):
        reader = super().open(path)
        pickle.loads(pickle.dumps(len(reader)))
        return reader


@fault("C3")
class WritesWhenItOpens(Disk):
    @classmethod
    def open(cls, path):
        with open(os.path.join(path, "opened"), "a") as file:
            file.write("x")
        return super().open(path)


@fault("D3")
class WritesFilesNamedByPositions(Disk):
    def write_frame(self, number, coordinates, data, checked):
        super().write_frame(number, coordinates, data, checked)
        if coordinates.channel == "../escaped":
            with open(os.path.join(self.path, coordinates.channel), "w") as file:
                file.write("x")


@fault("P7")
class SwallowsErrorsOfTheDisk(Disk):
    def write_frame(self, number, coordinates, data, checked):
        with contextlib.suppress(OSError):
            super().write_frame(number, coordinates, data, checked)


def _follow(path):
    return os.open(path, os.O_RDONLY)


@fault("D3")
class FollowsLinks(Disk):
    open_file = staticmethod(_follow)


@fault("D3")
class RunsWhatItReads(Disk):
    @classmethod
    def open(cls, path):
        reader = super().open(path)
        eval(compile(repr(reader.backend_name), "<data>", "eval"))
        return reader


@fault("D3")
class ImportsWhatItReads(Disk):
    @classmethod
    def open(cls, path):
        with contextlib.suppress(Exception):
            importlib.import_module(read_manifest(path)["annotations"]["__class__"])
        return super().open(path)


@fault("P5")
class WritesAfterAFailure(Disk):
    def put(self, coordinates, data, metadata):
        try:
            super().put(coordinates, data, metadata)
        except StorageFailedError:
            with contextlib.suppress(OSError), open(os.path.join(self.path, "late"), "a") as file:
                file.write("x")
            raise


@fault("N1")
class ForgetsAfterClose(Plain):
    """Return black images after it has been closed."""

    def close(self):
        super().close()
        self.closed = True

    def get_data(self, coordinates):
        data = super().get_data(coordinates)
        return np.zeros_like(data) if getattr(self, "closed", False) else data


@fault("P7")
class ForgetsASyncThatFailed(Disk):
    def flush(self, durable=False):
        try:
            if durable:
                self.sync_frames()
        except OSError as error:
            raise StorageFailedError(str(error)) from error


@fault("D2")
class LocksInForks(Disk):
    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.second = os.dup(self._exengine.place._lock)

    def release(self):
        os.close(self.second)


@fault("N1")
class LeavesAFileOpen(Disk):
    def finish_frames(self):
        super().finish_frames()
        os.open(os.path.join(self.path, "0.frame"), os.O_RDONLY)


@fault("C1")
class LeavesAThreadBehind(Disk):
    @classmethod
    def open(cls, path):
        threading.Thread(target=threading.Event().wait, name="left-behind", daemon=True).start()
        return super().open(path)


@fault("P1")
class KeepsWhatWasRead(Disk):
    kept: ClassVar = []

    def read_frame(self, number):
        frame = super().read_frame(number)
        self.kept.append(frame.copy())
        return frame


@fault("P1")
class LosesFramesOfThreads(Plain):
    def _keep(self, key, data, metadata):
        frames = dict(self.frames)
        frames[key] = (data, json.dumps(metadata))
        time.sleep(0.001)
        self.frames = frames

    def put(self, coordinates, data, metadata):
        self._check_state()
        key, data, metadata = snapshot(coordinates), self._take(data), clean_metadata(metadata)
        self._check_place(key)
        self._keep(key, data, metadata)


@fault("P4")
class LooksBeforeOthersPut(Plain):
    def put(self, coordinates, data, metadata):
        self._check_state()
        key, data, metadata = snapshot(coordinates), self._take(data), clean_metadata(metadata)
        self._check_place(key)
        time.sleep(0.001)
        self._keep(key, data, metadata)


@fault("R1")
class NamesNoAxes(Plain):
    def _absence(self, key):
        return f"nothing at {key}"


@fault("C2")
class SaysCompleteWhenFramesAreGone(Disk):
    @classmethod
    def open(cls, path):
        reader = super().open(path)
        reader.set_status(DatasetStatus.COMPLETE)
        return reader


@fault("C3")
class LosesAFrameInARecovery(Disk):
    @classmethod
    def recover_in_place(cls, path, lost, notes=None):
        os.remove(os.path.join(path, "0.frame"))


@fault("C3")
class WritesToTheOriginalInARecovery(Disk):
    @classmethod
    def open(cls, path):
        reader = super().open(path)
        if reader.status is DatasetStatus.INCOMPLETE:
            reader.check_structure = lambda: open(os.path.join(path, "checked"), "a").close() or []
        return reader


@fault("D4")
class ClaimsFilesOfOthers(Disk):
    dataset_files = ("{name}.frame", "{name}.frame.new")


@fault("D1", "D4")
class KnowsNotAllOfItsFiles(Disk):
    dataset_files = ("0.frame", "{number}.frame.new")


@fault("D4")
class DeclaresEveryFile(Disk):
    dataset_files = ("{name}",)


@fault("D1")
class MovesIn(DataStorage):
    capabilities = StorageCapabilities(persistent=True)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.join(os.path.dirname(path), "dataset")
        shutil.rmtree(self.path, ignore_errors=True)
        os.mkdir(self.path)
        with tempfile.NamedTemporaryFile(dir=self.path, delete=False) as file:
            file.write(b"new")
        self.frames = {}
        self.lock = threading.Lock()

    put = Plain.put
    _check_state = lambda self: None  # noqa: E731
    _take = Plain._take
    _check_place = Plain._check_place
    _keep = Plain._keep
    _find = Plain._find
    _absence = Plain._absence
    get_data = Plain.get_data
    get_metadata = Plain.get_metadata
    __contains__ = Plain.__contains__
    finish = close = lambda self: None
