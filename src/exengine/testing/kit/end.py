"""Tests of flushing and of the ways in which a dataset can end: F1, F2, N1, N2, N4, N5."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np

from exengine.kernel.data_storage_base import DatasetStatus, DataStorage
from exengine.kernel.errors import ExEngineError, StorageStateError, UnsupportedOperationError
from exengine.testing.kit.read import finished
from exengine.testing.promises import PromiseBrokenError, promise
from exengine.testing.subject import Subject, ending_of, refusal_of, status_of, tree_of


class EndPromises:
    """Tests of flush, finish, abort and close."""

    @promise("F1")
    def test_flush_changes_nothing_that_is_there_and_more_frames_follow(self, subject: Subject) -> None:
        storage = subject.create()
        model = subject.fill(storage, 3)
        error = refusal_of(storage.flush)
        if isinstance(error, UnsupportedOperationError) and subject.can.safety_of_put != "written":
            model.check(storage, "F1")
            subject.not_promised("safety_of_put")
        if error is not None and not isinstance(error, UnsupportedOperationError):
            raise PromiseBrokenError("F1", f"flush() raised {error!r:.200}")
        model.put(storage, subject.axes(3), subject.numbered(3))
        refusal_of(storage.flush)
        model.check(storage, "F1")

    @promise("F2", code="EX309")
    def test_a_durable_flush_works_where_it_is_declared(self, subject: Subject) -> None:
        storage = subject.create()
        model = subject.fill(storage, 3)
        if not subject.can.durable_flush:
            subject.refuses(lambda: storage.flush(True), "flush(durable=True)")
            model.check(storage, "F2")
            subject.not_promised("durable_flush")
        for first in (3, 6):
            storage.flush(True)
            for number in range(first, first + 3):
                model.put(storage, subject.axes(number), subject.numbered(number))
        storage.flush(durable=True)
        model.check(storage, "F2")

    @promise("N1")
    def test_finish_and_close_may_be_called_again(self, subject: Subject) -> None:
        for frames in (0, 4):
            for ends in ("ffcc", "fcfc", "cc", "cfc", "fcc"):
                path = subject.new_path()
                storage = subject.create(path)
                model = subject.fill(storage, frames)
                for number, end in enumerate(ends):
                    call = storage.finish if end == "f" else storage.close
                    _end(
                        call,
                        closed="c" in ends[:number] and "f" not in ends[:number],
                        what=ends[: number + 1],
                    )
                if ends.startswith("f") and subject.can.persistent:
                    before = tree_of(path.parent)
                    storage.finish()
                    storage.close()
                    if tree_of(path.parent) != before:
                        raise PromiseBrokenError(
                            "N1", "calling finish and close again changed a finished dataset"
                        )
                    if subject.can.reopen:
                        opened = subject.open(path)
                        model.check(opened, "N1")
                        if status_of(opened) not in (None, DatasetStatus.COMPLETE):
                            raise PromiseBrokenError(
                                "N1",
                                f"after the sequence of calls {ends!r} (f: finish, c: close), "
                                f"the dataset is {status_of(opened)}",
                            )

    @promise("N1")
    def test_a_finished_storage_is_still_read(self, subject: Subject) -> None:
        storage = subject.create()
        model = subject.fill(storage, 5)
        storage.finish()
        model.check(storage, "N1", absent=subject.axes(7))

    @promise("N2", code="EX301")
    def test_a_finished_dataset_reopens_equal(self, subject: Subject) -> None:
        subject.needs_reopen()
        for frames in (0, 1, 50):
            path = subject.new_path()
            model = finished(subject, path, frames)
            for _ in range(2):
                opened = subject.open(path)
                model.check(opened, "N2", absent=subject.axes(frames))
                opened.close()

    @promise("N2", "P5")
    def test_a_dataset_that_was_opened_takes_no_frame(self, subject: Subject) -> None:
        subject.needs_reopen()
        path = subject.new_path()
        model = finished(subject, path, 3)
        before = tree_of(path.parent)
        opened = subject.open(path)
        axes = subject.axes(8)
        error = refusal_of(lambda: opened.put(axes, subject.frame(axes), subject.metadata_value))
        if not isinstance(error, StorageStateError | UnsupportedOperationError):
            raise PromiseBrokenError(
                "P5", f"put into an opened dataset {ending_of(error)}, but must be refused"
            )
        opened.finish()
        opened.close()
        if tree_of(path.parent) != before:
            raise PromiseBrokenError("N2", "opening, finishing and closing a finished dataset changed it")
        model.check(subject.open(path), "N2")

    @promise("N4")
    def test_the_status_says_how_the_dataset_ended(self, subject: Subject) -> None:
        ends: list[tuple[Callable[[DataStorage], Any], DatasetStatus]] = [
            (lambda storage: storage.finish(), DatasetStatus.COMPLETE),
            (lambda storage: storage.abort("a test"), DatasetStatus.ABORTED),
            (lambda storage: storage.abort("a test", failed=True), DatasetStatus.FAILED),
            (lambda storage: None, DatasetStatus.INCOMPLETE),
        ]
        if status_of(subject.create()) is None:
            storage = subject.create()
            storage.finish()
            subject.refuses(lambda: storage.status, "status")
            subject.not_promised("persistent")
        for end, wanted in ends:
            path = subject.new_path()
            storage = subject.create(path)
            _has_status(storage, DatasetStatus.INCOMPLETE, "being written")
            subject.fill(storage, 2)
            end(storage)
            _has_status(storage, wanted, "ended")
            storage.close()
            if subject.can.persistent and subject.can.reopen:
                _has_status(subject.open(path), wanted, "reopened")

    @promise("N4")
    def test_is_finished_agrees_with_the_status(self, subject: Subject) -> None:
        storage = subject.create()
        if isinstance(refusal_of(storage.is_finished), UnsupportedOperationError):
            subject.refuses(storage.is_finished, "is_finished()")
            subject.not_promised("persistent")
        if storage.is_finished():
            raise PromiseBrokenError("N4", "is_finished() returned True for a new storage")
        storage.finish()
        if not storage.is_finished():
            raise PromiseBrokenError("N4", "is_finished() returned False after finish()")

    @promise("N5")
    def test_a_dataset_that_was_closed_without_finish_keeps_its_frames(self, subject: Subject) -> None:
        subject.needs_reopen()
        for frames in (0, 7):
            path = subject.new_path()
            storage = subject.create(path)
            model = subject.fill(storage, frames)
            storage.close()
            opened = subject.open(path)
            model.check(opened, "N5", absent=subject.axes(frames))
            if status_of(opened) not in (None, DatasetStatus.INCOMPLETE):
                raise PromiseBrokenError("N5", f"an unfinished dataset has the status {status_of(opened)}")

    @promise("N5")
    def test_leaving_a_with_block_finishes_and_closes(self, subject: Subject) -> None:
        path = subject.new_path()
        with subject.create(path) as storage:
            model = subject.fill(storage, 3)
        if status_of(storage) not in (None, DatasetStatus.COMPLETE):
            raise PromiseBrokenError("N5", f"after a `with` block, the status is {status_of(storage)}")
        _takes_nothing(storage, subject)
        if subject.can.persistent and subject.can.reopen:
            model.check(subject.open(path), "N5")

    @promise("N5")
    def test_leaving_a_with_block_by_an_exception_finishes_as_aborted(self, subject: Subject) -> None:
        path = subject.new_path()
        storage = subject.create(path)
        model = subject.fill(storage, 3)
        try:
            with storage:
                raise KeyError("of the user")
        except KeyError as error:
            if error.args != ("of the user",):
                raise
        if status_of(storage) not in (None, DatasetStatus.ABORTED):
            raise PromiseBrokenError(
                "N5", f"after an exception in a `with` block, the status is {status_of(storage)}"
            )
        _takes_nothing(storage, subject)
        if subject.can.persistent and subject.can.reopen:
            opened = subject.open(path)
            model.check(opened, "N5")
            if status_of(opened) not in (None, DatasetStatus.ABORTED):
                raise PromiseBrokenError(
                    "N5",
                    f"after an exception in a `with` block, the dataset has the status {status_of(opened)}",
                )

    @promise("N1")
    def test_a_closed_storage_raises_exceptions_of_ours_only(self, subject: Subject) -> None:
        storage = subject.create()
        subject.fill(storage, 2)
        storage.finish()
        storage.close()
        gc.collect()
        seen: list[Any] = []
        for call in (storage.get_data, storage.__getitem__):
            refusal_of(lambda read=call: seen.append(read(subject.axes(0))))  # type: ignore[misc]
        if any(not np.array_equal(pixels, subject.frame(subject.axes(0))) for pixels in seen):
            raise PromiseBrokenError("N1", "a closed storage returned pixels that were never put")
        refusal_of(lambda: storage.get_metadata(subject.axes(0)))
        refusal_of(storage.flush)
        refusal_of(lambda: storage.flush(True))
        refusal_of(lambda: list(storage))
        if subject.axes(0) not in storage and subject.axes(1) in storage:
            raise PromiseBrokenError("N1", "a closed storage contains only some of its frames")


def _end(call: Callable[[], Any], *, closed: bool, what: str) -> None:
    try:
        call()
    except StorageStateError as error:
        if not closed:  # after close() without finish(), finish() may be refused
            raise PromiseBrokenError(
                "N1", f"the sequence of calls {what!r} (f: finish, c: close) raised {error!r:.200}"
            ) from error
    except Exception as error:
        kind = "" if isinstance(error, ExEngineError) else ", which is not an ExEngineError"
        raise PromiseBrokenError(
            "N1", f"the sequence of calls {what!r} (f: finish, c: close) raised {error!r:.200}{kind}"
        ) from error


def _has_status(storage: DataStorage, wanted: DatasetStatus, what: str) -> None:
    if status_of(storage) is not wanted:
        raise PromiseBrokenError("N4", f"{what}: the status is {status_of(storage)}, but should be {wanted}")


def _takes_nothing(storage: DataStorage, subject: Subject) -> None:
    axes = subject.axes(40)
    if refusal_of(lambda: storage.put(axes, subject.frame(axes), subject.metadata_value)) is None:
        raise PromiseBrokenError("N5", "a storage accepted a frame after its `with` block")
