"""The view of a running acquisition: its text, and the newest frame drawn with characters."""

import logging
import re
import threading

import numpy as np
import pytest

from exengine.acquisition.run import Acquisition
from exengine.cli.watching.picture import draw, mode_of
from exengine.cli.watching.run_view import RunView
from exengine.kernel.errors import UnsupportedDataError

WHITE = (255, 255, 255)
HALVES = re.compile(rb"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m\xe2\x96\x80")


def colors(lines):
    """Return the colors that half blocks in 24 bits show, ``(Y, X, 3)``."""
    rows = []
    for line in lines:
        cells = np.array([[int(value) for value in cell] for cell in HALVES.findall(line)]).reshape(-1, 2, 3)
        rows += [cells[:, 0], cells[:, 1]]
    return np.array(rows)


def test_each_half_block_shows_the_mean_of_its_pixels():
    frame = np.zeros((40, 80), np.uint16)
    frame[:20, 40:] = 1000
    frame[20:, :40] = 500
    picture = colors(draw(frame, WHITE, 16, 99, "truecolor"))
    assert picture.shape == (8, 16, 3)
    assert (picture[:4, 8:] == 255).all() and (picture[4:, 8:] == 0).all()
    assert (picture[:4, :8] == 0).all() and (abs(picture[4:, :8] - 127) <= 1).all()


def test_the_foreground_of_a_half_block_is_its_upper_pixel():
    frame = np.array([[0, 0], [9, 9], [9, 0], [0, 9]], np.uint16)
    assert colors(draw(frame, WHITE, 2, 2, "truecolor"))[..., 0].tolist() == [
        [0, 0],
        [255, 255],
        [255, 0],
        [0, 255],
    ]


def test_a_channel_is_drawn_in_its_color_and_an_rgb_frame_in_its_own():
    gray = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    picture = colors(draw(gray, (0, 255, 0), 32, 16, "truecolor"))
    assert picture[..., 0].max() == picture[..., 2].max() == 0 and picture[..., 1].max() >= 250
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[...] = (10, 20, 30)
    assert (abs(colors(draw(frame, WHITE, 8, 8, "truecolor")) - (10, 20, 30)) <= 1).all()


@pytest.mark.parametrize(
    ("color", "number"),
    [((0, 0, 0), 16), ((255, 255, 255), 231), ((255, 0, 0), 196), ((0, 0, 255), 21), ((128, 128, 128), 244)],
)
def test_a_palette_of_256_shows_the_nearest_color(color, number):
    frame = np.full((4, 4, 3), 0, np.uint8)
    frame[...] = color
    (line, _) = draw(frame, WHITE, 4, 2, "256")
    assert line == b"\x1b[38;5;%03d;48;5;%03dm\xe2\x96\x80" % (number, number) * 4 + b"\x1b[0m"


def test_a_terminal_without_colors_shows_brighter_pixels_as_denser_characters():
    (first, *_) = draw(np.tile(np.arange(100.0), (100, 1)), WHITE, 10, 5, "plain")
    assert first.startswith(b" ") and first.endswith(b"@") and len(set(first)) >= 8


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 7), (64, 64, 3), (5, 64, 64), (9,)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "bool", "int8"])
def test_a_picture_of_any_frame_fits_the_room(shape, dtype):
    lines = draw(np.ones(shape, dtype), WHITE, 20, 6, "truecolor")
    assert len(lines) <= 6 and all(len(HALVES.findall(line)) <= 20 for line in lines)


@pytest.mark.parametrize(
    "data", [np.zeros((2, 2), "complex64"), np.full((3, 3), np.nan), np.full((3, 3), np.inf)]
)
def test_numbers_without_a_brightness_are_drawn_too(data):
    assert draw(data, WHITE, 4, 2, "truecolor")


def test_a_frame_without_pixels_is_refused():
    with pytest.raises(UnsupportedDataError):
        draw(np.zeros((0, 4)), WHITE, 4, 2, "truecolor")


@pytest.mark.parametrize(
    ("environment", "encoding", "mode"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "UTF-8", "truecolor"),
        ({"TERM": "xterm-256color"}, "utf-8", "256"),
        ({"TERM": "screen"}, "utf-8", "256"),
        ({"TERM": "linux"}, "utf-8", "plain"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"}, "utf-8", "plain"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "ascii", "plain"),
        ({}, "utf-8", "plain"),
    ],
)
def test_the_colors_of_the_terminal_follow_from_the_environment(environment, encoding, mode):
    assert mode_of(environment, encoding) == mode


# -- the text ------------------------------------------------------------------------------------


@pytest.fixture
def running(installed, tmp_path):
    """Start an acquisition that waits in its third frame; yield it."""
    config = {
        "storage": {"backend": "disk", "path": str(tmp_path / "data")},
        "source": {"name": "simulated", "options": {"width": 32, "height": 32}},
        "sequence": {"channels": ["DAPI\x1b[31m"], "time_plan": {"interval": 0, "loops": 5}},
    }
    arrived, goes_on = threading.Event(), threading.Event()

    def process(coordinates, data, metadata):
        if coordinates["time"] == 2:
            arrived.set()
            goes_on.wait(30)
        return coordinates, data, metadata

    with Acquisition({**config, "handler": {"process": process, "max_frames": 2}}) as run:
        thread = threading.Thread(target=run.run, name="running")
        thread.start()
        assert arrived.wait(30)
        yield run
        goes_on.set()
        thread.join()


def test_the_view_shows_numbers_of_the_run_and_the_newest_frame(running, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    view = RunView(running)
    while running.newest[0]["time"] < 4:
        pass  # the source offers the fifth frame, for which there is no room
    lines = [line.decode() for line in view(120, 30)]
    labels = [line[2:10].strip() for line in lines[1:] if "▀" not in line]
    assert labels == ["frames", "rate", "queue", "disk", "ledger", *labels[5:-1], "newest"]
    assert "(disk)" in lines[0] and "2 of 5" in lines[1] and "2 frames" in lines[3] and " free" in lines[4]
    assert "2 stored, 0 dropped, 0 failed" in lines[5]
    newest = labels.index("newest") + 1
    assert "channel=DAPI?[31m, 32 x 32 uint16" in lines[newest] and "\x1b" not in "".join(lines[: newest + 1])
    assert len(lines) == 30 and all("▀" in line for line in lines[newest + 1 :])
    view.messages.emit(logging.LogRecord("exengine", logging.ERROR, "", 1, "a hook\nfailed", (), None))
    assert "  message  a hook?failed" in [line.decode() for line in view(120, 30)]


@pytest.mark.parametrize(("columns", "lines"), [(1, 1), (10, 3), (40, 7), (41, 8), (500, 200)])
def test_the_view_fits_every_terminal(running, columns, lines):
    shown = RunView(running)(columns, lines)[:lines]
    assert all(len(re.sub(rb"\x1b\[[\d;]*m", b"", line).decode()) <= columns for line in shown)
