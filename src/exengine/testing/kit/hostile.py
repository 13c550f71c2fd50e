"""Tests of put with hostile input from the catalogues: P2, P8, P9, D3.

Each test runs its entire catalogue and reports the ids of the entries that failed.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import ExEngineError, describe
from exengine.testing import catalogues
from exengine.testing.catalogues import EITHER, REFUSED, STORED, Entry
from exengine.testing.frames import check_frame
from exengine.testing.own_nodes import make_file
from exengine.testing.promises import PromiseBrokenError, promise
from exengine.testing.subject import Model, Subject, check_metadata, key_of, refusal_of, tree_of


class HostileInput:
    """Tests of put with input that no file format expects."""

    @promise("P2")
    def test_hostile_coordinates_are_refused_or_stored_right(self, subject: Subject) -> None:
        def attempt(entry: Entry) -> None:
            storage = subject.create()
            model = subject.fill(storage, 2)
            axes = entry.make()
            frame = subject.frame({"hostile": 1})
            outcome = _outcome_of_coordinates(entry, subject)
            error = refusal_of(lambda: storage.put(axes, frame, subject.metadata_value))
            _judge(error, outcome)
            if error is None:
                wanted = dict(axes.items()) if entry.wanted is ... else entry.wanted
                model.add(wanted, frame, subject.metadata_value)
            elif _contains(storage, axes):
                raise PromiseBrokenError("P2", "the frame was refused, but is in the storage")
            _goes_on(storage, model, subject)
            storage.close()

        _each(catalogues.COORDINATES, attempt)

    @promise("P8", "P2")
    def test_hostile_arrays_are_refused_or_stored_right(self, subject: Subject) -> None:
        shared = _Shared(subject, fresh=subject.can.same_shape)

        def attempt(entry: Entry) -> None:
            storage, model, axes = shared.next()
            data = entry.make()
            outcome = _outcome_of_array(entry, data, subject)
            error = refusal_of(lambda: storage.put(axes, data, subject.metadata_value))
            _judge(error, outcome)
            if error is None:
                wanted = np.array(data, copy=True, subok=False)
                model.add(axes, wanted, subject.metadata_value)
                check_frame(storage.get_data(axes), wanted, axes, "P8")
            elif axes in storage:
                raise PromiseBrokenError("P2", "the frame was refused, but is in the storage")

        _each(catalogues.ARRAYS, attempt)
        shared.check()

    @promise("P9", "P2")
    def test_hostile_metadata_is_refused_or_comes_back_as_it_was_put(self, subject: Subject) -> None:
        shared = _Shared(subject)

        def attempt(entry: Entry) -> None:
            storage, model, axes = shared.next()
            frame = subject.frame(axes)
            value = entry.make()
            outcome = entry.outcome
            if not subject.can.metadata and outcome == STORED:
                outcome = EITHER
            error = refusal_of(lambda: storage.put(axes, frame, value))
            _judge(error, outcome)
            if error is not None:
                if axes in storage:
                    raise PromiseBrokenError("P2", "the frame was refused, but is in the storage")
                return
            wanted: Any = None
            if subject.can.metadata:
                wanted = storage.get_metadata(axes) if outcome == EITHER else value
                wanted = wanted if entry.wanted is ... else entry.wanted
                check_metadata(storage, axes, wanted)
            model.add(axes, frame, wanted)

        _each(catalogues.METADATA, attempt)
        shared.check()

    @promise("D3", "P2")
    def test_no_name_reaches_outside_the_dataset(self, subject: Subject) -> None:
        path = subject.new_path()
        home = subject.new_path().parent
        make_file(home / "thesis.txt")
        storage = subject.create(path)
        model = subject.fill(storage, 2)
        outside = _outside(path, subject)

        def attempt(name: str) -> None:
            for axes in ({**subject.axes(0), "channel": name}, {**subject.axes(0), name: 0}):
                metadata = {name: name} if subject.can.metadata else {}
                frame = subject.frame({"name": name, **dict.fromkeys(axes, 1)})
                error = refusal_of(lambda at=axes, new=frame, value=metadata: storage.put(at, new, value))  # type: ignore[misc]
                if error is None:
                    model.add(axes, frame, metadata)
                elif _contains(storage, axes) and key_of(axes) not in model.frames:
                    raise PromiseBrokenError(
                        "P2", f"a frame with the name {name!r:.40} was refused, but is in the storage"
                    )

        faults = []
        names = {**catalogues.NAMES, **catalogues.names_that_lead_to(home)}
        for identity, name in names.items():
            with _home_at(home):  # the folder to which "~" expands
                faults += _fault(identity, lambda at=name: attempt(at))  # type: ignore[misc]
            if _outside(path, subject) != outside:
                raise PromiseBrokenError(
                    "D3", f"putting a frame with the name {identity!r} changed files outside the dataset"
                )
        _raise(faults)
        model.check(storage, "D3")
        storage.finish()
        if _outside(path, subject) != outside:
            raise PromiseBrokenError("D3", "finish() changed files outside the dataset")
        storage.close()
        if subject.can.persistent and subject.can.reopen:
            model.check(subject.open(path), "D3")

    @promise("P2")
    def test_a_dataset_that_met_all_of_this_finishes_and_holds_what_was_stored(
        self, subject: Subject
    ) -> None:
        path = subject.new_path()
        storage = subject.create(path)
        model = subject.fill(storage, 3)
        number = 3
        for entry in (*catalogues.COORDINATES, *catalogues.ARRAYS, *catalogues.METADATA):
            if entry.outcome != REFUSED:
                continue
            axes: Any = subject.axes(number)
            data: Any = subject.frame(axes)
            metadata: Any = subject.metadata_value
            if entry in catalogues.COORDINATES:
                axes = entry.make()
            elif entry in catalogues.ARRAYS:
                data = entry.make()
            else:
                metadata = entry.make()
            refusal_of(lambda at=axes, new=data, value=metadata: storage.put(at, new, value))  # type: ignore[misc]
            if number % 7 == 0:
                model.put(storage, subject.axes(number + 1), subject.numbered(number))
                number += 1
            number += 1
        if subject.can.iterable:
            model.check(storage, "P2")
        storage.finish()
        model.check(storage, "P2")
        storage.close()
        if subject.can.persistent and subject.can.reopen:
            model.check(subject.open(path), "P2")


class _Shared:
    """A storage shared by all entries of a catalogue.

    If all frames of a storage must have the same shape, each entry gets a new storage instead.
    """

    def __init__(self, subject: Subject, *, fresh: bool = False) -> None:
        self._subject = subject
        self._fresh = fresh
        self._number = 0
        self._storage = subject.create()
        self._model = Model(subject) if fresh else subject.fill(self._storage, 2)

    def next(self) -> tuple[DataStorage, Model, dict[str, int | str]]:
        """Return the storage, its model, and coordinates that have not been used yet."""
        if self._fresh and self._number:
            self.check()
            self._storage.close()
            self._storage, self._model = self._subject.create(), Model(self._subject)
        self._number += 1
        return self._storage, self._model, self._subject.axes(10 + self._number)

    def check(self) -> None:
        """Raise an error unless the storage contains exactly the frames that it accepted."""
        self._model.check(self._storage, "P2", absent=self._subject.axes(9))


def _outcome_of_coordinates(entry: Entry, subject: Subject) -> str:
    wanted = entry.wanted if entry.wanted is not ... else entry.make()
    if entry.outcome == EITHER and isinstance(wanted, dict) and type(wanted) is dict:
        if not subject.can.negative_indices and any(isinstance(at, int) and at < 0 for at in wanted.values()):
            return REFUSED
    if entry.outcome == STORED and subject.can.string_axes:
        return EITHER  # earlier channels were strings, and a format may require a single type per axis
    if entry.outcome == STORED and subject.can.most_axes is not None and len(wanted) > subject.can.most_axes:
        return REFUSED
    if entry.outcome == STORED and subject.can.same_axes and set(wanted) != set(subject.axes(0)):
        return REFUSED
    return entry.outcome


def _outcome_of_array(entry: Entry, data: Any, subject: Subject) -> str:
    if entry.outcome == REFUSED or not isinstance(data, np.ndarray):
        return entry.outcome
    dtypes, ndim = subject.can.dtypes, subject.can.ndim
    if (dtypes is not None and data.dtype.name not in dtypes) or (ndim is not None and data.ndim not in ndim):
        return REFUSED
    return entry.outcome


def _goes_on(storage: DataStorage, model: Model, subject: Subject) -> None:
    """Raise an error unless the next valid frame is stored and all frames are intact."""
    model.put(storage, subject.axes(3), subject.numbered(3))
    model.check(storage, "P2")


def _judge(error: ExEngineError | None, outcome: str) -> None:
    if error is None and outcome == REFUSED:
        raise PromiseBrokenError("", "the input must be refused, but was accepted")
    if error is not None and outcome == STORED:
        raise PromiseBrokenError("", f"the input must be accepted, but was refused ({describe(error, 150)})")


def _contains(storage: DataStorage, axes: Any) -> bool:
    try:
        return axes in storage
    except Exception as error:
        raise PromiseBrokenError("R1", f"`in` raised {describe(error)}") from error


@contextlib.contextmanager
def _home_at(folder: Path) -> Iterator[None]:
    """Temporarily make a folder the user's home directory."""
    name = "USERPROFILE" if sys.platform == "win32" else "HOME"
    before = os.environ.get(name)
    os.environ[name] = os.fspath(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _outside(path: Any, subject: Subject) -> dict[str, str]:
    """Return digests, by relative path, of everything in a test's folder that is outside a given dataset."""
    own = os.path.relpath(path, subject.folder)
    return {name: digest for name, digest in tree_of(subject.folder, path).items()
            if not name.startswith(own) and os.path.dirname(own) != name}  # fmt: skip


def _each(entries: Iterable[Entry], attempt: Callable[[Entry], None]) -> None:
    faults = []
    for entry in entries:
        faults += _fault(entry.id, lambda one=entry: attempt(one))  # type: ignore[misc]
    _raise(faults)


def _fault(identity: str, attempt: Callable[[], None]) -> list[tuple[str, str]]:
    try:
        attempt()
    except PromiseBrokenError as error:
        return [(error.label, f"{identity}: {error}")]
    except Exception as error:
        return [("", f"{identity}: {describe(error, 200)}")]
    return []


def _raise(faults: list[tuple[str, str]]) -> None:
    if faults:
        labels = {label for label, _ in faults}
        firsts = {label: fault for fault in reversed(faults) for label in fault[:1]}
        faults = [*firsts.values(), *(fault for fault in faults if fault not in firsts.values())]
        text = "; ".join(message for _, message in faults[:8])
        more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
        raise PromiseBrokenError(labels.pop() if len(labels) == 1 else "", text + more)
