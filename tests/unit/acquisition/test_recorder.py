"""The storing half of an acquisition, used by a program that has its own acquisition loop."""

import dataclasses
import os

import numpy as np
import pytest

from exengine.acquisition.recorder import Recorder
from exengine.datasets.opening import open_dataset
from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import (
    AcquisitionError,
    CoordinatesExistError,
    DatasetExistsError,
    HandlerError,
    OptionError,
    SourceError,
    UnsupportedDataError,
)
from exengine.kernel.source_plan import SourcePlan

FRAME = np.arange(12, dtype=np.uint16).reshape(3, 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def recorder(installed, path):
    made = Recorder({"storage": {"backend": "disk", "path": str(path)}})
    yield made
    made.close()


def test_frames_are_stored_with_the_config_and_the_ledger(recorder, path):
    recorder.check(SourcePlan(frames=2))
    assert not path.exists() and recorder.status == "incomplete"
    recorder.open(SourcePlan(frames=2))
    for time in range(2):
        recorder.put({"time": time}, FRAME + time, {"number": time})
    recorder.finish()
    recorder.report()
    assert recorder.status == "complete" and recorder.ledger.stored == 2
    assert recorder.path == os.path.realpath(path)
    recorder.close()
    dataset = open_dataset(path)
    assert dataset.annotations["ledger"]["stored"] == 2
    assert dataset.annotations["config"]["storage"]["backend"] == "disk"
    assert np.array_equal(dataset[{"time": 1}], FRAME + 1)


def test_with_a_reason_the_dataset_is_aborted_and_the_first_reason_is_kept(recorder, path):
    recorder.open(SourcePlan())
    recorder.put({"time": 0}, FRAME, {})
    recorder.finish("cancelled")
    recorder.finish("later", failed=True)
    recorder.close()
    dataset = open_dataset(path)
    assert (dataset.status, dataset.status_reason) == (DatasetStatus.ABORTED, "cancelled")
    assert len(dataset) == 1


def test_an_error_of_the_storage_is_kept_and_becomes_the_cause_of_the_failure(recorder):
    recorder.open(SourcePlan())
    recorder.put({"time": 0}, FRAME, {})
    recorder.put({"time": 0}, FRAME, {})
    recorder.finish()
    assert isinstance(recorder.error, CoordinatesExistError) and recorder.status == "failed"
    error = recorder.failure(recorder.error)
    assert isinstance(error, AcquisitionError) and error.__cause__ is recorder.error
    assert error.ledger is recorder.ledger
    assert f"1 frame was stored in {recorder.path}, status failed" in str(error)
    wrapped = HandlerError("frames were not stored")
    wrapped.__cause__ = recorder.error
    assert recorder.failure(wrapped).__cause__ is recorder.error


@pytest.mark.parametrize(
    ("ending", "status"),
    [((), "complete"), (("cancelled",), "aborted"), (("broken", True), "failed")],
)
def test_a_backend_that_records_no_status_has_the_one_of_its_end(installed, ending, status):
    recorder = Recorder.for_path("memory")
    recorder.open(SourcePlan())
    recorder.finish(*ending[:1], failed=bool(ending[1:]))
    assert recorder.status == status
    recorder.close()


def test_planned_frames_that_the_backend_does_not_accept_are_rejected_before_anything_is_written(
    recorder, installed, path, monkeypatch
):
    cls = installed.load("disk")
    monkeypatch.setattr(cls, "capabilities", dataclasses.replace(cls.capabilities, dtypes=("uint8",)))
    with pytest.raises(UnsupportedDataError, match="dtype uint16, but backend 'disk' accepts only uint8"):
        recorder.check(SourcePlan(frames=1, shape=(3, 4), dtype="uint16"))
    with pytest.raises(SourceError, match="contains no frames"):
        recorder.check(SourcePlan(frames=0))
    assert not path.exists()


def test_a_recorder_for_a_path_reads_no_other_settings(installed, path, monkeypatch):
    monkeypatch.setenv("EXENGINE_STORAGE__BACKEND", "memory")
    monkeypatch.setenv("EXENGINE_STORAGE__IF_EXISTS", "number")
    recorder = Recorder.for_path("disk", path, settings={"handler.max_pending": 1})
    assert recorder.config["storage.backend"] == "disk" and recorder.config["handler.max_pending"] == 1
    recorder.open(SourcePlan())
    recorder.finish()
    recorder.close()
    with pytest.raises(DatasetExistsError):
        Recorder.for_path("disk", path).open(SourcePlan())
    with pytest.raises(OptionError, match="levl"):
        Recorder.for_path("disk", path, options={"levl": 1})


def test_a_dataset_whose_config_cannot_be_kept_is_ended(recorder, installed, path, monkeypatch):
    cls = installed.load("disk")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cls, "annotate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recorder.open(SourcePlan())
    recorder.close()
    assert open_dataset(path).status is DatasetStatus.FAILED


def test_a_recorder_stores_one_dataset(recorder):
    recorder.open(SourcePlan())
    with pytest.raises(AcquisitionError, match="one dataset"):
        recorder.open(SourcePlan())
    recorder.finish()
