"""A storage receives the plan of its frames, once and before the first frame."""

import numpy as np
import pytest

from exengine.base_classes import DataStorage, PlannedAxis, SourcePlan
from exengine.kernel.errors import (
    CoordinatesError,
    StorageClosedError,
    StorageFailedError,
    StorageFinishedError,
    StorageStateError,
)

PLAN = SourcePlan(frames=2, axes=(PlannedAxis("time", (0, 1)),))
FRAME = np.zeros((2, 3), np.uint16)


@pytest.fixture
def make(disk_storage, tmp_path):
    made = []

    def make(prepare=None):
        class Planning(disk_storage):
            plans = ()

            def prepare_frames(self, plan):
                self.plans = (*self.plans, plan)
                if prepare is not None:
                    prepare(plan)

        made.append(Planning(tmp_path / "data"))
        return made[-1]

    yield make
    for storage in made:
        try:
            storage.close()
        except StorageFailedError:
            continue


def test_a_storage_needs_no_plan_and_by_default_ignores_it(disk_storage, tmp_path):
    with disk_storage(tmp_path / "data") as storage:
        storage.expect(PLAN)
        storage.put({"channel": "other than planned"}, FRAME, None)
    assert DataStorage.expect(object(), PLAN) is None


def test_the_hook_receives_the_plan(make):
    storage = make()
    storage.expect(PLAN)
    assert storage.plans == (PLAN,)
    storage.put({"time": 0}, FRAME, None)
    assert len(storage) == 1


def test_a_second_plan_and_a_plan_after_a_frame_are_refused(make):
    storage = make()
    storage.expect(PLAN)
    with pytest.raises(StorageStateError, match="one plan, before the first frame; a plan has"):
        storage.expect(PLAN)
    storage.put({"time": 0}, FRAME, None)
    with pytest.raises(StorageStateError, match="frames stored so far: 1"):
        storage.expect(PLAN)
    assert storage.plans == (PLAN,)
    storage.put({"time": 1}, FRAME, None)


@pytest.mark.parametrize(("end", "error"), [("finish", StorageFinishedError), ("close", StorageClosedError)])
def test_a_storage_that_has_ended_takes_no_plan(make, end, error):
    storage = make()
    getattr(storage, end)()
    with pytest.raises(error):
        storage.expect(PLAN)
    assert storage.plans == ()


def test_a_full_disk_makes_the_storage_fail(make):
    def full(plan):
        raise OSError(28, "No space left on device")

    storage = make(full)
    with pytest.raises(StorageFailedError, match="No space left on device; the planned frames could not"):
        storage.expect(PLAN)
    with pytest.raises(StorageFailedError, match="No space left"):
        storage.put({"time": 0}, FRAME, None)


def test_a_plan_that_the_format_refuses_leaves_the_storage_usable(make):
    def refuse(plan):
        if plan is PLAN:
            raise CoordinatesError("six axes")

    storage = make(refuse)
    with pytest.raises(CoordinatesError, match="six axes"):
        storage.expect(PLAN)
    storage.expect(SourcePlan())
    storage.put({"time": 0}, FRAME, None)
    storage.finish()


def test_an_interrupt_makes_the_storage_fail(make):
    def interrupt(plan):
        raise KeyboardInterrupt

    storage = make(interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.expect(PLAN)
    with pytest.raises(StorageFailedError, match="interrupted"):
        storage.put({"time": 0}, FRAME, None)
