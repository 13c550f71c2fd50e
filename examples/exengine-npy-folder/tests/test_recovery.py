"""``exengine verify`` and ``exengine recover`` work with it, without a line about them in the backend."""

import exengine
import numpy as np
import pytest
from exengine.errors import UnsupportedOperationError

from exengine_npy_folder import NpyFolderStorage


@pytest.fixture
def path(tmp_path):
    """Make a dataset of five frames whose program ended without calling finish(); return its path."""
    storage = NpyFolderStorage(tmp_path / "data", summary_metadata={"who": "me"})
    for time in range(5):
        storage.put({"time": time}, np.full((3, 4), time, np.float32), {"time": time})
    storage.close()
    return tmp_path / "data"


def damage(path, number):
    file = path / f"frame-{number:09d}.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_every_frame_is_verified(path):
    report = exengine.verify(path)
    assert report.ok and report.checked == 5 and report.has_checksums
    damage(path, 2)
    (path / "frame-000000003.npy").unlink()
    report = exengine.verify(path)
    assert [frame.coordinates for frame in report.damaged] == [{"time": 2}]
    assert [frame.coordinates for frame in report.missing] == [{"time": 3}]


def test_what_survives_becomes_a_finished_dataset(path):
    damage(path, 2)
    report = exengine.recover(path)
    assert (report.frames, report.total) == (4, 5)
    with exengine.open_dataset(report.path) as dataset:
        assert dataset.status == "aborted"
        assert [coordinates["time"] for coordinates in dataset] == [0, 1, 3, 4]
        assert dataset.summary_metadata == {"who": "me"}
        for coordinates in dataset:
            assert (dataset[coordinates] == coordinates["time"]).all()
            assert dataset.get_metadata(coordinates) == {"time": coordinates["time"]}
    assert exengine.recover(path).outcome == "already recovered"
    assert exengine.recover(report.path).outcome == "nothing to recover"


def test_a_torn_index_is_recovered(path):
    with open(path / "npy-index.jsonl", "ab") as file:
        file.write(b'{"number": 5')
    report = exengine.recover(path)
    assert report.ok and report.frames == 5
    assert exengine.verify(report.path).ok


def test_in_place_is_refused_with_a_way_out(path):
    with pytest.raises(UnsupportedOperationError, match="recover it into a copy"):
        exengine.recover(path, in_place=True)
