"""A Hypothesis state machine: random sequences of calls to a storage, with a dict as its model.

The coordinates are drawn from a small set, so that collisions are frequent. A failure is reduced to the
shortest sequence of calls that reproduces it, unless another test has found a fault before. Every run uses
the same examples.
"""

import copy
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import stateful, strategies

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import CoordinatesExistError, CoordinatesNotFoundError, StorageStateError
from exengine.testing.kit.put import in_thread
from exengine.testing.promises import PromiseBrokenError
from exengine.testing.subject import Axes, Model, Subject, check_metadata, ending_of, refusal_of

EXAMPLES = 25
STEPS = 25
PLACES = 14

_numbers = strategies.integers(0, PLACES - 1)
_bad_coordinates: strategies.SearchStrategy[Any] = strategies.sampled_from(
    [None, 5, [], {"": 0}, {"time": 0.5}, {"time": None}, {"_x": 1}]
)
_bad_arrays = strategies.sampled_from(["none", "text", "objects"])
_json = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers(-(2**53), 2**53)
    | strategies.floats(allow_nan=False, allow_infinity=False) | strategies.text(max_size=8),
    lambda inner: strategies.lists(inner, max_size=3)
    | strategies.dictionaries(strategies.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
_open = stateful.precondition(lambda machine: machine.state == "open")
_reading = stateful.precondition(lambda machine: machine.state != "closed")
_ended = stateful.precondition(lambda machine: machine.state != "open")


class StorageMachine(stateful.RuleBasedStateMachine):
    """Calls to a storage in any order. ``state`` is ``open``, ``finished``, ``reopened`` or ``closed``."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject
        self.path = subject.new_path()
        self.storage: DataStorage = subject.create(self.path)
        self.model = Model(subject)
        self.state = "open"
        self.ended = False
        self.reopens = subject.can.persistent and subject.can.reopen

    def teardown(self) -> None:
        """Close all open storages."""
        self.subject.close_all()

    def _frame(self, number: int, metadata: Any) -> tuple[Axes, Any, Any]:
        axes = self.subject.axes(number)
        return axes, self.subject.frame(axes), metadata if self.subject.can.metadata else {}

    def _broken(self, label: str) -> str:
        """Return the promise that is broken by a wrong frame: in a dataset that was reopened, N2 or N5."""
        if self.state != "reopened":
            return label
        return "N2" if self.ended else "N5"

    def _is_there(self, number: int) -> bool:
        return frozenset(self.subject.axes(number).items()) in self.model.frames

    # -- writing ---------------------------------------------------------------------------------

    @_open
    @stateful.rule(number=_numbers, metadata=_json)
    def put(self, number: int, metadata: Any) -> None:
        """Put a frame, and check that it is refused if there is already a frame at its coordinates."""
        axes, frame, metadata = self._frame(number, metadata)
        given = copy.deepcopy(metadata)
        error = refusal_of(lambda: self.storage.put(axes, frame.copy(), given))
        if self._is_there(number) != isinstance(error, CoordinatesExistError):
            holds = "a frame exists" if self._is_there(number) else "no frame exists"
            raise PromiseBrokenError("P4", f"put at {axes}, where {holds}, {ending_of(error)}")
        if error is None:
            self.model.add(axes, frame, metadata)

    @_open
    @stateful.rule(numbers=strategies.lists(_numbers, max_size=5))
    def put_many(self, numbers: list[int]) -> None:
        """Put several frames. If a frame is refused, all frames before it must be stored."""
        batch = [self._frame(number, {"batch": number}) for number in numbers]
        wanted_error = False
        error = refusal_of(lambda: self.storage.put_many(batch))
        for number, frame in zip(numbers, batch, strict=True):
            if self._is_there(number):
                wanted_error = True
                break
            self.model.add(*frame)
        if wanted_error != isinstance(error, CoordinatesExistError):
            raise PromiseBrokenError("P4", f"put_many at {numbers} {ending_of(error)}")

    @_open
    @stateful.precondition(lambda machine: machine.model.frames)
    @stateful.rule(data=strategies.data())
    def put_twice(self, data: Any) -> None:
        """Put a different frame at coordinates that already have a frame. The new frame must be refused."""
        axes = data.draw(strategies.sampled_from([put.axes for put in self.model.frames.values()]))
        other = self.subject.frame(axes, salt=1)
        if not isinstance(refusal_of(lambda: self.storage.put(axes, other, {})), CoordinatesExistError):
            raise PromiseBrokenError(
                "P4", f"put at {axes}, where a frame exists, did not raise CoordinatesExistError"
            )

    @_open
    @stateful.rule(axes=_bad_coordinates)
    def put_at_bad_coordinates(self, axes: Any) -> None:
        """Put a frame at invalid coordinates."""
        frame = self.subject.frame(self.subject.axes(0))
        if refusal_of(lambda: self.storage.put(axes, frame, {})) is None:
            raise PromiseBrokenError("P2", f"put accepted the invalid coordinates {axes!r}")

    @_open
    @stateful.rule(number=_numbers, kind=_bad_arrays)
    def put_bad_array(self, number: int, kind: str) -> None:
        """Put something that is not an array of numbers."""
        import numpy as np

        data: Any = {"none": None, "text": "pixels", "objects": np.array([[object()]])}[kind]
        axes = self.subject.axes(number)
        if refusal_of(lambda: self.storage.put(axes, data, {})) is None:
            raise PromiseBrokenError("P2", f"put accepted {type(data).__name__} {data!r:.40} as pixels")

    @_open
    @stateful.precondition(lambda machine: machine.subject.can.metadata)
    @stateful.rule(number=_numbers, value=strategies.sampled_from([float("nan"), b"x", {1: 2}, {"a": {1}}]))
    def put_bad_metadata(self, number: int, value: Any) -> None:
        """Put a frame with metadata that JSON cannot represent."""
        axes, frame, _ = self._frame(number, None)
        if refusal_of(lambda: self.storage.put(axes, frame, value)) is None:
            raise PromiseBrokenError("P9", f"put accepted the invalid metadata {value!r}")

    @_open
    @stateful.rule(number=_numbers)
    def put_and_change_the_array(self, number: int) -> None:
        """Put a frame, and change its array and metadata immediately afterwards."""
        if not self._is_there(number):
            axes, frame, metadata = self._frame(number, {"changed": []})
            given, kept = frame.copy(), copy.deepcopy(metadata)
            self.storage.put(axes, given, metadata)
            given[...] = 0
            metadata.get("changed", []).append(1)
            self.model.add(axes, frame, kept)

    @_open
    @stateful.rule(durable=strategies.booleans())
    def flush(self, durable: bool) -> None:
        """Flush the storage, or check that the backend refuses to flush as documented."""
        error = refusal_of(lambda: self.storage.flush(durable))
        if error is not None and not isinstance(error, NotImplementedError):
            raise PromiseBrokenError(
                "F2" if durable else "F1", f"flush(durable={durable}) raised {error!r:.200}"
            )
        if durable and (error is None) != self.subject.can.durable_flush:
            raise PromiseBrokenError(
                "F2",
                f"durable_flush is {self.subject.can.durable_flush}, but flush(durable=True) "
                f"{ending_of(error)}",
            )

    @_open
    @stateful.rule(value=_json)
    def annotate(self, value: Any) -> None:
        """Annotate the dataset, or check that the backend refuses annotations as documented."""
        error = refusal_of(lambda: self.storage.annotate("note", value))
        if error is not None and not isinstance(error, NotImplementedError):
            raise PromiseBrokenError("N4", f"annotate({value!r:.80}) raised {error!r:.200}")

    # -- reading ---------------------------------------------------------------------------------

    @_reading
    @stateful.rule(number=_numbers)
    def get(self, number: int) -> None:
        """Read a frame, or check that CoordinatesNotFoundError is raised if there is no frame."""
        axes = self.subject.axes(number)
        error = refusal_of(lambda: self.storage.get_data(axes))
        if self._is_there(number) == isinstance(error, CoordinatesNotFoundError):
            was_put = "a frame was" if self._is_there(number) else "no frame was"
            raise PromiseBrokenError("R1", f"get_data({axes}) {ending_of(error)}; {was_put} put there")

    @_reading
    @stateful.rule(number=_numbers)
    def get_metadata(self, number: int) -> None:
        """Read a frame's metadata, or check that CoordinatesNotFoundError is raised if there is no frame."""
        axes = self.subject.axes(number)
        if not self._is_there(number):
            if not isinstance(refusal_of(lambda: self.storage.get_metadata(axes)), CoordinatesNotFoundError):
                raise PromiseBrokenError(
                    "R1",
                    f"no frame was put at {axes}, but get_metadata did not raise CoordinatesNotFoundError",
                )
        elif self.subject.can.metadata:
            check_metadata(self.storage, axes, self.model.frames[frozenset(axes.items())].metadata)

    @_reading
    @stateful.rule()
    def read_in_another_thread(self) -> None:
        """Compare all frames with the model from another thread."""
        in_thread(lambda: self.model.check(self.storage))

    @stateful.rule(value=strategies.sampled_from([None, 3, "time", [], object(), {"time": []}, {1: 1}]))
    def look_for_nonsense(self, value: Any) -> None:
        """Check that ``in`` returns False for values that are not coordinates."""
        try:
            found = value in self.storage
        except Exception as error:
            raise PromiseBrokenError("R1", f"`in` raised {error!r:.200} for {value!r}") from error
        if found:
            raise PromiseBrokenError("R1", f"`in` returned True for {value!r}")

    # -- the end ---------------------------------------------------------------------------------

    @_reading
    @stateful.rule()
    def finish(self) -> None:
        """Finish the storage, either for the first time or again."""
        self._ends(self.storage.finish, "finish")
        if self.state == "open":
            self.state, self.ended = "finished", True

    @stateful.rule()
    def close(self) -> None:
        """Close the storage, either for the first time or again."""
        self._ends(self.storage.close, "close")
        self.state = "closed"

    @_open
    @stateful.rule()
    def abort(self) -> None:
        """Abort the storage, and check that it keeps its frames and accepts no further frames."""
        self._ends(lambda: self.storage.abort("by the model"), "abort")
        self.state, self.ended = "finished", True

    def _ends(self, call: Callable[[], None], what: str) -> None:
        try:
            call()
        except Exception as error:
            raise PromiseBrokenError(
                "N1", f"in the state {self.state!r}, {what}() raised {error!r:.200}"
            ) from error

    @_ended
    @stateful.rule(number=_numbers)
    def put_after_the_end(self, number: int) -> None:
        """Put a frame into a storage that is no longer open for writing and must therefore refuse it."""
        axes, frame, metadata = self._frame(number, {})
        error = refusal_of(lambda: self.storage.put(axes, frame, metadata))
        if not isinstance(error, StorageStateError | NotImplementedError):
            raise PromiseBrokenError(
                "P5", f"in the state {self.state!r}, put {ending_of(error)}, but must be refused"
            )

    @stateful.precondition(lambda machine: machine.state == "closed" and machine.reopens)
    @stateful.rule()
    def reopen(self) -> None:
        """Reopen the dataset, whether or not it was finished."""
        self.storage = self.subject.open(self.path)
        self.state = "reopened"

    # -- invariants ------------------------------------------------------------------------------

    @stateful.invariant()
    def is_true(self) -> None:
        """Check that the storage is truthy, even when it is empty."""
        if not self.storage:
            raise PromiseBrokenError("R4", "bool(storage) returned False")

    @stateful.invariant()
    def holds_the_newest_and_the_oldest_frame(self) -> None:
        """Compare the first and the last stored frame with the model."""
        if self.state != "closed" and self.model.frames:
            known = list(self.model.frames.values())
            for put in (known[0], known[-1]):
                self.model.check_one(self.storage, put, self._broken("P1"))

    @stateful.invariant()
    def holds_nothing_else(self) -> None:
        """Compare the results of ``in`` with the model for all coordinates in the small set."""
        if self.state != "closed":
            for number in range(PLACES):
                if (self.subject.axes(number) in self.storage) != self._is_there(number):
                    raise PromiseBrokenError(
                        self._broken("P2"), f"`in` returned the wrong result for {self.subject.axes(number)}"
                    )

    @stateful.invariant()
    def counts_its_frames(self) -> None:
        """Compare the length of the storage with that of the model."""
        if (
            self.state != "closed"
            and self.subject.can.iterable
            and len(self.storage) != len(self.model.frames)
        ):
            raise PromiseBrokenError(
                self._broken("P2"),
                f"len(storage) is {len(self.storage)}; stored frames: {len(self.model.frames)}",
            )

    @stateful.invariant()
    def keeps_the_order(self) -> None:
        """Compare the order of the coordinates with the order in which the frames were put."""
        if self.state != "closed" and self.subject.can.iterable:
            if [frozenset(dict(axes).items()) for axes in self.storage] != list(self.model.frames):
                raise PromiseBrokenError(
                    self._broken("R4"), "the coordinates are not in the order in which the frames were put"
                )

    @stateful.invariant()
    def knows_whether_it_is_finished(self) -> None:
        """Compare ``is_finished`` with the model, if the backend supports it."""
        if self.state in ("open", "finished"):
            try:
                finished = self.storage.is_finished()
            except NotImplementedError:
                return
            if finished != (self.state == "finished"):
                raise PromiseBrokenError(
                    "N4", f"is_finished() returned {finished}, but the storage is {self.state}"
                )


def run_model(subject: Subject, *, reduce: bool = True) -> None:
    """Run the state machine on a backend and raise an error for the first fault.

    Parameters
    ----------
    subject : Subject
    reduce : bool
        Whether to look for the shortest sequence of calls that reproduces the fault.
    """
    wanted = ("explicit", "generate", "shrink") if reduce else ("explicit", "generate")
    phases = [phase for phase in hypothesis.Phase if phase.name in wanted]
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        phases=phases,
        deadline=None,
        database=None,
        derandomize=True,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    stateful.run_state_machine_as_test(lambda: StorageMachine(subject), settings=settings)  # type: ignore[arg-type]  # Hypothesis calls it
