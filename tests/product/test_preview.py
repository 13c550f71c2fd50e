"""``exengine preview``: channel colors, contrast, a scale bar, composites, and frames of every kind."""

import json

import numpy as np
import pytest

import exengine
from exengine.base_classes import PlannedChannel, SourcePlan
from exengine.cli.contact_sheet import GAP, LABEL, TILE, bar_length_um
from exengine.cli.main import main

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
SIZE = 80  # a frame is enlarged by 2
PLAN = SourcePlan(
    pixel_size_um=(0.5, 0.5), channels=(PlannedChannel("DAPI", "0000FF"), PlannedChannel("FITC", "00FF00"))
)


def spot(number, dtype=np.uint16):
    """Return a frame that is dark but for a square, whose place depends on the number."""
    frame = np.full((SIZE, SIZE), 100, dtype)
    frame[10:30, 10 + 20 * number : 30 + 20 * number] = 200
    return frame


@pytest.fixture
def dataset(tmp_path):
    with exengine.open_storage("ome-zarr", tmp_path / "data") as storage:
        storage.expect(PLAN)
        for time in range(2):
            for number, channel in enumerate(("DAPI", "FITC", "Cy5")):
                storage.put({"time": time, "channel": channel}, spot(number), None)
    return tmp_path / "data"


def preview(dataset, *arguments):
    output = dataset.parent / "picture.png"
    assert main(["preview", str(dataset), "-o", str(output), *arguments]) == 0
    with Image.open(output) as picture:
        return np.asarray(picture.convert("RGB"))


def tile(picture, row, column):
    top, left = GAP + row * (TILE + LABEL + GAP) + LABEL, GAP + column * (TILE + GAP)
    return picture[top : top + TILE, left : left + TILE]


def test_each_channel_has_a_row_in_its_color_and_the_full_contrast(dataset):
    picture = preview(dataset)
    for row, color in enumerate([(0, 0, 255), (0, 255, 0), (255, 255, 255)]):
        for column in range(2):
            shown = tile(picture, row, column)
            at = 2 * (20 + 20 * row)
            assert tuple(shown[40, at]) == color
            assert tuple(shown[100, 100]) == (0, 0, 0)


def test_a_composite_shows_the_channels_on_top_of_each_other(dataset):
    picture = preview(dataset, "--composite")
    assert picture.shape[0] == TILE + LABEL + 2 * GAP and picture.shape[1] == 2 * (TILE + GAP) + GAP
    shown = tile(picture, 0, 1)
    assert tuple(shown[40, 40]) == (0, 0, 255) and tuple(shown[40, 80]) == (0, 255, 0)
    assert tuple(shown[40, 120]) == (0, 255, 255)  # a color that the plan does not give
    assert tuple(shown[100, 100]) == (0, 0, 0)


def test_the_scale_bar_has_a_round_length(dataset):
    shown = tile(preview(dataset), 0, 0)
    white = (shown == 255).all(axis=2)
    lengths = white.sum(axis=1)
    # 64 um are shown in 160 pixels; 20 um is the longest round length below two fifths of that
    assert lengths[-10:].max() == round(10 / 0.25) and bar_length_um(160 * 0.25 * 0.4) == 10


@pytest.mark.parametrize(
    ("longest", "length"),
    [(1, 1), (1.99, 1), (2, 2), (4.9, 2), (5, 5), (64, 50), (0.3, 0.2), (0.05, 0.05), (1234, 1000)],
)
def test_lengths_of_scale_bars_are_round(longest, length):
    assert bar_length_um(longest) == pytest.approx(length)


def test_without_a_pixel_size_there_is_no_scale_bar(tmp_path):
    with exengine.open_storage("ndtiff", tmp_path / "data") as storage:
        storage.put({"time": 0}, np.zeros((SIZE, SIZE), np.uint16), None)
    assert not tile(preview(tmp_path / "data"), 0, 0).any()


KINDS = {
    "rgb": ("ndtiff", lambda n: np.stack([spot(n, np.uint8)] * 3, axis=2)),
    "float": ("ome-zarr", lambda n: np.where(spot(n) > 150, np.float32(np.nan), spot(n) / np.float32(7))),
    "one pixel": ("ndtiff", lambda n: np.full((1, 1), n, np.uint16)),
    "one row": ("ndtiff", lambda n: np.arange(1000, dtype=np.uint16).reshape(1, 1000)),
    "all the same": ("ndtiff", lambda n: np.full((30, 20), 7, np.uint8)),
    "signed": ("ome-zarr", lambda n: spot(n).astype(np.int16) - 150),
}


@pytest.mark.parametrize("composite", [[], ["--composite"]])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_every_kind_are_shown(kind, composite, tmp_path):
    backend, make = KINDS[kind]
    with exengine.open_storage(backend, tmp_path / "data") as storage:
        for number, channel in enumerate(("A", "B")):
            storage.put({"channel": channel}, make(number), None)
    assert preview(tmp_path / "data", *composite).shape[2] == 3


def test_the_colors_of_8_bit_rgb_are_not_changed(tmp_path):
    frame = np.zeros((SIZE, SIZE, 3), np.uint8)
    frame[...] = (10, 120, 200)
    with exengine.open_storage("ndtiff", tmp_path / "data") as storage:
        storage.put({"time": 0}, frame, None)
    assert np.abs(tile(preview(tmp_path / "data"), 0, 0).astype(int) - (10, 120, 200)).max() <= 1


def test_a_composite_without_channels_or_with_one_frame_is_a_sheet(tmp_path, capsys):
    with exengine.open_storage("ndtiff", tmp_path / "data") as storage:
        for time in range(3):
            storage.put({"time": time}, spot(time), None)
    assert preview(tmp_path / "data", "--composite").shape[1] == 3 * (TILE + GAP) + GAP
    capsys.readouterr()
    preview(tmp_path / "data", "--json")
    assert json.loads(capsys.readouterr().out)["frames"] == 3


def test_a_damaged_frame_is_marked_in_its_tile_and_reported(dataset, capsys):
    shard = next((dataset / "0" / "c").rglob("0"))
    while shard.is_dir():
        shard = shard / "0"
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)
    picture = preview(dataset)
    assert "1 frame cannot be read" in capsys.readouterr().err
    assert tuple(tile(picture, 0, 0)[5, 5]) == (70, 40, 40)
