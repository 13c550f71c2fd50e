"""Numpy, Python and notebooks ask a storage for its pixels, its text and its table."""

import sys

import numpy as np
import pytest

from exengine import Ledger, open_dataset
from exengine.errors import CoordinatesNotFoundError, UnsupportedOperationError


@pytest.fixture
def made(disk_storage, tmp_path):
    """Write a dataset of 2 x 2 frames, some of them absent; return it open."""

    def make(*absent, dtypes=(np.uint16,) * 4, name="data"):
        storage = disk_storage(tmp_path / name)
        places = [{"time": time, "channel": channel} for time in range(2) for channel in ("DAPI", "FITC")]
        for number, (place, dtype) in enumerate(zip(places, dtypes, strict=True)):
            if number not in absent:
                storage.put(place, np.full((3, 4), number, dtype), {})
        storage.finish()
        storage.close()
        return open_dataset(tmp_path / name)

    return make


@pytest.fixture(params=["with dask", "without dask"])
def dask(request, monkeypatch):
    """Run a test with dask, and as if dask were not installed."""
    if request.param == "with dask":
        return pytest.importorskip("dask.array")
    monkeypatch.setitem(sys.modules, "dask.array", None)
    return None


def test_asarray_gives_the_pixels_of_as_array(made, dask):
    dataset = made()
    pixels = np.asarray(dataset)
    assert pixels.shape == (2, 2, 3, 4) and pixels.dtype == np.uint16
    assert [pixels[place].max() for place in np.ndindex(2, 2)] == [0, 1, 2, 3]
    if dask:
        assert np.array_equal(pixels, dataset.as_array().compute())
    else:
        with pytest.raises(UnsupportedOperationError, match="as_array needs dask; install it with"):
            dataset.as_array()
    assert np.asarray(dataset, dtype=np.float32).dtype == np.float32
    assert np.array(dataset).flags.writeable


def test_asarray_of_a_sparse_dataset_is_an_error_that_names_the_gap(made, dask):
    with pytest.raises(CoordinatesNotFoundError, match=r"1 frame is missing.*'time': 0, 'channel': 'FITC'"):
        np.asarray(made(1))


def test_asarray_of_frames_of_different_dtypes_is_an_error(made, dask):
    with pytest.raises(UnsupportedOperationError, match="cannot form one array"):
        np.asarray(made(dtypes=(np.uint16, np.uint16, np.uint8, np.uint16)))


def test_asarray_without_a_copy_is_an_error(made):
    with pytest.raises(ValueError, match="without a copy"):
        made().__array__(copy=False)


def test_asarray_of_a_backend_without_as_array_is_an_error_and_not_an_array_of_names(installed):
    storage = installed.load("memory")()
    storage.put({"time": 0}, np.zeros((2, 2), np.uint8), None)
    with pytest.raises(UnsupportedOperationError, match="cannot be read as one array"):
        np.asarray(storage)


def test_the_text_of_a_dataset_names_its_path_status_and_number_of_frames(made, tmp_path):
    dataset = made()
    assert repr(dataset).endswith(f" {str(tmp_path / 'data')!r}: complete, 4 frames>")
    dataset.close()
    assert str(tmp_path / "data") in repr(dataset)


def test_the_table_of_a_dataset_shows_axes_and_pixels(made):
    table = made()._repr_html_()
    assert (
        '<th scope="row">axes</th><td>time: 2 (0, 1); channel: 2 (&#x27;DAPI&#x27;, &#x27;FITC&#x27;)</td>'
        in table
    )
    assert '<th scope="row">pixels</th><td>3 x 4 uint16</td>' in table


def test_a_storage_that_can_state_nothing_still_has_a_text_and_a_table(installed):
    storage = installed.load("memory")()
    assert repr(storage) == "<MemoryStorage>"
    assert "<caption>MemoryStorage</caption>" in storage._repr_html_()


def test_names_in_a_table_are_escaped(made):
    assert "<b>" not in made(name="<b>x")._repr_html_()


def test_the_table_of_a_ledger_lists_the_first_frames_that_were_not_stored():
    ledger = Ledger()
    for time in range(12):
        ledger.name_loss({"time": time}, "disk <full>")
    table = ledger._repr_html_()
    assert table.count("disk &lt;full&gt;") == 10 and "2 more" in table


def test_the_installed_plugins_have_a_text_and_a_table(installed):
    assert repr(installed.records()) == "<2 backends: disk, memory>"
    assert repr(installed) == "<registry of disk, memory>"
    table = installed._repr_html_()
    assert '<th scope="row">memory</th><td>exengine-memory 1.0</td><td>installed</td>' in table


def test_the_mapping_of_plugins_cannot_be_changed(installed):
    with pytest.raises(TypeError):
        installed.records()["memory"] = None
