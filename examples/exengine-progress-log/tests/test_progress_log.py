"""The log file: a line for the beginning, for each batch and for the end, beside the dataset."""

import json
import re
import sys

import exengine
import pytest
from exengine.cli.main import main
from exengine.testing import refresh_plugins

BACKEND = '''
import os
from exengine import DataCoordinates, DataStorage, StorageCapabilities

class FileStorage(DataStorage):
    """Keep frames in memory, and an empty folder on the disk."""
    capabilities = StorageCapabilities(persistent=True, string_axes=True, metadata=True)
    fail_at = None
    def __init__(self, path: str) -> None:
        self.path, self.frames = path, {}
        os.mkdir(path)
    def put(self, coordinates, data, metadata):
        if len(self.frames) == self.fail_at: raise OSError(28, "No space left on device")
        self.frames[DataCoordinates(dict(coordinates))] = data, metadata
    def get_data(self, coordinates): return self.frames[coordinates][0]
    def get_metadata(self, coordinates): return self.frames[coordinates][1]
    def __contains__(self, coordinates): return coordinates in self.frames
    def finish(self): pass
    def abort(self, reason="", *, failed=False): pass
    def close(self): pass
'''


@pytest.fixture
def acquire(tmp_path, monkeypatch):
    """Return what acquires frames into a backend of this test, at ``tmp_path / 'data'``."""
    site = tmp_path / "site"
    info = site / "some_backend-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[exengine.storage_backends]\nfile = some_backend:FileStorage\n")
    (site / "some_backend.py").write_text(BACKEND)
    monkeypatch.syspath_prepend(str(site))
    refresh_plugins()

    def run(name="data", loops=5, fail_at=None):
        config = {
            "storage": {"backend": "file", "path": str(tmp_path / name)},
            "source": {"name": "simulated", "options": {"width": 32, "height": 32}},
            "sequence": {"time_plan": {"interval": 0, "loops": loops}},
        }
        acquisition = exengine.Acquisition(config)
        monkeypatch.setattr(sys.modules["some_backend"].FileStorage, "fail_at", fail_at)
        with acquisition:
            try:
                acquisition.run()
            except exengine.errors.AcquisitionError:
                assert fail_at is not None
        return acquisition

    yield run
    sys.modules.pop("some_backend", None)
    monkeypatch.undo()
    refresh_plugins()


def lines_of(log):
    """Return the lines without their times, which must be there."""
    lines = log.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} ", line) for line in lines)
    return [line.split(" ", 1)[1] for line in lines]


def test_exengine_finds_the_observer_and_refuses_none_of_its_hooks(capsys):
    main(["doctor", "--json"])
    hooks = json.loads(capsys.readouterr().out)["hooks"]
    (record,) = [record for record in hooks if record["distribution"] == "exengine-progress-log"]
    assert (record["name"], record["state"], record["error"]) == ("progress-log", "valid", "")


def test_an_acquisition_leaves_a_log_beside_its_dataset(acquire, tmp_path):
    assert acquire().observer_errors == []
    first, *batches, last = lines_of(tmp_path / "data.log")
    assert first == f"opened {tmp_path / 'data'} (file)"
    counts = [re.fullmatch(r"(\d+) frames stored, (\d+) in all, the last at (.*)", line) for line in batches]
    assert sum(int(count[1]) for count in counts) == int(counts[-1][2]) == 5
    assert counts[-1][3] == "{'time': 4}"
    assert last == "complete: 5 of 5 frames stored, 0 lost"


def test_an_acquisition_that_fails_says_what_was_lost(acquire, tmp_path):
    run = acquire(fail_at=2)
    assert run.observer_errors == []
    lost = run.ledger.failed
    assert lost > 0
    offered = run.ledger.offered
    assert lines_of(tmp_path / "data.log")[-1] == f"failed: 2 of {offered} frames stored, {lost} lost"


def test_two_acquisitions_have_two_logs_and_one_after_the_other_counts_anew(acquire, tmp_path):
    acquire("one", loops=3)
    acquire("two", loops=4)
    assert lines_of(tmp_path / "one.log")[-1] == "complete: 3 of 3 frames stored, 0 lost"
    assert lines_of(tmp_path / "two.log")[-1] == "complete: 4 of 4 frames stored, 0 lost"
    assert "4 in all" in lines_of(tmp_path / "two.log")[-2]


def test_a_log_that_cannot_be_written_is_reported_and_the_frames_are_stored(acquire, tmp_path):
    (tmp_path / "data.log").mkdir()
    run = acquire()
    assert run.ledger.stored == 5
    assert "exengine-progress-log:progress-log raised in exengine_storage_opened" in run.observer_errors[0]
    assert "the path is a folder, not a regular file" in run.observer_errors[0]


@pytest.mark.parametrize("kind", ["notes", "link"])
def test_a_file_of_another_kind_with_the_name_of_the_log_is_left_alone(acquire, tmp_path, kind):
    (tmp_path / "notes").write_text("mine")
    if kind == "link":
        (tmp_path / "data.log").symlink_to("notes")
    else:
        (tmp_path / "notes").rename(tmp_path / "data.log")
    run = acquire()
    assert run.ledger.stored == 5 and len(run.observer_errors) >= 1
    assert (tmp_path / "data.log").read_text() == "mine"


def test_an_older_log_is_appended_to(acquire, tmp_path):
    acquire()
    first = lines_of(tmp_path / "data.log")
    (tmp_path / "data").rmdir()
    acquire()
    assert lines_of(tmp_path / "data.log")[: len(first)] == first
    assert len(lines_of(tmp_path / "data.log")) > len(first)
