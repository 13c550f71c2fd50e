"""Tests of reading: R1, R2, R4, and concurrent reading in threads.

The tests that read in other processes are in ``processes``.
"""

import functools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import CoordinatesNotFoundError
from exengine.testing import catalogues
from exengine.testing.frames import check_frame
from exengine.testing.promises import PromiseBrokenError, promise
from exengine.testing.subject import (
    Model,
    Subject,
    check_order,
    coordinates_of,
    refusal_of,
    same_json,
    wait_for,
)

READERS = 8


class ReadPromises:
    """Tests of reading from a storage."""

    @promise("R1")
    def test_coordinates_that_hold_nothing_are_named_by_the_error(self, subject: Subject) -> None:
        storage = subject.create()
        _all_missing(storage, [subject.axes(0)])
        subject.fill(storage, 6)
        _all_missing(storage, _absent(subject))
        for axes in ({"angle": 3}, {}, {"time": 0}):
            try:
                storage.get_data(axes)
            except CoordinatesNotFoundError as error:
                if not any(axis in str(error) for axis in subject.axes(0) if axis not in axes):
                    raise PromiseBrokenError(
                        "R1",
                        f"the error message for {axes} mentions none of the missing axes: {error!s:.200}",
                    ) from error

    @promise("R1")
    def test_in_never_raises(self, subject: Subject) -> None:
        storage = subject.create()
        subject.fill(storage, 3)
        for entry in catalogues.FOR_IN:
            value = entry.make()
            try:
                found = value in storage
            except Exception as error:
                raise PromiseBrokenError("R1", f"`in` raised {error!r:.200} for {entry.id}") from error
            if found is not False:
                raise PromiseBrokenError(
                    "R1", f"`in` returned {found!r:.40} for {entry.id}, which was never put"
                )

    @promise("R1")
    def test_reading_at_what_are_no_coordinates_raises_an_exception_of_ours(self, subject: Subject) -> None:
        storage = subject.create()
        subject.fill(storage, 1)
        for entry in catalogues.COORDINATES:
            if entry.outcome == catalogues.REFUSED:
                for read in (storage.get_data, storage.__getitem__):
                    if refusal_of(functools.partial(read, entry.make())) is None:
                        raise PromiseBrokenError(
                            "R1", f"a read at invalid coordinates ({entry.id}) returned data"
                        )

    @promise("P3")
    def test_readers_share_nothing_that_can_be_changed(self, subject: Subject) -> None:
        path = subject.new_path()
        storage = subject.create(path)
        model = subject.fill(storage, 3)
        readers = [storage, storage]
        if subject.can.persistent and subject.can.reopen:
            storage.finish()
            storage.close()
            readers = [subject.open(path), subject.open(path)]
        for put in model.frames.values():
            first, *others = [reader.get_data(put.axes) for reader in (*readers, readers[0])]
            if first.flags.writeable:
                first[...] = 0
            for other in others:
                check_frame(other, put.frame, put.axes, "P3")
            if subject.can.metadata:
                known, *read = [reader.get_metadata(put.axes) for reader in (*readers, readers[0])]
                known["stranger"] = True
                known.get("stage", {}).clear()
                if any(not same_json(other, put.metadata) for other in read):
                    raise PromiseBrokenError(
                        "P3", f"changing the metadata read at {put.axes} changed another reader's metadata"
                    )
        for reader in readers:
            model.check(reader, "P3")

    @promise("R2")
    def test_holes_are_never_zeros(self, subject: Subject) -> None:
        path = subject.new_path()
        storage = subject.create(path)
        model = Model(subject)
        for number in (0, 5, 22):
            model.put(storage, subject.axes(number), subject.numbered(number))
        holes = [subject.axes(number) for number in range(23) if number not in (0, 5, 22)]
        _all_missing(storage, holes, "R2")
        storage.finish()
        _all_missing(storage, holes, "R2")
        storage.close()
        if subject.can.persistent and subject.can.reopen:
            opened = subject.open(path)
            _all_missing(opened, holes, "R2")
            model.check(opened, "R2")

    @promise("R2")
    def test_a_frame_of_zeros_is_a_frame(self, subject: Subject) -> None:
        path = subject.new_path()
        storage = subject.create(path)
        model = Model(subject)
        model.put(storage, subject.axes(0), frame=subject.frame(subject.axes(0)) * 0)
        model.put(storage, subject.axes(2))
        model.check(storage, "R2", absent=subject.axes(1))
        storage.finish()
        storage.close()
        if subject.can.persistent and subject.can.reopen:
            model.check(subject.open(path), "R2", absent=subject.axes(1))

    @promise("R4", code="EX305")
    def test_the_order_is_that_of_put(self, subject: Subject) -> None:
        storage = subject.create()
        if not subject.can.iterable:
            subject.fill(storage, 2)
            subject.refuses(lambda: list(storage), "iter(storage)")
            subject.refuses(lambda: len(storage), "len(storage)")
            subject.not_promised("iterable")
        if coordinates_of(storage) or len(storage) or not storage:
            raise PromiseBrokenError(
                "R4", "an empty storage must have no coordinates, have length 0 and be truthy"
            )
        wanted = put_in_odd_order(storage, subject)
        for attempt in ("first", "second"):
            try:
                check_order(coordinates_of(storage), wanted)
            except PromiseBrokenError as fault:
                raise PromiseBrokenError("R4", f"in the {attempt} iteration, {fault}") from fault
        storage.finish()
        if coordinates_of(storage) != wanted or len(storage) != len(wanted):
            raise PromiseBrokenError("R4", "the coordinates or len(storage) changed after finish")

    @promise("R4", code="EX305")
    def test_a_storage_that_is_empty_is_true(self, subject: Subject) -> None:
        if not subject.create():
            raise PromiseBrokenError("R4", "bool() returned False for an empty storage")

    @promise("R4", code="EX305")
    def test_the_order_is_the_same_after_reopening(self, subject: Subject) -> None:
        subject.needs_reopen()
        if not subject.can.iterable:
            subject.not_promised("iterable")
        path = subject.new_path()
        storage = subject.create(path)
        wanted = put_in_odd_order(storage, subject)
        storage.finish()
        storage.close()
        check_order(coordinates_of(subject.open(path)), wanted)

    @promise("P1", code="EX306")
    def test_threads_read_at_once_while_frames_are_put(self, subject: Subject) -> None:
        storage = subject.create()
        if not subject.can.concurrent_readers:
            model = subject.fill(storage, 4)
            model.check(storage)
            subject.not_promised("concurrent_readers")
        model = subject.fill(storage, 8)
        known = list(model.frames.values())

        def read() -> None:
            for put in known:
                model.check_one(storage, put, "P1")

        def write() -> None:
            for number in range(8, 60):
                axes = subject.axes(number)
                storage.put(axes, subject.frame(axes), subject.metadata_value)

        def read_often() -> None:
            for _ in range(12):
                read()

        at_once([*[read_often] * READERS, write])

    @promise("P1", code="EX306")
    def test_threads_read_a_dataset_at_once(self, subject: Subject) -> None:
        subject.needs_reopen()
        if not subject.can.concurrent_readers:
            subject.not_promised("concurrent_readers")
        path = subject.new_path()
        model = finished(subject, path, 24)
        opened = subject.open(path)
        at_once([lambda: model.check(opened, "P1")] * READERS)


def put_in_odd_order(storage: DataStorage, subject: Subject) -> list[list[tuple[str, int | str]]]:
    """Put frames in an order that no sorting would produce, and return their coordinates in that order."""
    wanted = []
    for number in (17, 3, 0, 22, 5, 1, 11):
        axes = subject.axes(number)
        storage.put(axes, subject.frame(axes), subject.metadata_value)
        wanted.append(list(axes.items()))
    return wanted


def finished(subject: Subject, path: Path, frames: int) -> Model:
    """Write, finish and close a dataset, and return its model."""
    storage = subject.create(path)
    model = subject.fill(storage, frames)
    storage.finish()
    storage.close()
    return model


def _absent(subject: Subject) -> list[dict[str, int | str]]:
    there = subject.axes(0)
    return [
        subject.axes(6),
        {**there, "time": 4711},
        {**there, "channel": "Cy7" if subject.can.string_axes else 8},
        {"time": there["time"]},
        {**there, "position": 0},
        {},
        {"angle": 3},
    ]


def _all_missing(storage: DataStorage, absent: list[dict[str, int | str]], label: str = "R1") -> None:
    for axes in absent:
        if axes in storage:
            raise PromiseBrokenError(label, f"`in` returned True for {axes}, where no frame was put")
        for read in (storage.get_data, storage.get_metadata, storage.__getitem__):
            _missing(read, axes, label)


def _missing(read: Callable[[Any], Any], axes: dict[str, int | str], label: str) -> None:
    what = f"{getattr(read, '__name__', 'reading')}({axes})"
    try:
        got = read(axes)
    except CoordinatesNotFoundError as error:
        unnamed = [at for at in axes.values() if str(at) not in str(error)]
        if unnamed and label == "R1":
            raise PromiseBrokenError(
                label, f"the error message of {what} does not mention {unnamed}: {error}"
            ) from error
        return
    except Exception as error:
        raise PromiseBrokenError(
            label, f"{what} raised {type(error).__name__} ({error!s:.150}), not CoordinatesNotFoundError"
        ) from error
    raise PromiseBrokenError(
        label, f"{what} returned a value of type {type(got).__name__}, although no frame was put there"
    )


def at_once(works: list[Callable[[], Any]]) -> None:
    """Run all functions at the same time, each in its own thread, and raise the first error."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> None:
        try:
            start.wait(30)
            work()
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [
            threading.Thread(target=run, args=(work,), name="exengine-kit", daemon=True) for work in works
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: not any(thread.is_alive() for thread in threads), 60, "reading in threads")
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
