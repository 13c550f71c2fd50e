"""Viewers in other processes see the frames of a dataset that is being written, without opening it again."""

import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from live_writer import SHAPE, live_frame
from neuroglancer_page import Page
from samples import Image

HERE = Path(__file__).parent
PAGE = HERE.parents[3] / "docs" / "how-to" / "watch_live.rst"
pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries
PIXEL = (SHAPE[0] // 2, SHAPE[1] // 2)


@pytest.fixture
def writer(child, tmp_path):
    """A process that stores a frame for each line; its dataset is ``tmp_path / "live.ome.zarr"``."""
    return child(sys.executable, HERE / "live_writer.py", tmp_path / "live.ome.zarr")


def value(time):
    return float(live_frame(time)[PIXEL])


def test_zarrita_sees_new_frames_in_the_shard_that_it_has_read(
    writer, child, tmp_path, served, zarrita_modules
):
    writer.ask(0)
    script = zarrita_modules / "zarrita_live.mjs"
    script.write_text((HERE / script.name).read_text())
    viewer = child("node", script, served(tmp_path / "live.ome.zarr"))
    for time in range(5):
        np.testing.assert_array_equal(viewer.ask(time), live_frame(time).ravel())
        assert not any(viewer.ask(time + 1))  # zeros: not yet stored
        writer.ask(time + 1)
        np.testing.assert_array_equal(viewer.ask(time + 1), live_frame(time + 1).ravel())


def test_napari_sees_new_frames_as_the_documentation_says(writer, napari_window, tmp_path, pictures):
    writer.ask(0)
    page = PAGE.read_text(encoding="utf-8")
    block = re.search(r"(?m)^\.\. code-block:: python\n\n((?:   .*\n|\n)*)", page)
    code = textwrap.dedent(block[1]).replace("data/live.ome.zarr", str(tmp_path / "live.ome.zarr"))
    assert "napari.Viewer()" in code and str(tmp_path) in code
    (layer,) = napari_window.ask({"run": code})
    assert layer["shapes"] == [[6, *SHAPE]]
    assert napari_window.ask({"point": [0, *PIXEL]}) == [value(0)]
    assert napari_window.ask({"point": [3, *PIXEL]}) == [0]
    for time in range(1, 6):
        writer.ask(time)
        assert napari_window.ask({"point": [time, *PIXEL]}) == [value(time)]
    napari_window.ask({"screenshot": str(pictures / "napari-live.png")})


def test_neuroglancer_sees_new_frames(writer, browser, tmp_path, served, pictures):
    from exengine_ome_zarr.serve import DatasetServer

    writer.ask(0)
    image = Image(
        path="",
        name="live",
        dims="tyx",
        data=None,
        scale=[1.0] * 3,
        translation=[0.0] * 3,
        units={},
        channels=[],
        colors=[],
    )
    with DatasetServer(tmp_path / "live.ome.zarr") as server:
        page = Page(browser, server)
        assert page.values(image, [0, *PIXEL]) == [value(0)]
        writer.ask(1)
        writer.ask(2)
        assert page.values(image, [2, *PIXEL]) == [value(2)]
        browser.save_screenshot(pictures / "neuroglancer-live.png")
        assert page.values(image, [4, *PIXEL]) == [0]
        writer.ask(4)
        page.load()  # what was displayed stays until the page is loaded again
        assert page.values(image, [4, *PIXEL]) == [value(4)]


def test_a_killed_writer_leaves_its_frames_to_viewers(writer, child, tmp_path, served, zarrita_modules):
    for time in (0, 3):
        writer.ask(time)
    writer.kill()
    script = zarrita_modules / "zarrita_live.mjs"
    script.write_text((HERE / script.name).read_text())
    viewer = child("node", script, served(tmp_path / "live.ome.zarr"))
    for time in (0, 3):
        np.testing.assert_array_equal(viewer.ask(time), live_frame(time).ravel())
