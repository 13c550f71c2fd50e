"""What the page "Load a dataset elsewhere" says about programs that no test can start."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

import exengine

tifffile = pytest.importorskip("tifffile")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "read_data.rst"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "cells"
    sequence = {
        "channels": ["DAPI", "FITC"],
        "time_plan": {"interval": 0, "loops": 4},
        "z_plan": {"range": 2, "step": 1},
    }
    exengine.acquire(
        {
            "storage": {"backend": "ndtiff", "path": str(path)},
            "source": {"name": "simulated", "options": {"width": 64, "height": 48}},
            "sequence": sequence,
        }
    )
    with exengine.open_dataset(path) as opened:
        yield opened


def matlab(function):
    """Return the lines of the MATLAB example that calls a function."""
    text = PAGE.read_text(encoding="utf-8")
    (body,) = (
        body for body in re.findall(r"code-block:: matlab\n\n((?: +.*\n|\n)+)", text) if function in body
    )
    return body


def test_the_matlab_example_states_the_shape_and_order_of_the_frames(dataset):
    """As MATLAB does it: slices in the order of the file, reshaped with the first index fastest."""
    example = matlab("imread")
    height, width, dtype = re.search(r"zeros\(\[(\d+) (\d+) frames\], '(\w+)'\)", example).groups()
    sizes, order = re.search(r"reshape\(stack, ([\d, ]+), \[\]\);   % (.+)", example).groups()
    names = order.split(", ")
    with tifffile.TiffFile(Path(dataset.path, "NDTiffStack.tif")) as file:
        slices = [page.asarray() for page in file.pages]
    assert slices[0].shape == (int(height), int(width)) and slices[0].dtype == dtype
    shape = [*map(int, sizes.split(", ")), -1]
    stack = np.stack(slices, axis=-1).reshape(shape, order="F")
    assert names == ["row", "column", "z", "channel", "time"]
    channels = dataset.axes["channel"]
    for where in dataset:
        place = (where["z"], channels.index(where["channel"]), where["time"])
        assert np.array_equal(stack[:, :, *place], dataset[where]), where


def test_the_matlab_example_for_hdf5_puts_the_axes_into_the_order_that_it_states(dataset, tmp_path):
    """As MATLAB does it: ``h5read`` reverses the order of the axes, and ``permute`` counts from 1."""
    h5py = pytest.importorskip("h5py")
    example = matlab("h5read")
    name, axes = re.search(
        r"h5read\('data/cells.h5', '(/image)'\).*h5read\('data/cells.h5', '(.+)'\)", example, re.S
    ).groups()
    order, names = re.search(r"permute\(stack, \[([\d ]+)\]\); +% (.+)", example).groups()
    exengine.convert(dataset.path, tmp_path / "cells.h5", backend="hdf5", options={"compression": "gzip"})
    with h5py.File(tmp_path / "cells.h5") as file:
        stack = file[name][()].T.transpose([int(number) - 1 for number in order.split()])
        channels = list(file[axes].asstr())
    assert names.split(", ") == ["row", "column", "z", "channel", "time"]
    for where in dataset:
        place = (where["z"], channels.index(where["channel"]), where["time"])
        assert np.array_equal(stack[:, :, *place], dataset[where]), where


def test_the_arguments_for_napari_fit_one_another(dataset):
    """napari wants a name for each channel, and an axis label for each other dimension of the array."""
    text = PAGE.read_text(encoding="utf-8")
    index = list(dataset.axes).index("channel")
    assert 'channel_axis=list(dataset.axes).index("channel")' in text
    assert dataset.as_array().shape[index] == len(dataset.axes["channel"])
    labels = [*(axis for axis in dataset.axes if axis != "channel"), "y", "x"]
    assert len(labels) == dataset.as_array().ndim - 1


def test_the_table_of_coordinates_has_a_line_for_each_slice(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = next(
        block
        for block in re.findall(r"code-block:: python\n\n((?: +.*\n|\n)+)", PAGE.read_text(encoding="utf-8"))
        if "coordinates.csv" in block
    )
    exec("\n".join(line[3:] for line in block.splitlines()), {"dataset": dataset})
    with open("coordinates.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(dataset)
    assert rows[3] == {"frame": "4", **{axis: str(value) for axis, value in list(dataset)[3].items()}}
