"""Tests of put: P1 to P5. The tests with hostile input are in ``hostile``."""

import copy
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import CoordinatesExistError, ExEngineError, StorageStateError
from exengine.kernel.storage.manifest import LOCK_NAME
from exengine.testing.children import Child
from exengine.testing.promises import NotRun, PromiseBrokenError, promise
from exengine.testing.subject import Model, Subject, check_metadata, ending_of, refusal_of, tree_of

FRAMES = 48
SIMPLEST_S = 4.0
_simplest: dict[Any, str] = {}
BITWISE = (
    "int64", "uint64", "int32", "uint32", "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
"""The dtypes that are tested with random bits, if the backend does not declare its own."""


class PutPromises:
    """Tests of put and put_many."""

    @promise("P1")
    def test_the_simplest_put_stores_a_frame(self, subject: Subject) -> None:
        fault = simplest_fault(subject)
        if fault:
            raise PromiseBrokenError("P1", f"the simplest put failed, so no other test was run: {fault}")

    @promise("P1")
    def test_every_frame_that_was_put_is_there_bit_equal(self, subject: Subject) -> None:
        storage = subject.create()
        model = Model(subject)
        for number in range(FRAMES):
            axes = subject.axes(number)
            if axes in storage:
                raise PromiseBrokenError("P1", f"`in` returned True for {axes} before a frame was put there")
            model.put(storage, axes, subject.numbered(number))
            newest = model.frames[frozenset(axes.items())]
            first = next(iter(model.frames.values()))
            for put in (newest, first):
                model.check_one(storage, put)
        model.check(storage, absent=subject.axes(FRAMES))

    @promise("P1")
    def test_a_frame_is_found_by_any_spelling_of_its_coordinates(self, subject: Subject) -> None:
        storage = subject.create()
        model = subject.fill(storage, 4)
        for put in model.frames.values():
            for spelling in _spellings(put.axes):
                if spelling not in storage:
                    raise PromiseBrokenError(
                        "P1",
                        f"the frame put at {put.axes} cannot be found at the equivalent coordinates "
                        f"{spelling!r}",
                    )
                if not np.array_equal(storage.get_data(spelling), put.frame):
                    raise PromiseBrokenError("P1", f"get_data({spelling!r}) returned a different frame")
                if not np.array_equal(storage[spelling], put.frame):
                    raise PromiseBrokenError(
                        "P1", f"storage[...] and get_data(...) return different frames at {spelling!r}"
                    )

    @promise("P1")
    def test_every_bit_of_a_number_is_kept(self, subject: Subject) -> None:
        for name in subject.can.dtypes or BITWISE:
            if np.dtype(name).kind not in "iufc":
                continue
            frame = _any_bits(np.dtype(name), subject.shape)
            path = subject.new_path()
            storage = subject.create(path)
            model = Model(subject)
            model.put(storage, subject.axes(0), frame=frame)
            model.check(storage, "P1")
            storage.finish()
            storage.close()
            if subject.can.persistent and subject.can.reopen:
                model.check(subject.open(path), "P1")

    @promise("P1")
    def test_what_one_thread_puts_another_reads(self, subject: Subject) -> None:
        storage = subject.create()
        model = subject.fill(storage, 6)
        in_thread(lambda: model.check(storage))
        in_thread(lambda: model.put(storage, subject.axes(6)))
        model.check(storage)

    @promise("P1")
    def test_put_many_stores_each_frame_in_order(self, subject: Subject) -> None:
        storage = subject.create()
        model = Model(subject)
        batch: list[Any] = []
        for number in range(9):
            axes, metadata = subject.axes(number), subject.numbered(number)
            batch.append((axes, subject.frame(axes), metadata))
            model.add(axes, subject.frame(axes), metadata)
        storage.put_many(iter(batch))
        model.check(storage, absent=subject.axes(9))

    @promise("P2", "P4")
    def test_put_many_stores_the_frames_before_the_one_that_is_refused(self, subject: Subject) -> None:
        storage = subject.create()
        model = subject.fill(storage, 2)
        batch = [(subject.axes(n), subject.frame(subject.axes(n)), subject.numbered(n)) for n in (2, 0, 3)]
        error = refusal_of(lambda: storage.put_many(batch))
        if not isinstance(error, CoordinatesExistError):
            raise PromiseBrokenError(
                "P4",
                f"put_many at coordinates that already have a frame {ending_of(error)}, but must raise "
                "CoordinatesExistError",
            )
        model.add(subject.axes(2), subject.frame(subject.axes(2)), subject.numbered(2))
        model.check(storage, "P2", absent=subject.axes(3))

    @promise("P3")
    def test_changing_the_array_after_put_changes_nothing_stored(self, subject: Subject) -> None:
        storage = subject.create()
        model = Model(subject)
        buffer = subject.frame(subject.axes(0))
        for number in range(4):
            axes = subject.axes(number)
            buffer[...] = subject.frame(axes)
            storage.put(axes, buffer, subject.metadata_value)
            model.add(axes, subject.frame(axes), subject.metadata_value)
            buffer[...] = 0
            model.check(storage, "P3")

    @promise("P3", "P9")
    def test_changing_metadata_after_put_changes_nothing_stored(self, subject: Subject) -> None:
        if not subject.can.metadata:
            _refuses_metadata(subject)
            subject.not_promised("metadata")
        storage = subject.create()
        metadata = {"nested": {"list": [1, 2]}, "name": "before"}
        wanted = copy.deepcopy(metadata)
        axes = subject.axes(0)
        storage.put(axes, subject.frame(axes), metadata)
        metadata["nested"]["list"].append(3)  # type: ignore[index]  # a dict with a list
        metadata["name"] = "after"
        check_metadata(storage, axes, wanted, "P3")

    @promise("P3")
    def test_changing_what_was_read_changes_nothing_stored(self, subject: Subject) -> None:
        storage = subject.create()
        model = subject.fill(storage, 2)
        for put in model.frames.values():
            got = storage.get_data(put.axes)
            if got.flags.writeable:
                got[...] = 0
            if subject.can.metadata:
                read = storage.get_metadata(put.axes)
                read["stranger"] = True
                read.get("stage", {}).clear()
        model.check(storage, "P3")

    @promise("P3")
    def test_changing_coordinates_after_put_moves_no_frame(self, subject: Subject) -> None:
        storage = subject.create()
        model = Model(subject)
        axes = subject.axes(0)
        for given in (DataCoordinates(subject.axes(0)), subject.axes(2)):
            wanted = dict(given.items())
            frame = subject.frame(wanted)
            storage.put(given, frame, subject.metadata_value)
            model.add(wanted, frame, subject.metadata_value)
            given["time"] = 77
        model.check(storage, "P3", absent={**axes, "time": 77})

    @promise("P4")
    def test_a_frame_is_never_replaced(self, subject: Subject) -> None:
        storage = subject.create()
        model = subject.fill(storage, 5)
        for put in list(model.frames.values()):
            for spelling in _spellings(put.axes):
                other = subject.frame(put.axes, salt=1)
                error = refusal_of(lambda at=spelling, new=other: storage.put(at, new, subject.numbered(99)))  # type: ignore[misc]
                if not isinstance(error, CoordinatesExistError):
                    raise PromiseBrokenError(
                        "P4",
                        f"put at {spelling!r}, where a frame exists, {ending_of(error)}, but must raise "
                        "CoordinatesExistError",
                    )  # fmt: skip
        model.check(storage, "P4")

    @promise("P5")
    def test_put_after_finish_raises_and_changes_no_file(self, subject: Subject) -> None:
        self._put_after(subject, lambda storage: storage.finish())

    @promise("P5")
    def test_put_after_close_raises_and_changes_no_file(self, subject: Subject) -> None:
        self._put_after(subject, lambda storage: storage.close())

    @promise("P5")
    def test_put_after_finish_and_close_raises_and_changes_no_file(self, subject: Subject) -> None:
        self._put_after(subject, lambda storage: (storage.finish(), storage.close()))

    @promise("P5")
    def test_put_after_abort_raises_and_changes_no_file(self, subject: Subject) -> None:
        self._put_after(subject, lambda storage: storage.abort("a test"))

    @staticmethod
    def _put_after(subject: Subject, end: Callable[[DataStorage], Any]) -> None:
        path = subject.new_path()
        storage = subject.create(path)
        subject.fill(storage, 3)
        end(storage)
        before = _files_at(path)
        for axes in (subject.axes(5), subject.axes(0)):
            _refused_by_state(storage, axes, subject)
        storage.close()
        if _files_at(path) != before:
            raise PromiseBrokenError("P5", "a refused put changed the dataset's files")


def simplest_fault(subject: Subject) -> str:
    """Store and read one frame. Return the fault, or an empty string. The result is cached for each class.

    A child process does this, because a backend may hang or end the process.
    """
    key = (subject.cls, repr(sorted(subject.options.items(), key=str)))
    if key not in _simplest:
        try:
            path = os.fspath(subject.new_path())
            with Child(subject, "simplest", path=path) as child:
                said = list(child.lines(SIMPLEST_S, each_line=True))
            fault = (said or [{}])[-1].get("fault", "")
        except PromiseBrokenError as error:
            fault = str(error)
        except NotRun:  # no other process can import the class
            fault = ""
        _simplest[key] = fault
    return _simplest[key]


def _any_bits(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """Return a frame of random bits. Floats include -0.0, subnormals and all kinds of NaN."""
    part = np.dtype(f"float{4 * dtype.itemsize}") if dtype.kind == "c" else dtype
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    values = np.random.default_rng(7).integers(0, 256, size, np.uint8).view(part)
    if part.kind == "f":
        special = [np.nan, -np.nan, np.inf, -np.inf, -0.0, np.finfo(part).tiny / 2]
        raw = values.view(f"uint{8 * part.itemsize}")
        ones = int(np.array(np.inf, part).view(raw.dtype))  # the bits of the exponent
        nan = raw[: raw.size // 4]
        nan |= np.array(ones | 1, raw.dtype)  # quiet and signaling NaNs with payloads
        values[-len(special) :] = special
    return values.view(dtype).reshape(shape)


def _files_at(path: Path) -> dict[str, str]:
    """Return the digests of a dataset's files, except for the lock file next to a single-file dataset."""
    found = tree_of(path.parent)
    found.pop(f"{path.name}.{LOCK_NAME}", None)
    return found


def _refused_by_state(storage: DataStorage, axes: Any, subject: Subject) -> None:
    try:
        storage.put(axes, subject.frame(axes), subject.metadata_value)
    except StorageStateError:
        return
    except ExEngineError as error:
        raise PromiseBrokenError("P5", f"put raised {error!r:.200}, not StorageStateError") from error
    except Exception as error:
        raise PromiseBrokenError("P5", f"put raised {error!r:.200}, which is not an ExEngineError") from error
    raise PromiseBrokenError("P5", "a finished or closed storage accepted a frame")


def _refuses_metadata(subject: Subject) -> None:
    """Check that a backend without support for metadata refuses metadata in put or in get_metadata."""
    storage = subject.create()
    axes = subject.axes(0)
    if refusal_of(lambda: storage.put(axes, subject.frame(axes), {"exposure_ms": 10})) is None:
        subject.refuses(lambda: storage.get_metadata(axes), "get_metadata")


def _spellings(axes: dict[str, int | str]) -> list[Any]:
    """Return the same coordinates in several equivalent forms."""
    numpy_ints = {name: np.int64(at) if isinstance(at, int) else at for name, at in axes.items()}
    backwards = dict(reversed(list(axes.items())))
    return [dict(axes), backwards, DataCoordinates(axes), DataCoordinates(backwards), numpy_ints]


def in_thread(work: Callable[[], Any], timeout_s: float = 60) -> None:
    """Call a function in another thread, wait for it to return, and re-raise its exception in this thread."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="exengine-kit", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise PromiseBrokenError("", f"a call in another thread did not return within {timeout_s} s")
    if errors:
        raise errors[0]
