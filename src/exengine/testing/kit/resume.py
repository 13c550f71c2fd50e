"""Tests of continuing a dataset whose writer has ended: N5.

A backend that declares ``resumable`` continues a dataset whose writer was killed, or that was closed or
finished early. The result must be the same as if a single writer had written it. Any other backend must
refuse to continue a dataset.
"""

import os
from pathlib import Path
from typing import Any

from exengine.kernel.data_storage_base import DatasetStatus, DataStorage
from exengine.kernel.errors import CoordinatesExistError, DatasetLockedError, StorageStateError
from exengine.testing.children import Child
from exengine.testing.promises import PromiseBrokenError, promise
from exengine.testing.subject import Model, Subject, ending_of, refusal_of, status_of, tree_of

_FIRST, _ALL = 5, 9
_ENDS = ("killed", "closed", "aborted", "failed")


class ResumePromises:
    """Tests of ``resume``."""

    @promise("N5", code="EX301")
    def test_a_dataset_is_continued_as_declared(self, subject: Subject) -> None:
        if not subject.can.resumable:
            self._is_refused(subject)
            subject.not_promised("resumable")
        for end in _ENDS:
            if end == "killed" and subject.can.safety_of_put == "accepted":
                continue
            path = subject.new_path()
            model = _leave(subject, path, end)
            storage = _resume(subject, path, end)
            model.check(storage, "N5")
            _is_protected(subject, path, storage)
            for number in range(_FIRST, _ALL):
                model.put(storage, subject.axes(number), subject.numbered(number))
            model.check(storage, "N5")
            storage.finish()
            storage.close()
            _is_final(subject, path)
            opened = subject.open(path)
            model.check(opened, "N5")
            if status_of(opened) not in (None, DatasetStatus.COMPLETE):
                raise PromiseBrokenError(
                    "N5",
                    f"a dataset that was continued has the status {status_of(opened)} (first writer: {end})",
                )

    @staticmethod
    def _is_refused(subject: Subject) -> None:
        path = subject.new_path()
        if subject.can.persistent:
            _leave(subject, path, "aborted")
        before = tree_of(path.parent)

        def resume() -> None:
            storage = subject.cls.resume(os.fspath(path), **subject.options)
            storage.abort("the kit expected a refusal")
            storage.close()

        subject.refuses(resume, "resume(path)")
        if tree_of(path.parent) != before:
            raise PromiseBrokenError("N5", "resume(path) was refused, but changed files")


def _leave(subject: Subject, path: Path, end: str) -> Model:
    """Write the first frames of a dataset, and end its writer in a given way."""
    if end == "killed":
        spec: dict[str, Any] = {"count": _FIRST, "level": "put", "end": "wait"}
        with Child(subject, "write", path=os.fspath(path), **spec) as child:
            child.wait_for(_FIRST - 1)
            child.kill()
        model = Model(subject)
        for number in range(_FIRST):
            model.add(subject.axes(number), subject.frame(subject.axes(number)), subject.numbered(number))
        return model
    storage = subject.create(path)
    model = subject.fill(storage, _FIRST)
    if end != "closed":
        storage.abort("the kit ends it early", failed=end == "failed")
    storage.close()
    return model


def _resume(subject: Subject, path: Path, end: str) -> DataStorage:
    found: list[DataStorage] = []
    error = refusal_of(lambda: found.append(subject.resume(path)))
    if error is not None:
        raise PromiseBrokenError(
            "N5", f"resumable is declared, but resume {ending_of(error, 150)} (first writer: {end})"
        )
    status = status_of(subject.open(path)) if subject.can.reopen else None
    if status not in (None, DatasetStatus.INCOMPLETE):
        raise PromiseBrokenError(
            "N5", f"the status is {status} while a dataset is continued (first writer: {end})"
        )
    return found[0]


def _is_protected(subject: Subject, path: Path, storage: DataStorage) -> None:
    """Raise an error if an existing frame can be replaced, or if a second writer is accepted."""
    axes = subject.axes(0)
    error = refusal_of(lambda: storage.put(axes, subject.frame(axes), subject.numbered(0)))
    if not isinstance(error, CoordinatesExistError):
        raise PromiseBrokenError(
            "N5",
            f"a second frame at the same coordinates must be refused, but put {ending_of(error)}",
        )
    error = refusal_of(lambda: subject.resume(path))
    if not isinstance(error, DatasetLockedError):
        raise PromiseBrokenError("N5", f"a second writer must be refused, but resume {ending_of(error)}")


def _is_final(subject: Subject, path: Path) -> None:
    """Raise an error unless resuming a complete dataset is refused and leaves it unchanged."""
    before = tree_of(path.parent)
    error = refusal_of(lambda: subject.resume(path))
    if not isinstance(error, StorageStateError) or tree_of(path.parent) != before:
        raise PromiseBrokenError(
            "N5",
            "resume of a complete dataset changed its files, or was not refused as documented "
            f"(it {ending_of(error, 150)})",
        )
