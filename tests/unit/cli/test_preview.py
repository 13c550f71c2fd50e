"""``exengine preview`` shows frames in the one documented order, which ``dataset.axes`` has."""

import numpy as np
import pytest

from exengine.cli.preview import MOST_COLUMNS, MOST_ROWS, choose_frames


@pytest.fixture
def storage(disk_storage, tmp_path):
    with disk_storage(tmp_path / "data") as storage:
        yield storage


def fill(storage, *frames):
    for frame in frames:
        storage.put(frame, np.zeros((3, 4)), None)
    return storage


def shown(storage):
    return [[dict(frame) for frame in row] for row in choose_frames(storage)]


def test_frames_in_a_row_are_in_ascending_order(storage):
    dataset = fill(storage, *({"z": z} for z in (0, -1, 1, -2, 2)))
    assert shown(dataset) == [[{"z": z} for z in (-2, -1, 0, 1, 2)]]


def test_rows_are_in_the_order_of_the_axes_and_their_positions(storage):
    order = [("b", "FITC"), ("a", "DAPI"), ("b", "DAPI"), ("a", "FITC")]
    dataset = fill(storage, *({"position": p, "channel": c} for p, c in order))
    assert list(dataset.axes.items()) == [("position", ["b", "a"]), ("channel", ["FITC", "DAPI"])]
    assert shown(dataset) == [[{"position": p, "channel": c}] for p in ("b", "a") for c in ("FITC", "DAPI")]


def test_the_row_of_integers_is_before_the_rows_of_names(storage):
    dataset = fill(storage, *({"position": p} for p in ("A", 2, "0", 1)))
    assert dataset.axes["position"] == [1, 2, "A", "0"]
    assert shown(dataset) == [[{"position": 1}, {"position": 2}], [{"position": "A"}], [{"position": "0"}]]


def test_a_large_dataset_is_spread_over_that_order(storage):
    dataset = fill(storage, *({"z": z, "well": str(w)} for w in range(20) for z in range(20, 0, -1)))
    rows = shown(dataset)
    assert [row[0]["well"] for row in rows] == ["0", "3", "5", "8", "11", "14", "16", "19"]
    assert [frame["z"] for frame in rows[0]] == [1, 4, 6, 9, 12, 15, 17, 20]
    assert (len(rows), len(rows[0])) == (MOST_ROWS, MOST_COLUMNS)
