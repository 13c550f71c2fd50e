"""Tests of capabilities: declared capabilities must work, and others must be refused as documented.

This module tests the codes EX301 to EX304. The other codes are tested together with their promises: EX305
and EX306 in ``read`` and ``processes``, EX307 in ``disk``, EX308 in ``processes``, and EX309 in ``end``,
``processes`` and ``resources``.
"""

import functools
import os
from typing import Any

import numpy as np

from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.errors import (
    CoordinatesError,
    ExEngineError,
    MetadataError,
    UnsupportedDataError,
    describe,
)
from exengine.testing.frames import Array, check_frame, frame_of
from exengine.testing.kit.read import finished
from exengine.testing.promises import PromiseBrokenError, promise
from exengine.testing.subject import (
    Axes,
    Model,
    Subject,
    check_metadata,
    ending_of,
    refusal_of,
    shape_of,
)

NUMBERS = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32",
    "float64", "complex64", "complex128",
)  # fmt: skip
"""The dtypes that a backend must accept if it does not declare a list of dtypes."""

_USUAL_AXES = ("time", "channel", "z", "position")
_MANY_AXES = 8
"""The number of axes that a backend must accept if it declares no limit."""

_ALSO_OF_READERS = ("metadata", "iterable", "concurrent_readers", "checksums", "pyramids")
"""The capabilities that must have the same values in an opened dataset as in the backend that wrote it."""

DIMENSIONS = range(6)
"""The numbers of dimensions that a backend must accept if it does not declare a list of them."""


class HonestCapabilities:
    """Tests that a backend's behavior matches its declared capabilities."""

    @promise("N2", code="EX301")
    def test_persistence_is_as_declared(self, subject: Subject) -> None:
        if not isinstance(subject.can, StorageCapabilities):
            raise PromiseBrokenError("N2", "`capabilities` is not an instance of StorageCapabilities")
        _are_those_of_the_instance(subject)
        path = subject.new_path()
        if not subject.can.persistent:
            if subject.can.reopen or subject.can.durable_flush or subject.can.safety_of_put != "accepted":
                raise PromiseBrokenError(
                    "N2",
                    "the backend does not declare persistent, but declares reopen, durable_flush or a "
                    "safety_of_put other than 'accepted'",
                )
            subject.refuses(lambda: subject.cls.open(os.fspath(path)), "open(path)")
            subject.not_promised("persistent")
        finished(subject, path, 3)
        if not os.path.lexists(path):
            raise PromiseBrokenError("N2", "nothing exists at the path of a finished dataset")

    @promise("N2", code="EX301")
    def test_reopening_is_as_declared(self, subject: Subject) -> None:
        path = subject.new_path()
        if not subject.can.reopen:
            if subject.can.persistent:
                finished(subject, path, 3)
            if subject.cls.can_open(os.fspath(path)):
                raise PromiseBrokenError("N2", "reopen is not declared, but can_open(path) returned True")
            subject.refuses(lambda: subject.cls.open(os.fspath(path)), "open(path)")
            subject.not_promised("reopen")
        model = finished(subject, path, 3)
        if not subject.cls.can_open(os.fspath(path)):
            raise PromiseBrokenError("N2", "can_open(path) returned False for a dataset of the backend")
        opened = subject.open(path)
        model.check(opened, "N2")
        differing = [
            f"{name} is {getattr(opened.capabilities, name)!r} instead of {value!r}"
            for name, value in subject.can.items()
            if name in _ALSO_OF_READERS and getattr(opened.capabilities, name) != value
        ]
        if differing:
            raise PromiseBrokenError(
                "N2",
                "the capabilities of the dataset that open(path) returned differ from the backend's: "
                f"{', '.join(differing)}; set `capabilities` in {type(opened).__name__} as well",
            )
        nothing = subject.new_path()
        if subject.cls.can_open(os.fspath(nothing)) or subject.cls.can_open(os.fspath(subject.folder)):
            raise PromiseBrokenError("N2", "can_open(path) returned True for a path without a dataset")

    @promise("P8", code="EX302")
    def test_dtypes_are_as_declared(self, subject: Subject) -> None:
        declared = subject.can.dtypes
        for name in NUMBERS if declared is None else declared:
            shapes = [shape_of(ndim) for ndim in _dimensions(subject)]
            frames = [frame_of({"time": 0}, shape, name) for shape in shapes]
            faults = [_store(subject, frame) for frame in frames]
            if all(faults):
                raise PromiseBrokenError("P8", f"dtype {name} is declared, but a frame was {faults[0]}")
            wrong = [fault for fault in faults if fault and not fault.startswith("refused")]
            if wrong:
                raise PromiseBrokenError("P8", f"a frame of dtype {name} was {wrong[0]}")
        for name in NUMBERS:
            if declared is not None and name not in declared:
                _refuse(subject, frame_of({"time": 0}, subject.shape, name), f"dtype {name}")

    @promise("P8", code="EX302")
    def test_numbers_of_dimensions_are_as_declared(self, subject: Subject) -> None:
        declared = subject.can.ndim
        dtypes = subject.can.dtypes or (subject.dtype.name,)
        for ndim in DIMENSIONS if declared is None else declared:
            faults = [_store(subject, frame_of({"time": 0}, shape_of(ndim), name)) for name in dtypes]
            wrong = [fault for fault in faults if fault and not fault.startswith("refused")]
            if all(faults) or wrong:
                raise PromiseBrokenError(
                    "P8", f"{ndim}-dimensional frames are declared, but one was {(wrong or faults)[0]}"
                )
        for ndim in DIMENSIONS:
            if declared is not None and ndim not in declared:
                _refuse(subject, frame_of({"time": 0}, shape_of(ndim), subject.dtype), f"ndim={ndim}")

    @promise("P8", code="EX302")
    def test_frames_of_other_shapes_are_taken_unless_all_must_be_alike(self, subject: Subject) -> None:
        smaller = tuple(
            max(side // 2, 1) if number < 2 else side for number, side in enumerate(subject.shape)
        )
        others = [] if smaller == subject.shape else [frame_of(subject.axes(1), smaller, subject.dtype)]
        dtypes = [name for name in subject.can.dtypes or NUMBERS if np.dtype(name) != subject.dtype]
        others += [frame_of(subject.axes(1), subject.shape, name) for name in dtypes[:1]]
        for other in others:
            storage = subject.create()
            model = subject.fill(storage, 1)
            put = functools.partial(storage.put, subject.axes(1), other, subject.metadata_value)
            error = refusal_of(put)
            what = f"a second frame of shape {other.shape} and dtype {other.dtype}"
            if subject.can.same_shape and not isinstance(error, UnsupportedDataError):
                raise PromiseBrokenError(
                    "P8", f"same_shape is declared, but putting {what} {ending_of(error, 150)}"
                )
            if not subject.can.same_shape:
                if error is not None:
                    raise PromiseBrokenError(
                        "P8", f"same_shape is not declared, but {what} was refused: {error}"
                    )
                model.add(subject.axes(1), other, subject.metadata_value)
            model.check(storage, "P8")

    @promise("P2", code="EX303")
    def test_frames_with_other_axes_are_as_declared(self, subject: Subject) -> None:
        first = subject.axes(0)
        fewer: Axes = {"time": 77} if len(first) > 1 else {"angle": 77}
        for other in (fewer, {**first, "angle": 1}):
            if subject.can.most_axes is not None and len(other) > subject.can.most_axes:
                continue
            _put_second(subject, other, not subject.can.same_axes, f"same_axes={subject.can.same_axes}")

    @promise("P2", code="EX303")
    def test_the_number_of_axes_is_as_declared(self, subject: Subject) -> None:
        declared = subject.can.most_axes
        count = _MANY_AXES if declared is None else declared
        # The usual axes come first, because a format may accept no others.
        names = [*_USUAL_AXES, *(f"axis{number}" for number in range(count))][:count]
        many: Axes = {axis: number for number, axis in enumerate(names)}
        storage = subject.create()
        model = Model(subject)
        error = refusal_of(lambda: model.put(storage, many))
        if error is not None:
            raise PromiseBrokenError(
                "P2", f"most_axes={declared}, but coordinates with the axes {names} were refused: {error}"
            )
        model.check(storage, "P2")
        if declared is not None:
            _refuse_axes(subject, {**many, "angle": 1}, f"most_axes={declared}")

    @promise("P2", code="EX303")
    def test_positions_that_are_texts_are_as_declared(self, subject: Subject) -> None:
        names = ["FITC", "TRITC", "Zähler", "\U0001f52c", "Cy 5", "a/b"]
        self._positions(subject, "channel", names, subject.can.string_axes, "string_axes")

    @promise("P2", code="EX303")
    def test_positions_below_zero_are_as_declared(self, subject: Subject) -> None:
        self._positions(subject, "z", [-1, -2, -1000], subject.can.negative_indices, "negative_indices")

    @staticmethod
    def _positions(subject: Subject, axis: str, values: list[Any], declared: bool, name: str) -> None:
        path = subject.new_path()
        storage = subject.create(path)
        model = subject.fill(storage, 1)
        if axis not in subject.axes(0):
            axis = "time"  # the backend accepts fewer axes
        for value in values:
            axes = {**subject.axes(0), axis: value}
            try:
                error = refusal_of(lambda at=axes: model.put(storage, at))  # type: ignore[misc]
            except PromiseBrokenError as fault:
                raise PromiseBrokenError("P2", f"{name} is {declared}, and at {axes}, {fault}") from fault
            if declared and error is not None:
                raise PromiseBrokenError(
                    "P2", f"{name} is declared, but the coordinates {axes} were refused: {error}"
                )
            if not declared and not isinstance(error, CoordinatesError):
                raise PromiseBrokenError(
                    "P2", f"{name} is not declared, but put at {axes} {ending_of(error, 150)}"
                )
        model.check(storage, "P2")
        storage.finish()
        storage.close()
        if subject.can.persistent and subject.can.reopen:
            model.check(subject.open(path), "P2")

    @promise("P9", code="EX304")
    def test_metadata_is_as_declared(self, subject: Subject) -> None:
        value = {"exposure_ms": 10.5, "channel": {"name": "DAPI", "list": [1, None, "a"]}}
        storage = subject.create()
        axes = subject.axes(0)
        if not subject.can.metadata:
            error = refusal_of(lambda: storage.put(axes, subject.frame(axes), value))
            if error is None:
                subject.refuses(lambda: storage.get_metadata(axes), "get_metadata")
            elif not isinstance(error, MetadataError | NotImplementedError):
                raise PromiseBrokenError("P9", f"metadata is not declared, but put {ending_of(error, 150)}")
            subject.not_promised("metadata")
        path = subject.new_path()
        storage = subject.create(path)
        storage.put(axes, subject.frame(axes), value)
        storage.put(subject.axes(1), subject.frame(subject.axes(1)), None)
        check_metadata(storage, axes, value)
        check_metadata(storage, subject.axes(1), None)
        storage.finish()
        storage.close()
        if subject.can.persistent and subject.can.reopen:
            opened = subject.open(path)
            check_metadata(opened, axes, value)
            check_metadata(opened, subject.axes(1), None)

    @promise("N4")
    def test_annotations_are_kept_or_refused(self, subject: Subject) -> None:
        path = subject.new_path()
        storage = subject.create(path)
        model = subject.fill(storage, 1)
        error = refusal_of(lambda: storage.annotate("config", {"storage": {"backend": "x"}}))
        model.check(storage, "N4")
        if error is not None:
            subject.refuses(lambda: storage.annotate("config", {}), "annotate")
            subject.not_promised("persistent")
        storage.finish()
        storage.close()
        if subject.can.reopen:
            kept = getattr(subject.open(path), "annotations", {})
            if kept.get("config") != {"storage": {"backend": "x"}}:
                raise PromiseBrokenError(
                    "N4", f"an annotation changed after reopening: it is now {kept.get('config')!r:.100}"
                )


def _are_those_of_the_instance(subject: Subject) -> None:
    """Raise an error unless a storage has the capabilities that its class reports for the options."""
    made, known = subject.create().capabilities, subject.cls.capabilities
    if made != subject.can:
        differ = [name for name, value in made.items() if value != getattr(subject.can, name)]
        raise PromiseBrokenError(
            "N2",
            "capabilities of the storage that differ from the result of capabilities_for: "
            f"{', '.join(differ)}",
        )
    if (made.persistent, made.path_suffixes) != (known.persistent, known.path_suffixes):
        raise PromiseBrokenError("N2", "persistent and path_suffixes must not depend on options")


def _put_second(subject: Subject, axes: Axes, accepted: bool, declared: str) -> None:
    """Put a second frame with other axes, and check that it is stored, or refused without any change."""
    storage = subject.create()
    model = subject.fill(storage, 1)
    error = refusal_of(lambda: model.put(storage, axes))
    if accepted and error is not None:
        raise PromiseBrokenError("P2", f"{declared}, but {axes} was refused: {error}")
    if not accepted and not isinstance(error, CoordinatesError):
        raise PromiseBrokenError("P2", f"{declared}; put at {axes} {ending_of(error, 150)}")
    model.check(storage, "P2", absent=axes)
    model.put(storage, subject.axes(1))
    model.check(storage, "P2")


def _refuse_axes(subject: Subject, axes: Axes, declared: str) -> None:
    storage = subject.create()
    error = refusal_of(lambda: storage.put(axes, subject.frame(axes), subject.metadata_value))
    if not isinstance(error, CoordinatesError):
        raise PromiseBrokenError("P2", f"{declared}; put with {len(axes)} axes {ending_of(error, 150)}")
    if axes in storage:
        raise PromiseBrokenError("P2", f"a frame at {axes} was refused, but is in the storage")
    subject.fill(storage, 2).check(storage, "P2")


def _dimensions(subject: Subject) -> tuple[int, ...]:
    return subject.can.ndim or (2,)


def _store(subject: Subject, frame: Array) -> str:
    """Put a frame into a new storage and read it back. Return the fault, or an empty string."""
    storage = subject.create()
    axes = subject.axes(0)
    try:
        storage.put(axes, frame.copy(), subject.metadata_value)
        check_frame(storage.get_data(axes), frame, axes, "P8")
    except ExEngineError as error:
        return f"refused (shape {frame.shape}, dtype {frame.dtype}): {describe(error, 150)}"
    except Exception as error:
        return f"not stored correctly (shape {frame.shape}, dtype {frame.dtype}): {describe(error, 150)}"
    finally:
        storage.close()
    return ""


def _refuse(subject: Subject, frame: Array, what: str) -> None:
    storage = subject.create()
    axes = subject.axes(0)
    error = refusal_of(lambda: storage.put(axes, frame, subject.metadata_value))
    if not isinstance(error, UnsupportedDataError):
        raise PromiseBrokenError("P8", f"{what} is not declared, but put {ending_of(error, 150)}")
    if axes in storage:
        raise PromiseBrokenError("P8", f"{what} was refused, but the frame is in the storage")
    storage.close()
