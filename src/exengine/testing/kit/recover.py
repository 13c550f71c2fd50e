"""Tests of recovery: C3.

Recovery turns the surviving frames into a finished dataset. Recovering again changes nothing.
"""

import os
from pathlib import Path
from typing import Any

from exengine.kernel.data_storage_base import DatasetStatus, DataStorage
from exengine.kernel.errors import UnsupportedOperationError
from exengine.testing.children import Child
from exengine.testing.promises import NotRun, PromiseBrokenError, promise
from exengine.testing.subject import Model, Subject, ending_of, refusal_of, status_of, tree_of

_FRAMES = 7


class RecoveryPromises:
    """Tests of ``recover``."""

    @promise("C3")
    def test_recovering_what_a_killed_writer_left_makes_a_finished_copy_of_all_frames(
        self, subject: Subject
    ) -> None:
        _needs_recovery(subject)
        source, output = subject.new_path(), subject.new_path()
        with Child(subject, "write", path=os.fspath(source), count=_FRAMES, level="put", end="wait") as child:
            child.wait_for(_FRAMES - 1)
            child.kill()
        model = _model(subject)
        if subject.can.safety_of_put == "accepted":  # only the surviving frames can be recovered
            model = _surviving(subject, source)
        before = tree_of(source.parent)
        report = _recover(source, output=output)
        _is_recovered(subject, output, model, report)
        first = tree_of(output.parent)
        again = _recover(source, output=output)
        if again.outcome != "already recovered" or tree_of(output.parent) != first:
            raise PromiseBrokenError(
                "C3",
                "recovering again changed the copy, or did not end with the outcome 'already recovered' "
                f"(outcome: {again.outcome!r})",
            )
        if tree_of(source.parent) != before:
            raise PromiseBrokenError("C3", "recovering into a copy changed the original")

    @promise("C3")
    def test_recovering_a_finished_dataset_finds_nothing_to_do(self, subject: Subject) -> None:
        _needs_recovery(subject)
        source, output = subject.new_path(), subject.new_path()
        with subject.create(source) as storage:
            subject.fill(storage, _FRAMES)
        before = tree_of(source.parent)
        report = _recover(source, output=output)
        if report.outcome != "nothing to recover" or os.path.lexists(output):
            raise PromiseBrokenError(
                "C3",
                "recovering a finished dataset created a copy, or did not end with the outcome "
                f"'nothing to recover' (outcome: {report.outcome!r})",
            )
        if tree_of(source.parent) != before:
            raise PromiseBrokenError("C3", "recovering a finished dataset changed it")

    @promise("C3")
    def test_recovering_in_place_keeps_all_frames_or_is_refused(self, subject: Subject) -> None:
        _needs_recovery(subject)
        source = subject.new_path()
        storage = subject.create(source)
        model = subject.fill(storage, _FRAMES)
        storage.close()
        if subject.can.safety_of_put == "accepted":
            model = _surviving(subject, source)
        before = tree_of(source.parent)
        hook: Any = subject.cls.recover_in_place
        if hook.__func__ is DataStorage.recover_in_place.__func__:  # type: ignore[attr-defined]
            error = refusal_of(lambda: _recover(source, in_place=True))
            if not isinstance(error, UnsupportedOperationError) or tree_of(source.parent) != before:
                raise PromiseBrokenError(
                    "C3",
                    "recover_in_place is not implemented, but recovering with in_place=True changed files or "
                    f"was not refused as documented (it {ending_of(error)})",
                )
            return
        planned = _recover(source, in_place=True, dry_run=True)
        if tree_of(source.parent) != before:
            raise PromiseBrokenError("C3", "a dry run of an in-place recovery changed the dataset")
        report = _recover(source, in_place=True)
        _is_recovered(subject, source, model, report)
        if (planned.frames, planned.total) != (report.frames, report.total):
            raise PromiseBrokenError(
                "C3",
                f"the dry run reported {planned.frames} frames, but the recovery reported {report.frames}",
            )
        first = tree_of(source.parent)
        again = _recover(source, in_place=True)
        if again.outcome != "nothing to recover" or tree_of(source.parent) != first:
            raise PromiseBrokenError(
                "C3",
                "recovering again changed files, or did not end with the outcome 'nothing to recover' "
                f"(outcome: {again.outcome!r})",
            )


def _recover(source: Path, **how: Any) -> Any:
    from exengine.datasets.recovery import recover

    return recover(source, **how)


def _needs_recovery(subject: Subject) -> None:
    subject.needs_reopen()
    if not subject.name:
        raise NotRun(
            "this test needs the name of an installed backend, because recovery finds backends by name"
        )
    if not subject.can.iterable:
        source = subject.new_path()
        storage = subject.create(source)
        subject.fill(storage, 2)
        storage.close()
        subject.refuses(lambda: _recover(source, output=subject.new_path()), "recover")
        subject.not_promised("iterable")


def _model(subject: Subject) -> Model:
    model = Model(subject)
    for number in range(_FRAMES):
        model.add(subject.axes(number), subject.frame(subject.axes(number)), subject.numbered(number))
    return model


def _surviving(subject: Subject, source: Path) -> Model:
    opened = subject.open(source)
    whole, model = _model(subject), Model(subject)
    for put in whole.frames.values():
        if put.axes in opened:
            model.add(put.axes, put.frame, put.metadata)
    opened.close()
    return model


def _is_recovered(subject: Subject, path: Path, model: Model, report: Any) -> None:
    from exengine.datasets.verification import verify

    if (report.outcome, report.frames, report.lost) != ("recovered", len(model.frames), []):
        raise PromiseBrokenError(
            "C3", f"surviving frames: {len(model.frames)}, but recover reported {report.to_dict()!r:.300}"
        )
    opened = subject.open(path)
    model.check(opened, "C3")
    if status_of(opened) not in (None, DatasetStatus.ABORTED):
        raise PromiseBrokenError(
            "C3", f"the recovered dataset has the status {status_of(opened)}, but should be aborted"
        )
    opened.close()
    if not verify(path).ok:
        raise PromiseBrokenError("C3", f"the recovered dataset is damaged: {verify(path).to_dict()!r:.300}")
