"""napari and neuroglancer show the pixels and the metadata that were written."""

import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
from neuroglancer_page import Page

import exengine
from exengine.base_classes import PlannedChannel, SourcePlan
from exengine_ome_zarr.serve import DatasetServer, image_paths

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries


def in_napari(image):
    """Return the layers of an image as napari-ome-zarr makes them: one for each channel, without translation."""
    at = image.dims.index("c")
    kept = [number for number, dim in enumerate(image.dims) if dim != "c"]
    units = [image.units.get(dim, "pixel") for dim in image.dims if dim != "c"]
    return [
        {
            "name": f"{image.name}: {name}",
            "shapes": [list(np.take(level, 0, at).shape) for level in (image.data, *image.levels)],
            "scale": [image.scale[number] for number in kept],
            "units": units,
            "dims": image.dims.replace("c", ""),
            "color": color,
        }
        for name, color in zip(image.channels, image.colors, strict=True)
    ]


@pytest.mark.parametrize("name", ["bare", "series", "rgb", "pyramid"])
def test_napari_shows_what_was_written(made, napari_window, pictures, name):
    sample = made(name)
    layers = napari_window.ask({"open": str(sample.path)})
    expected = [layer for image in sample.images for layer in in_napari(image)]
    assert len(layers) == len(expected)
    for seen, wanted in zip(layers, expected, strict=True):
        assert {key: seen[key] for key in wanted} == wanted
        assert seen["limits"][0] < seen["limits"][1]
    napari_window.ask({"save": str(pictures / f"{name}.npz")})
    pixels = [
        np.take(image.data, number, image.dims.index("c"))
        for image in sample.images
        for number in range(len(image.channels))
    ]
    with np.load(pictures / f"{name}.npz") as saved:
        for key, wanted in zip(saved.files, pixels, strict=True):
            np.testing.assert_array_equal(saved[key], wanted)
    napari_window.ask({"screenshot": str(pictures / f"napari-{name}.png")})
    assert colorful(pictures / f"napari-{name}.png") > 0.02


def test_napari_shows_a_plate_as_one_picture(made, napari_window, pictures):
    (layer,) = napari_window.ask({"open": str(made("plate").path)})
    assert layer["shapes"] == [[3, 4 * 48, 6 * 64]]
    napari_window.ask({"screenshot": str(pictures / "napari-plate.png")})


def test_napari_opens_a_dataset_with_the_reader_of_exengine(tmp_path, napari_window, pictures):
    plan = SourcePlan(
        pixel_size_um=(0.5, 0.5),
        z_step_um=2.0,
        channels=(PlannedChannel("DAPI", "0000FF"), PlannedChannel("FITC", "00FF00")),
    )
    frames = np.arange(2 * 3 * 48 * 64, dtype=np.uint16).reshape(2, 3, 48, 64)
    with exengine.open_storage("ome-zarr", tmp_path / "cells.ome.zarr") as storage:
        storage.expect(plan)
        for number, channel in enumerate(("DAPI", "FITC")):
            for z in range(3):
                storage.put({"channel": channel, "z": z}, frames[number, z], None)
    layers = napari_window.ask({"open": str(tmp_path / "cells.ome.zarr"), "plugin": "exengine"})
    assert [(each["name"], each["color"], each["scale"]) for each in layers] == [
        ("DAPI", "0000FF", [2.0, 0.5, 0.5]),
        ("FITC", "00FF00", [2.0, 0.5, 0.5]),
    ]
    napari_window.ask({"save": str(pictures / "reader.npz")})
    with np.load(pictures / "reader.npz") as saved:
        for key, wanted in zip(saved.files, frames, strict=True):
            np.testing.assert_array_equal(saved[key], wanted)


def colorful(file):
    """Return the part of a picture that is neither grey nor black."""
    from PIL import Image

    with Image.open(file) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    return float(np.mean(np.ptp(pixels, axis=2) > 60))


@pytest.mark.parametrize("name", ["bare", "series", "plate", "blosc", "rgb", "odd", "pyramid"])
def test_neuroglancer_shows_what_was_written(made, browser, pictures, name):
    sample = made(name)
    assert image_paths(sample.path) == [image.path for image in sample.images]
    image = sample.images[0]
    with DatasetServer(sample.path) as server:
        page = Page(browser, server, image.path)
        assert page.channels() == image.channels
        dims = image.dims.replace("c", "")
        names, scales, units = page.dimensions()
        assert "".join(names) == dims
        factors = {"second": (1.0, "s"), "micrometer": (1e-6, "m"), None: (1.0, "")}
        for number, dim in enumerate(dims):
            factor, unit = factors[image.units.get(dim)]
            assert scales[number] == pytest.approx(image.scale[image.dims.index(dim)] * factor)
            assert units[number] == unit
        middle = [image.data.shape[image.dims.index(dim)] // 2 for dim in dims]
        for channel, value in enumerate(page.values(image, middle)):
            index = [channel if dim == "c" else middle[dims.index(dim)] for dim in image.dims]
            assert value == pytest.approx(float(image.data[tuple(index)]))
        browser.save_screenshot(pictures / f"neuroglancer-{name}.png")
    if len(image.channels) > 1:
        assert colorful(pictures / f"neuroglancer-{name}.png") > 0.002


def test_npe2_accepts_the_manifest_of_the_reader():
    manifest = str(files("exengine.viewer").joinpath("napari.yaml"))
    checked = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", manifest],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "valid!" in checked.stdout, checked.stdout + checked.stderr
