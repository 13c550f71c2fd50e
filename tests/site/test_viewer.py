"""``exengine view`` in a browser: axes, channels, contrast, the values of pixels, live datasets, the keyboard."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib.resources import files

import numpy as np
import pytest
from browsing import Browser

import exengine
from exengine.base_classes import PlannedChannel, SourcePlan
from exengine.cli.info import describe
from exengine.viewer.server import ViewServer

SIZE = 64
CHANNELS = {"DAPI": "0000FF", "FITC": "00FF00"}
PLAN = SourcePlan(
    pixel_size_um=(0.5, 0.5), channels=tuple(PlannedChannel(name, color) for name, color in CHANNELS.items())
)


def pixels(time, channel, z=0):
    """Return a frame whose pixels are all different, and differ from those of every other frame."""
    start = 10_000 * time + 4_096 * (channel == "FITC") + 100 * z
    return (np.arange(SIZE * SIZE).reshape(SIZE, SIZE) + start).astype(np.uint16)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return the path of a dataset of 2 positions, 4 time points, 3 planes and 2 channels."""
    path = tmp_path_factory.mktemp("viewer") / "cells.ome.zarr"
    with exengine.open_storage("ome-zarr", path) as storage:
        storage.expect(PLAN)
        for place in ("A1", "B2"):
            for time in range(4):
                for z in range(3):
                    for channel in CHANNELS:
                        at = {"position": place, "time": time, "z": z, "channel": channel}
                        storage.put(at, pixels(time, channel, z), {"text": "<b id=bold>bold</b>", "z": z})
    return path


@contextmanager
def viewing(driver, path):
    with (
        exengine.open_dataset(path) as opened,
        ViewServer(opened, lambda: describe(opened, str(path))) as server,
    ):
        made = Viewer(driver, server.url, opened)
        made.show()
        made.messages()
        made.open("")
        made.wait(lambda: made.run("return document.title.endsWith('viewer')"))
        yield made
        driver.get("about:blank")
        assert made.messages() == []


class Viewer(Browser):
    """The page of the viewer in a browser."""

    def __init__(self, driver, url, dataset):
        super().__init__(driver, url.rstrip("/"))
        self.dataset = dataset

    def frames(self):
        """Return the coordinates of the frames that are shown."""
        numbers = self.run("return document.getElementById('canvas').dataset.frames")
        everything = list(self.dataset)
        return [dict(everything[int(number)]) for number in (numbers or "").split()]

    def wait_for(self, *coordinates):
        self.wait(lambda: self.frames() == list(coordinates))

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def press_shifted(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        ActionChains(self.driver).key_down(Keys.SHIFT).send_keys(*keys).key_up(Keys.SHIFT).perform()

    def set(self, selector, value, event="input"):
        self.run(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event(arguments[2], {bubbles: true}))",
            self.one(selector), value, event,
        )  # fmt: skip

    def slide(self, axis, rank):
        self.set(f"[data-axis='{axis}'] input", rank)

    def text(self, selector):
        return self.one(selector).get_attribute("textContent")

    def values(self):
        """Return where the pixel is, and its value per channel."""
        where = re.fullmatch(r"x (\d+), y (\d+)", self.text("#where"))
        shown = self.find("#values > span")
        found = {each.find_element("css selector", "i").text: each for each in shown}
        return (int(where[1]), int(where[2])), {
            name: each.find_element("css selector", "b").text for name, each in found.items()
        }

    def color_at(self, x, y):
        """Return the color of a pixel of the image on the screen, while the whole image is shown."""
        return tuple(self.run(
            """const canvas = document.getElementById('canvas');
            const zoom = Math.min(canvas.width, canvas.height) / arguments[2];
            const [left, top] = [canvas.width, canvas.height].map((size) => (size - zoom * arguments[2]) / 2);
            const at = [left + (arguments[0] + 0.5) * zoom, top + (arguments[1] + 0.5) * zoom].map(Math.floor);
            const pen = new OffscreenCanvas(1, 1).getContext('2d');
            pen.drawImage(canvas, ...at, 1, 1, 0, 0, 1, 1);
            return Array.from(pen.getImageData(0, 0, 1, 1).data.slice(0, 3))""",
            x, y, SIZE,
        ))  # fmt: skip

    def requests(self, kind):
        names = self.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
        return [name for name in names if f"/{kind}/" in name]


@pytest.fixture
def driver(_driver):
    return _driver


@pytest.fixture
def viewer(driver, dataset):
    with viewing(driver, dataset) as made:
        made.wait_for(*at(0))
        made.wait(lambda: made.find(".low-number")[-1].get_attribute("value"))
        made.wait(lambda: len(made.find("#film .tile")) == 4)
        yield made


def at(time, place="A1", z=0, channels=CHANNELS):
    return [{"position": place, "time": time, "z": z, "channel": channel} for channel in channels]


# -- axes ----------------------------------------------------------------------------------------


def test_each_axis_with_several_positions_has_a_slider(viewer):
    assert [each.get_attribute("data-axis") for each in viewer.find(".axis")] == ["position", "time", "z"]
    viewer.slide("time", 3)
    viewer.wait_for(*at(3))
    viewer.slide("position", 1)
    viewer.slide("z", 2)
    viewer.wait_for(*at(3, "B2", 2))
    assert viewer.text("[data-axis='position'] output") == "B2"
    assert viewer.one("[data-axis='position'] input").get_attribute("aria-valuetext") == "B2"
    assert viewer.text("[data-axis='time'] .length") == "of 4"


def test_frames_that_were_shown_come_from_the_cache(viewer):
    for rank in (1, 2, 3, 0, 1, 2, 3, 0, 2):
        viewer.slide("time", rank)
        viewer.wait_for(*at(rank))
    asked = viewer.requests("frame")
    assert len(asked) == len(set(asked)) >= 8


def test_the_filmstrip_shows_frames_along_the_selected_axis(viewer):
    viewer.wait(lambda: len(viewer.find("#film .tile")) == 4)
    viewer.find("#film .tile")[2].click()
    viewer.wait_for(*at(2))
    viewer.wait(lambda: viewer.find("#film .tile")[2].get_attribute("aria-current") == "true")
    viewer.one("[data-axis='z'] input").click()
    viewer.wait(lambda: viewer.text("#film-title") == "Along z")
    assert len(viewer.find("#film .tile")) == 3


def test_play_moves_along_the_axis_until_it_is_paused(viewer):
    viewer.one("[data-axis='time'] .play").click()
    seen = set()
    viewer.wait(lambda: seen.add(viewer.text("[data-axis='time'] output")) or len(seen) == 4)
    viewer.one("[data-axis='time'] .play").click()
    assert viewer.one("[data-axis='time'] .play").get_attribute("aria-pressed") == "false"


# -- pixels --------------------------------------------------------------------------------------


def test_the_value_of_a_pixel_is_that_of_the_frame(viewer):
    from selenium.webdriver.common.keys import Keys

    viewer.slide("time", 2)
    viewer.wait_for(*at(2))
    viewer.press_shifted(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    where, values = viewer.values()
    assert where == (SIZE // 2 + 1, SIZE // 2 - 1)
    assert values == {name: str(pixels(2, name)[where[1], where[0]]) for name in CHANNELS}
    assert viewer.text("#spoken") == (
        f"x {where[0]}, y {where[1]}, DAPI {values['DAPI']}, FITC {values['FITC']}"
    )


def test_the_pixel_below_the_pointer_is_named_at_every_zoom(viewer):
    from selenium.webdriver.common.action_chains import ActionChains

    stage = viewer.one("#stage")
    box = stage.rect
    for zooms in range(5):
        zoom = viewer.run("return parseFloat(document.getElementById('zoom-value').textContent) / 100")
        exact = viewer.run("return document.getElementById('canvas').height") / SIZE if not zooms else zoom
        for offset in ((0, 0), (37, -61)):
            ActionChains(viewer.driver).move_to_element_with_offset(stage, *offset).perform()
            where, values = viewer.values()
            center = [
                (int(box[side]) / 2 + move - box[side] / 2)
                for side, move in zip(("width", "height"), offset, strict=True)
            ]
            expected = [SIZE / 2 + move / exact for move in center]
            assert all(abs(found + 0.5 - wanted) <= 1 for found, wanted in zip(where, expected, strict=True))
            assert values["DAPI"] == str(pixels(0, "DAPI")[where[1], where[0]])
        viewer.press("+")


FRAMES = {
    "uint8": np.arange(SIZE * SIZE, dtype=np.uint32).reshape(SIZE, SIZE).astype(np.uint8),
    "int16": np.arange(-2048, 2048, dtype=np.int16).reshape(SIZE, SIZE),
    "uint32": np.arange(SIZE * SIZE, dtype=np.uint32).reshape(SIZE, SIZE) + 2**31,
    "int64": np.arange(SIZE * SIZE, dtype=np.int64).reshape(SIZE, SIZE) - 2**62,
    "float32": (np.arange(SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE) - 2000) / np.float32(7),
    "float64": (np.arange(SIZE * SIZE, dtype=np.float64).reshape(SIZE, SIZE) - 2000) / 7,
}


@pytest.mark.parametrize("dtype", FRAMES)
def test_values_of_every_dtype_are_exact(driver, tmp_path, dtype):
    from selenium.webdriver.common.keys import Keys

    frame = FRAMES[dtype].copy()
    with exengine.open_storage("ome-zarr", tmp_path / "data.ome.zarr") as storage:
        storage.put({"time": 0}, frame, None)
    with viewing(driver, tmp_path / "data.ome.zarr") as viewer:
        viewer.wait_for({"time": 0})
        for _ in range(3):
            viewer.press_shifted(Keys.ARROW_LEFT)
            (x, y), values = viewer.values()
            assert frame.dtype.type(values["Pixels"]) == frame[y, x]


def test_not_a_number_is_shown_as_such_and_as_black(driver, tmp_path):
    from selenium.webdriver.common.keys import Keys

    frame = FRAMES["float32"].copy()
    frame[30:34, 30:34] = np.nan
    with exengine.open_storage("ome-zarr", tmp_path / "data.ome.zarr") as storage:
        storage.put({"time": 0}, frame, None)
    with viewing(driver, tmp_path / "data.ome.zarr") as viewer:
        viewer.wait_for({"time": 0})
        viewer.press_shifted(Keys.ARROW_LEFT)
        assert viewer.values()[1] == {"Pixels": "NaN"}
        viewer.press(Keys.ESCAPE)
        assert viewer.color_at(32, 32) == (0, 0, 0) and viewer.color_at(60, 60)[0] > 230


def test_the_colors_of_8_bit_rgb_are_not_changed(driver, tmp_path):
    from selenium.webdriver.common.keys import Keys

    frame = np.zeros((SIZE, SIZE, 3), np.uint8)
    frame[...] = (10, 120, 200)
    frame[:8] = (0, 3, 250)
    with exengine.open_storage("ndtiff", tmp_path / "data") as storage:
        storage.put({"time": 0}, frame, None)
    with viewing(driver, tmp_path / "data") as viewer:
        viewer.wait_for({"time": 0})
        assert viewer.color_at(40, 40) == (10, 120, 200) and viewer.color_at(40, 4) == (0, 3, 250)
        viewer.press_shifted(Keys.ARROW_LEFT)
        assert viewer.values()[1] == {"Pixels": "10, 120, 200"}


def test_a_scale_bar_has_a_round_length(viewer):
    assert re.fullmatch(r"[125]0* µm", viewer.text("#scale span"))
    length = float(viewer.text("#scale span").split()[0])
    shown = viewer.run("return document.querySelector('#scale i').getBoundingClientRect().width")
    zoom = viewer.run("return document.getElementById('canvas').height") / SIZE
    assert shown == pytest.approx(length / 0.5 * zoom, rel=0.02)


# -- channels and contrast -----------------------------------------------------------------------


def expected_color(time, x, y, limits, channels=CHANNELS):
    total = np.zeros(3)
    for name, color in channels.items():
        low, high = limits[name]
        part = np.clip((float(pixels(time, name)[y, x]) - low) / (high - low), 0, 1)
        total += part * np.array(list(bytes.fromhex(color)))
    return np.clip(total, 0, 255)


def limits_of(viewer):
    found = {}
    for element in viewer.find(".channel"):
        low, high = (
            float(element.find_element("css selector", f".{side}-number").get_attribute("value"))
            for side in ("low", "high")
        )
        found[element.find_element("css selector", "b").text] = (low, high)
    return found


def test_the_color_of_a_pixel_is_the_sum_of_its_channels(viewer):
    limits = limits_of(viewer)
    for x, y in ((3, 3), (20, 40), (60, 10)):
        assert np.abs(np.subtract(viewer.color_at(x, y), expected_color(0, x, y, limits))).max() <= 2
    assert viewer.color_at(60, 60)[2] > 200


def test_auto_contrast_shows_all_but_the_darkest_and_brightest_pixels(viewer):
    for name, (low, high) in limits_of(viewer).items():
        assert (low, high) == pytest.approx(np.percentile(pixels(0, name), (0.5, 99.5)), abs=1)
    viewer.slide("time", 3)
    viewer.wait_for(*at(3))
    assert limits_of(viewer)["DAPI"][0] < 1000  # moving along an axis changes no contrast
    viewer.press("a")
    viewer.wait(lambda: limits_of(viewer)["DAPI"][0] > 30_000)
    assert limits_of(viewer)["FITC"] == pytest.approx(np.percentile(pixels(3, "FITC"), (0.5, 99.5)), abs=1)


def test_channels_are_turned_on_and_off(viewer):
    boxes = viewer.find(".channel .on")
    boxes[0].click()
    viewer.wait_for(*at(0, channels=["FITC"]))
    assert viewer.color_at(60, 60)[2] == 0
    boxes[1].click()
    viewer.wait(lambda: viewer.text("#notice") == "All channels are off.")
    viewer.press("1")
    viewer.wait_for(*at(0, channels=["DAPI"]))
    assert viewer.color_at(60, 60)[:2] == (0, 0)
    viewer.find(".channel .only")[1].click()
    viewer.wait_for(*at(0, channels=["FITC"]))


def test_color_and_limits_of_a_channel_are_set_by_hand(viewer):
    viewer.find(".channel .only")[0].click()
    viewer.wait_for(*at(0, channels=["DAPI"]))
    viewer.set(".channel:first-child input[type=color]", "#ff8000")
    viewer.set(".channel:first-child .low-number", 1000, "change")
    viewer.set(".channel:first-child .high-number", 3000, "change")
    colors = {"DAPI": "FF8000"}
    expected = expected_color(0, 0, 31, {"DAPI": (1000, 3000)}, colors)
    viewer.wait(lambda: np.abs(np.subtract(viewer.color_at(0, 31), expected)).max() <= 2)
    assert viewer.color_at(0, 10) == (0, 0, 0) and viewer.color_at(0, 60) == (255, 128, 0)
    viewer.set(".channel:first-child .high", 500)
    low, high = limits_of(viewer)["DAPI"]
    assert high == 500 and low < 500  # black stays below white


def test_the_histogram_counts_the_pixels(viewer):
    label = viewer.find(".channel canvas")[1].get_attribute("aria-label")
    last = SIZE * SIZE - 1
    assert label.startswith(f"Histogram of FITC, from 4096 to {4096 + last}; black at ")
    filled = viewer.run(
        """const canvas = document.querySelector('.channel canvas');
        const data = canvas.getContext('2d').getImageData(0, canvas.height - 2, canvas.width, 1).data;
        return Array.from(data).filter((_, k) => k % 4 === 3).filter((alpha) => alpha > 200).length / canvas.width"""
    )
    assert filled > 0.95  # the frame has every value once


# -- details -------------------------------------------------------------------------------------


def test_metadata_of_the_frame_are_shown_as_text_and_can_be_filtered(viewer):
    viewer.slide("z", 2)
    viewer.wait_for(*at(0, z=2))
    viewer.wait(
        lambda: "<b id=bold>bold</b>" in viewer.text("#metadata") and "z2" in viewer.text("#metadata")
    )
    assert viewer.find("#bold") == []
    viewer.set("#metadata-filter", "BOLD")
    assert "z" not in [each.text for each in viewer.find("#metadata dt")]
    viewer.set("#metadata-filter", "nowhere")
    assert viewer.text("#metadata") == 'Nothing matches "nowhere".'


def test_facts_and_status_of_the_dataset_are_shown(viewer):
    assert viewer.text("#name") == "cells.ome.zarr" and viewer.text("#status") == "complete"
    assert viewer.text("#count") == "48 frames"
    assert "ome-zarr" in viewer.text("#facts") and "64 \N{MULTIPLICATION SIGN} 64 uint16" in viewer.text(
        "#facts"
    )
    assert "0.5 µm" in viewer.text("#facts")


def test_the_ledger_of_an_acquisition_is_shown(driver, tmp_path):
    exengine.acquire(
        {
            "storage": {"backend": "ndtiff", "path": str(tmp_path / "data")},
            "source": {"name": "simulated", "options": {"width": 32, "height": 32}},
            "sequence": {"channels": ["DAPI"], "time_plan": {"interval": 0, "loops": 3}},
        }
    )
    with viewing(driver, tmp_path / "data") as viewer:
        viewer.wait(lambda: "offered3" in viewer.text("#ledger"))
        assert "stored3" in viewer.text("#ledger")


# -- live, sparse and damaged datasets -----------------------------------------------------------


def test_new_frames_of_a_live_dataset_appear_and_are_followed(driver, tmp_path):
    with exengine.open_storage("ndtiff", tmp_path / "data") as storage:
        storage.put({"time": 0}, pixels(0, "DAPI"), None)
        with viewing(driver, tmp_path / "data") as viewer:
            viewer.wait_for({"time": 0})
            viewer.wait(lambda: viewer.text("#status") == "live")
            assert viewer.one("#follow").is_selected()
            storage.put({"time": 1}, pixels(1, "DAPI"), None)
            viewer.wait_for({"time": 1})
            storage.put({"time": 2}, pixels(2, "DAPI"), None)
            viewer.wait_for({"time": 2})
            viewer.slide("time", 0)
            viewer.wait_for({"time": 0})
            assert not viewer.one("#follow").is_selected()
            storage.put({"time": 3}, pixels(3, "DAPI"), None)
            viewer.wait(lambda: viewer.text("[data-axis='time'] .length") == "of 4")
            assert viewer.frames() == [{"time": 0}]
            viewer.press("f")
            viewer.wait_for({"time": 3})
            storage.finish()
            viewer.wait(lambda: viewer.text("#status") == "complete")
            assert not viewer.one("#follow-label").is_displayed()


def test_an_empty_dataset_shows_its_first_frame_when_it_arrives(driver, tmp_path):
    with (
        exengine.open_storage("ndtiff", tmp_path / "data") as storage,
        viewing(driver, tmp_path / "data") as viewer,
    ):
        viewer.wait(lambda: viewer.text("#notice") == "Waiting for the first frame")
        storage.put({"channel": "X", "time": 5}, pixels(0, "DAPI"), None)
        viewer.wait_for({"channel": "X", "time": 5})
        assert not viewer.one("#notice").is_displayed()


def test_a_position_without_a_frame_says_so_and_the_next_frame_is_one_key_away(driver, tmp_path):
    with exengine.open_storage("ndtiff", tmp_path / "data") as storage:
        for axes in ({"time": 0, "z": 0}, {"time": 1, "z": 1}, {"time": 2}):
            storage.put(axes, pixels(axes["time"], "DAPI"), None)
    with viewing(driver, tmp_path / "data") as viewer:
        viewer.wait_for({"time": 0, "z": 0})
        viewer.slide("time", 1)
        viewer.wait(lambda: viewer.text("#notice").startswith("There is no frame at these positions."))
        viewer.wait(
            lambda: (
                [bool("absent" in each.get_attribute("class")) for each in viewer.find(".tile")]
                == [False, True, True]
            )
        )
        viewer.press("n")
        viewer.wait_for({"time": 1, "z": 1})
        viewer.press("n")
        viewer.wait_for({"time": 2})
        assert viewer.text("[data-axis='z'] output") == "none"
        viewer.press("p", "p")
        viewer.wait_for({"time": 0, "z": 0})


def test_a_frame_that_cannot_be_read_says_why_and_the_others_are_shown(driver, dataset, tmp_path):
    with exengine.open_storage("ndtiff", tmp_path / "data") as storage:
        for time in range(2):
            storage.put({"time": time}, pixels(time, "DAPI"), None)
    (tiff,) = (tmp_path / "data").glob("*.tif")
    content = bytearray(tiff.read_bytes())
    start = content.find(pixels(1, "DAPI").tobytes())
    content[start + 50] ^= 1
    tiff.write_bytes(content)
    with viewing(driver, tmp_path / "data") as viewer:
        viewer.wait_for({"time": 0})
        viewer.slide("time", 1)
        viewer.wait(lambda: viewer.text("#notice").startswith("This frame cannot be shown:"))
        viewer.slide("time", 0)
        viewer.wait(lambda: not viewer.one("#notice").is_displayed())


# -- keyboard, widths and names ------------------------------------------------------------------


def test_the_keyboard_is_enough(viewer):
    from selenium.webdriver.common.keys import Keys

    viewer.press(Keys.ARROW_RIGHT)
    viewer.wait_for(*at(1))
    viewer.press(Keys.END)
    viewer.wait_for(*at(3))
    viewer.press(Keys.ARROW_LEFT, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    viewer.wait_for(*at(2, z=1))
    viewer.press(Keys.HOME, Keys.ARROW_UP, Keys.ARROW_UP, Keys.PAGE_DOWN)
    viewer.wait_for(*at(2, "B2"))
    before = viewer.text("#zoom-value")
    viewer.press("+")
    viewer.wait(lambda: viewer.text("#zoom-value") != before)
    viewer.press("0")
    viewer.wait(lambda: viewer.text("#zoom-value") == before)
    viewer.press(Keys.ARROW_DOWN, " ")
    viewer.wait(lambda: viewer.one("[data-axis='time'] .play").get_attribute("aria-pressed") == "true")
    viewer.press(" ")
    viewer.press("?")
    viewer.wait(lambda: viewer.one("#help").is_displayed())
    viewer.press(Keys.ESCAPE)
    viewer.wait(lambda: not viewer.one("#help").is_displayed())


def test_keys_that_a_field_needs_do_not_move_the_image(viewer):
    from selenium.webdriver.common.keys import Keys

    field = viewer.one("#metadata-filter")
    field.send_keys("n1a", Keys.ARROW_LEFT)
    assert field.get_attribute("value") == "n1a" and viewer.frames() == at(0)
    number = viewer.find(".low-number")[0]
    number.send_keys(Keys.ARROW_UP, Keys.HOME)
    assert viewer.frames() == at(0)


def test_the_tab_key_reaches_every_control_and_each_has_a_name(viewer):
    from selenium.webdriver.common.keys import Keys

    viewer.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = []
    for _ in range(60):
        viewer.press(Keys.TAB)
        element = viewer.driver.switch_to.active_element
        if element.tag_name == "body" or element in reached:
            break
        reached.append(element)
    assert len(reached) > 25 and [each.accessible_name for each in reached if not each.accessible_name] == []
    reachable = viewer.run(
        "return Array.from(document.querySelectorAll('button, input, select, summary')).filter((each) => each.tabIndex >= 0"
        " && each.checkVisibility() && each.offsetWidth)"
    )
    assert [each.get_attribute("outerHTML") for each in reachable if each not in reached] == []


def luminance(color):
    parts = np.array(color) / 255
    linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_and_its_text_has_enough_contrast(viewer, width, scheme):
    viewer.show(width=width, scheme=scheme)
    viewer.wait(lambda: viewer.run("return innerWidth") == width)
    assert viewer.run("return document.documentElement.scrollWidth") <= width
    assert viewer.one("#canvas").rect["width"] > width / 2

    def color(name, of="#count"):
        return viewer.run(
            "const pen = document.createElement('canvas').getContext('2d');"
            "pen.fillStyle = getComputedStyle(document.querySelector(arguments[1])).getPropertyValue(arguments[0]);"
            "pen.fillRect(0, 0, 1, 1); return Array.from(pen.getImageData(0, 0, 1, 1).data.slice(0, 3))",
            name, of,
        )  # fmt: skip

    for text in ("--text", "--quiet", "--accent", "--good", "--warn", "--bad"):
        for ground in ("--page", "--panel"):
            high, low = sorted((luminance(color(text)), luminance(color(ground))), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_the_page_loads_nothing_from_elsewhere(viewer):
    assert viewer.foreign_requests() == []
    for file in files("exengine.viewer").joinpath("page").iterdir():
        addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", file.read_text(encoding="utf-8"))
        assert [each for each in addresses if "www.w3.org" not in each] == []


def test_the_command_serves_the_page_until_it_is_interrupted(driver, dataset):
    command = [sys.executable, "-m", "exengine", "view", str(dataset), "--no-browser", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        text = ""
        while "}" not in text:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            text += line
        found = json.loads(text)
        assert found["url"].startswith(f"http://127.0.0.1:{found['port']}/")
        browser = Browser(driver, found["url"].rstrip("/"))
        browser.open("")
        browser.wait(lambda: browser.run("return document.getElementById('canvas').dataset.frames"))
        driver.get("about:blank")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert os.path.samefile(found["path"], dataset)
