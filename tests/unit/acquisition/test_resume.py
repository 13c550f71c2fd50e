"""An acquisition that is continued in the dataset of an earlier run, and what is refused."""

import json
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest

from exengine.acquisition.earlier import find_earlier
from exengine.acquisition.run import Acquisition, acquire
from exengine.config.layers import resolve
from exengine.datasets.creation import StoragePlan, open_storage
from exengine.datasets.opening import open_dataset
from exengine.datasets.verification import verify
from exengine.frame_sources.simulated import SimulatedSource, decode
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage
from exengine.kernel.errors import (
    AcquisitionError,
    ConfigError,
    DatasetAccessError,
    DatasetDamagedError,
    DatasetLockedError,
    UnsupportedDataError,
    UnsupportedOperationError,
)
from exengine.kernel.frame_source_base import FrameSource
from exengine.kernel.registry import plugins
from exengine.kernel.storage import manifest
from exengine.kernel.storage.managed import ManagedStorage

FRAMES = 18


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def config(installed):
    """Return what makes a config of 18 frames, of which one run takes at most 7."""

    def config(fail_after=7, **sequence):
        return {
            "storage": {"backend": "disk", "path": "elsewhere", "if_exists": "number"},
            "source": {"name": "simulated", "options": {"width": 32, "height": 24, "fail_after": fail_after}},
            "sequence": {
                "channels": ["DAPI", "FITC"],
                "time_plan": {"interval": 0, "loops": 3},
                "z_plan": {"range": 2, "step": 1},
                **sequence,
            },
        }

    return config


@pytest.fixture
def left(config, path):
    """Return the config of an acquisition that failed after 7 frames at the path."""
    with pytest.raises(AcquisitionError, match="fail_after=7"):
        acquire(config(), resume=path)
    return config()


def tree_of(path):
    return {file: (path / file).read_bytes() for file in sorted(os.listdir(path))}


def kill(path):
    """Leave a dataset as its writer would have when it was killed: incomplete, without a ledger."""
    content = json.loads((path / "exengine.json").read_bytes())
    content["status"] = "incomplete"
    for name in ("frames", "facts", "reason"):
        content.pop(name, None)
    content["annotations"].pop("ledger", None)
    (path / "exengine.json").write_text(json.dumps(content))


def remove(path, *numbers):
    """Remove frames from a dataset that was killed, and number the others without gaps."""
    kill(path)
    for number in sorted(numbers, reverse=True):
        for kind in ("npy", "json"):
            (path / f"{number}.{kind}").unlink()
            later = number + 1
            while (file := path / f"{later}.{kind}").exists():
                file.rename(path / f"{later - 1}.{kind}")
                later += 1


# -- going on ------------------------------------------------------------------------------------


def test_a_path_without_a_dataset_is_begun(config, path):
    path.mkdir()
    assert acquire(config(None), resume=path).stored == FRAMES
    dataset = open_dataset(path)
    assert dataset.status == "complete" and "runs" not in dataset.annotations
    assert not os.path.exists("elsewhere")


@pytest.mark.parametrize("end", ["failed source", "killed"])
def test_the_frames_that_are_missing_are_taken_in_the_order_of_the_plan(left, path, end):
    if end == "killed":
        kill(path)
    planned = [c for _ in [0] for c in Acquisition(left, resume=path).plan.coordinates()]
    with pytest.raises(AcquisitionError, match="7 frames were stored"):
        acquire(left, resume=path)
    with Acquisition(left, resume=str(path)) as run:
        assert (run.plan.frames, run.remaining, run.path) == (FRAMES, 4, str(path))
        ledger = run.run()
        assert (ledger.stored, ledger.stored_before, ledger.complete, run.status) == (4, 14, True, "complete")
    dataset = open_dataset(path)
    assert dataset.status is DatasetStatus.COMPLETE and list(dataset) == planned
    assert all(decode(dataset[coordinates]) == coordinates for coordinates in dataset)
    report = verify(path)
    assert report.ok and report.checked == FRAMES, report


def test_frames_that_are_missing_anywhere_in_the_plan_are_taken(config, path):
    acquire(config(None), resume=path)
    planned = list(open_dataset(path))
    remove(path, 0, 3, 4, 11, 17)
    with Acquisition(config(None), resume=path) as run:
        assert run.run().stored == 5
    dataset = open_dataset(path)
    assert list(dataset)[13:] == [planned[number] for number in (0, 3, 4, 11, 17)]
    assert len(set(dataset)) == FRAMES and dataset.status == "complete"


def test_a_source_makes_no_frame_that_exists(left, path, monkeypatch):
    made = []
    render = SimulatedSource._render

    def note(self, event):
        made.append(self._coordinates(self._complete, event))
        return render(self, event)

    existing = set(open_dataset(path))
    monkeypatch.setattr(SimulatedSource, "_render", note)
    with pytest.raises(AcquisitionError):
        acquire(left, resume=path)
    assert len(made) == 7 and not existing & set(made)


def test_a_frame_that_a_source_delivers_again_is_ignored(config, path, monkeypatch):
    """As of an event with two cameras, of whose frames one exists."""
    acquire(config(None), resume=path)
    remove(path, 5)
    monkeypatch.setattr(SimulatedSource, "skip", lambda self, existing: None)
    with Acquisition(config(None), resume=path) as run:
        ledger = run.run()
    assert (ledger.offered, ledger.stored) == (1, 1)


def test_a_complete_dataset_is_left_alone_and_no_device_is_started(config, path, monkeypatch):
    acquire(config(None), resume=path)
    before = tree_of(path)
    monkeypatch.setattr(SimulatedSource, "prepare", None)
    with Acquisition(config(None), resume=path) as run:
        ledger = run.run()
        assert (run.status, run.remaining, run.path) == ("complete", 0, str(path))
    assert (ledger.stored, ledger.stored_before, ledger.complete) == (0, FRAMES, True)
    assert tree_of(path) == before


def test_a_dataset_that_only_lacks_its_end_is_finished(config, path):
    acquire(config(None), resume=path)
    kill(path)
    with Acquisition(config(None), resume=path) as run:
        assert run.run().stored == 0 and run.status == "complete"
    assert open_dataset(path).status == "complete" and verify(path).ok


def test_a_dataset_without_frames_is_begun_again(config, path):
    with pytest.raises(AcquisitionError):
        acquire(config(0), resume=path)
    assert not len(open_dataset(path))
    with pytest.raises(AcquisitionError):
        acquire(config(0), resume=path)
    runs = open_dataset(path).annotations["runs"]
    assert [run.get("frames") for run in runs] == [0, None]
    kill(path)
    content = json.loads((path / "exengine.json").read_bytes())
    content["annotations"] = {}  # the writer was killed before it stored the config
    (path / "exengine.json").write_text(json.dumps(content))
    assert acquire(config(None), resume=path).stored == FRAMES


def test_the_dataset_is_incomplete_before_the_first_new_frame(left, path, monkeypatch):
    seen = []
    write = plugins.BACKENDS.load("disk").write_frame

    def look(self, number, *frame):
        note = manifest.read_manifest(path)
        seen.append((note.status, note.frames, note.reason, note.annotations["ledger"]))
        write(self, number, *frame)

    monkeypatch.setattr(plugins.BACKENDS.load("disk"), "write_frame", look)
    with pytest.raises(AcquisitionError):
        acquire(left, resume=path)
    assert seen[0] == (DatasetStatus.INCOMPLETE, None, "", None)


# -- what is recorded ----------------------------------------------------------------------------


def test_the_manifest_tells_of_every_run_and_that_time_restarted(left, path):
    kept = open_dataset(path)
    kill(path)
    with pytest.raises(AcquisitionError):
        acquire(left, resume=path)
    acquire(left, resume=path)
    dataset = open_dataset(path)
    first, second, third = dataset.annotations["runs"]
    assert first == {
        "started": kept.manifest["created"],
        "first_frame": 0,
        "status": "incomplete",
        "frames": 7,
    }
    assert (second["status"], second["first_frame"], second["frames"]) == ("aborted", 7, 14)
    assert "fail_after=7" in second["reason"] and second["time_restarted"] is True
    assert second["ledger"]["stored"] == 7 and second["ledger"]["stored_before"] == 7
    assert third.keys() == {"started", "first_frame", "time_restarted"} and third["first_frame"] == 14
    assert dataset.annotations["ledger"]["stored"] == 4
    assert dataset.get_metadata(list(dataset)[7])["frame_number"] == 0


def test_a_repair_belongs_to_the_run_before(left, path):
    content = json.loads((path / "exengine.json").read_bytes())
    content["annotations"]["recovery"] = {
        "total": 9,
        "lost": [{"coordinates": {"time": 9}, "reason": "torn"}],
    }
    (path / "exengine.json").write_text(json.dumps(content))
    with pytest.raises(AcquisitionError):
        acquire(left, resume=path)
    notes = open_dataset(path).annotations
    assert notes["recovery"] is None and notes["runs"][0]["recovery"]["total"] == 9
    assert verify(path).problems == [] and verify(path).missing == []


# -- another config ------------------------------------------------------------------------------


def test_another_config_is_refused_with_the_difference(left, path):
    before = tree_of(path)
    left["source"]["options"]["width"] = 33
    left["sequence"]["time_plan"] = {"interval": 0, "loops": 4}
    left["sequence"]["channels"] = ["DAPI", {"config": "FITC", "exposure": 5}]
    with pytest.raises(ConfigError) as info:
        acquire(left, resume=path)
    assert str(info.value).splitlines() == [
        f"{path} was acquired with a different config:",
        "  source.options.width: 32 in the dataset, 33 in the config",
        "  sequence.channels[1].exposure: nothing in the dataset, 5.0 in the config",
        "  sequence.time_plan.loops: 3 in the dataset, 4 in the config",
    ]
    assert tree_of(path) == before


@pytest.mark.parametrize(
    ("section", "name", "says"),
    [
        ("storage", "memory", None),
        ("source", "other", "source.name: 'simulated' in the dataset, 'other' in the config"),
    ],
)
def test_another_backend_or_source_is_refused(left, path, section, name, says, monkeypatch):
    left[section] = {"backend" if section == "storage" else "name": name}
    with pytest.raises((ConfigError, UnsupportedOperationError), match=says):
        acquire(left, resume=path)


def test_settings_that_do_not_change_the_frames_may_differ(left, path):
    left["source"]["options"] = {"fail_after": 7, "height": 24, "width": 32, "seed": 0, "rgb": False}
    left["handler"] = {"max_pending": "1 MiB"}
    left["storage"]["check_space"] = False
    left["sequence"]["z_plan"] = {"range": 2.0, "step": 1.0, "go_up": True}
    with Acquisition(resolve(left), resume=path) as run:
        assert run.remaining == 11


def test_options_from_the_environment_have_their_types(left, path, monkeypatch):
    monkeypatch.setenv("EXENGINE_SOURCE__OPTIONS__WIDTH", "32")
    with Acquisition(left, resume=path) as run:
        assert run.remaining == 11


def test_a_dataset_with_any_config_is_read(left, path):
    content = json.loads((path / "exengine.json").read_bytes())
    for odd in ([], {"source": 3}, {"source": {"name": "simulated", "options": [1]}, "sequence": "x"}):
        content["annotations"]["config"] = odd
        (path / "exengine.json").write_text(json.dumps(content))
        with pytest.raises((ConfigError, UnsupportedOperationError)):
            acquire(left, resume=path)


# -- what cannot be continued --------------------------------------------------------------------


def test_a_backend_that_cannot_continue_is_refused_before_anything_is_touched(left, path, monkeypatch):
    import dataclasses

    cls = plugins.BACKENDS.load("disk")
    before = tree_of(path)
    monkeypatch.setattr(cls, "capabilities", dataclasses.replace(cls.capabilities, resumable=False))
    with pytest.raises(
        UnsupportedOperationError, match="backend 'disk' cannot add frames to an existing dataset"
    ):
        Acquisition(left, resume=path)
    assert tree_of(path) == before


def test_the_default_of_the_contract_refuses():
    with pytest.raises(UnsupportedOperationError, match="DataStorage cannot continue an existing dataset"):
        DataStorage.resume("somewhere")
    with pytest.raises(UnsupportedOperationError, match="FrameSource cannot leave out the frames"):
        FrameSource.skip(type("FrameSource", (), {})(), ())
    assert ManagedStorage.resume.__func__ is DataStorage.resume.__func__


def test_a_source_that_cannot_leave_out_frames_is_refused(left, path, monkeypatch):
    before = tree_of(path)
    monkeypatch.setattr(SimulatedSource, "skip", FrameSource.skip)
    with pytest.raises(UnsupportedOperationError, match="SimulatedSource cannot leave out"):
        Acquisition(left, resume=path)
    assert tree_of(path) == before


def test_frames_in_memory_cannot_be_continued(config, path):
    left = config()
    left["storage"] = {"backend": "memory"}
    with pytest.raises(UnsupportedOperationError, match="'memory' keeps frames in memory"):
        acquire(left, resume=path)


def test_object_storage_cannot_be_continued(left, monkeypatch):
    plan = StoragePlan("disk", "unused", options={})
    plan.path = "s3://bucket/data"
    with pytest.raises(UnsupportedOperationError, match="is in object storage, where an acquisition cannot"):
        find_earlier(resolve(left), plan)


def test_a_writer_that_is_alive_is_not_disturbed(left, path):
    lock = manifest.take_lock(path)
    with pytest.raises(DatasetLockedError, match="is being written"):
        acquire(left, resume=path)
    os.close(lock)


def test_a_dataset_of_another_program_is_refused(config, path):
    with open_storage("disk", path) as storage:
        storage.put({"time": 0}, np.zeros((24, 32), np.uint16), {})
    with pytest.raises(UnsupportedOperationError, match="has no record of its config"):
        acquire(config(), resume=path)
    shutil.rmtree(path)
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(Exception, match="notes|no installed backend|not a dataset"):
        acquire(config(), resume=path)
    assert (path / "notes.txt").read_text() == "mine"


def test_a_damaged_dataset_is_refused(left, path, monkeypatch):
    reader = type(open_dataset(path))
    monkeypatch.setattr(reader, "status", DatasetStatus.DAMAGED)
    with pytest.raises(DatasetDamagedError, match="repair it first with exengine recover --in-place"):
        acquire(left, resume=path)


def test_processed_frames_cannot_be_continued(config, path):
    left = config()
    left["handler"] = {"process": lambda coordinates, data, metadata: (coordinates, data, metadata)}
    with pytest.raises(AcquisitionError):
        acquire(left, resume=path)
    with pytest.raises((UnsupportedOperationError, ConfigError), match=r"handler\.process"):
        acquire(left, resume=path)


def test_random_points_that_would_lie_elsewhere_are_refused(config, path):
    points = {"num_points": 4, "max_width": 100, "max_height": 100}
    for seed, refused in ((None, True), (3, False)):
        tree = config(5, grid_plan={**points, **({} if seed is None else {"random_seed": seed})})
        shutil.rmtree(path, ignore_errors=True)
        with pytest.raises(AcquisitionError):
            acquire(tree, resume=path)
        if refused:
            with pytest.raises(UnsupportedOperationError, match="set random_seed"):
                Acquisition(tree, resume=path)
        else:
            with Acquisition(tree, resume=path) as run:
                assert run.remaining == 72 - 5


def test_frames_that_are_not_planned_are_refused(left, path, monkeypatch):
    number = json.loads((path / "3.json").read_bytes())
    (path / "3.json").write_text(json.dumps([{**number[0], "z": 99}, number[1]]))
    with pytest.raises(ConfigError, match=r"has a frame at \{.*'z': 99\}, where the source plans no frame"):
        acquire(left, resume=path)


def test_frames_of_another_layout_are_refused(left, path):
    np.save(path / "0.npy", np.zeros((5, 5), np.uint8))
    with pytest.raises(UnsupportedDataError, match=r"layout \(5, 5\) uint8, but the source now delivers"):
        acquire(left, resume=path)


def test_only_the_remaining_frames_need_space(left, path, monkeypatch):
    usage = namedtuple("Usage", "total used free")
    need = 11 * (24 * 32 * 2 + DataStorage.overhead_bytes_per_frame)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, need))
    with Acquisition(left, resume=path) as run:
        assert run.remaining == 11
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, need - 1))
    with pytest.raises(DatasetAccessError, match="free"):
        Acquisition(left, resume=path)
