"""Tests of resource leaks, concurrent writers and failed syncs: P1, P4, P7, F2, N1, C1."""

import os
import threading
from collections.abc import Iterator
from typing import Any

from exengine.kernel.errors import CoordinatesExistError
from exengine.testing.children import Child
from exengine.testing.kit.read import at_once
from exengine.testing.promises import NotRun, PromiseBrokenError, promise
from exengine.testing.subject import Model, Subject, check_order, ending_of, key_of, refusal_of

WRITERS = 8
MANY, MANY_THOROUGH = 600, 6000
"""The number of frames in one dataset. Some faults begin only when a buffer, a table or a file is full."""
_EACH = 12
_PATIENCE_S = 60.0
_MOST = {"kib": 64.0, "descriptors": 0.1, "threads": 0.1}
"""The largest permitted growth per cycle: less memory than half a frame needs, and practically no growth in
the number of descriptors or threads."""


class ResourcePromises:
    """Tests that repeat many cycles or use many threads at the same time."""

    @promise("P1")
    def test_threads_put_into_one_storage_at_once(self, subject: Subject) -> None:
        path = subject.new_path()
        storage = subject.create(path)
        model = Model(subject)

        def write(first: int) -> None:
            for number in range(first, first + _EACH):
                axes = subject.axes(number)
                storage.put(axes, subject.frame(axes), subject.numbered(number))
                model.check_one(storage, model.entry(axes, subject.frame(axes), subject.numbered(number)))

        at_once([lambda start=k * _EACH: write(start) for k in range(WRITERS)])  # type: ignore[misc]
        _holds_all(storage, subject)
        storage.finish()
        storage.close()
        if subject.can.persistent and subject.can.reopen:
            _holds_all(subject.open(path), subject)

    @promise("P1", "N2")
    def test_hundreds_of_frames_are_stored_like_the_first(self, subject: Subject) -> None:
        count = MANY_THOROUGH if subject.thorough else MANY
        path = subject.new_path()
        storage = subject.create(path)
        model = Model(subject)
        batch: list[Any] = []
        for number in range(count):
            axes = subject.axes(number)
            frame, metadata = subject.frame(axes), subject.numbered(number)
            model.add(axes, frame, metadata)
            if number % 64 < 48:
                storage.put(axes, frame.copy(), metadata)
            else:
                batch.append((axes, frame.copy(), metadata))
            if number % 64 == 63:
                storage.put_many(batch)
                batch = []
        storage.put_many(batch)
        _are_all_there(storage, model, "P1")
        storage.finish()
        storage.close()
        if subject.can.persistent and subject.can.reopen:
            _are_all_there(subject.open(path), model, "N2")

    @promise("P4")
    def test_of_threads_that_put_at_the_same_coordinates_one_stores_its_frame(self, subject: Subject) -> None:
        storage = subject.create()
        stored: list[tuple[int, int]] = []
        refused: list[tuple[int, int]] = []
        lock = threading.Lock()

        def write(salt: int) -> None:
            for number in range(_EACH):
                axes = subject.axes(number)
                frame = subject.frame(axes, salt)
                error = refusal_of(lambda at=axes, new=frame: storage.put(at, new, {}))  # type: ignore[misc]
                if error is not None and not isinstance(error, CoordinatesExistError):
                    raise PromiseBrokenError(
                        "P4", f"put at coordinates used by another thread {ending_of(error)}"
                    )
                with lock:
                    (refused if error else stored).append((number, salt))

        at_once([lambda salt=k: write(salt) for k in range(WRITERS)])  # type: ignore[misc]
        if sorted(number for number, _ in stored) != list(range(_EACH)):
            raise PromiseBrokenError(
                "P4",
                f"{len(stored)} frames were stored at {_EACH} sets of coordinates, but each set must have "
                "exactly one",
            )
        model = Model(subject)
        for number, salt in stored:
            axes = subject.axes(number)
            model.check_one(storage, model.entry(axes, subject.frame(axes, salt), {}), "P4")

    @promise("P1", "N1", "C1", "C7")
    def test_what_is_done_again_and_again_leaves_nothing_behind(self, subject: Subject) -> None:
        labels = {"create": "N1", "open": "C1", "get": "P1", "fail": "C7"}
        with Child(subject, "cycles", path=os.fspath(subject.new_path())) as child:
            opening = ""
            for line in self._lines(child):
                if "hung" in line:
                    raise PromiseBrokenError("C1", f"{opening}: opening did not end: {line['hung']}")
                opening = line.get("opening", opening)
                if "opening" in line:
                    continue
                if "fault" in line:
                    raise PromiseBrokenError("", f"the child process failed: {line['fault']}")
                name = line.pop("cycle")
                more = {what: slope for what, slope in line.items() if slope > _MOST[what]}
                if more:
                    each = ", ".join(f"{slope:.1f} {what}" for what, slope in more.items())
                    label = labels[name.partition(",")[0].split()[0]]
                    raise PromiseBrokenError(label, f"each cycle of {name} leaks {each}")

    @staticmethod
    def _lines(child: Child) -> Iterator[dict[str, Any]]:
        """Yield the lines that a child prints, and an error if opening a dataset hangs or kills the child."""
        opening = False
        try:
            for line in child.lines(_PATIENCE_S, each_line=True):
                opening = "opening" in line
                yield line
        except PromiseBrokenError as error:
            if not opening:
                raise
            yield {"hung": str(error)}

    @promise("F2", "P7", code="EX309")
    def test_a_sync_that_failed_is_never_tried_again_as_if_it_were_new(self, subject: Subject) -> None:
        if not subject.can.durable_flush:
            storage = subject.create()
            subject.refuses(lambda: storage.flush(True), "flush(durable=True)")
            subject.not_promised("durable_flush")
        with Child(subject, "failed_sync", path=os.fspath(subject.new_path())) as child:
            told: dict[str, Any] = child.result()
        if not told["calls"]:
            raise NotRun("the backend does not sync files with Python's os.fsync")
        if not told["first"]:
            raise PromiseBrokenError("F2", "flush(durable=True) returned although its sync failed")
        for what in ("again", "put", "finish"):
            if not told[what]:
                call = {"again": "flush(durable=True)", "put": "put", "finish": "finish"}[what]
                raise PromiseBrokenError(
                    "P7", f"after a failed sync, {call} returned instead of raising an error"
                )
        if told["status"] == "complete":
            raise PromiseBrokenError("P7", "after a failed sync, the dataset has the status complete")


def _are_all_there(storage: Any, model: Model, label: str) -> None:
    for number, put in enumerate(model.frames.values()):
        try:
            model.check_one(storage, put, label)
        except PromiseBrokenError as fault:
            raise PromiseBrokenError(
                label, f"of {len(model.frames)} frames, number {number}: {fault}"
            ) from fault
    if model.subject.can.iterable:
        got = [key_of(axes) for axes in storage]
        check_order(got, list(model.frames), label)


def _holds_all(storage: Any, subject: Subject) -> None:
    model = Model(subject)
    for number in range(WRITERS * _EACH):
        axes = subject.axes(number)
        model.check_one(storage, model.entry(axes, subject.frame(axes), subject.numbered(number)))
    if subject.can.iterable and len(storage) != WRITERS * _EACH:
        raise PromiseBrokenError(
            "P1",
            f"{WRITERS * _EACH} frames were put from several threads, but len(storage) is {len(storage)}",
        )
