"""Draws a frame with the characters of a terminal. Each character shows two pixels, one above the other.

Drawing hardly delays a running acquisition: the drawing time depends on the size of the picture and not on
that of the frame, and numpy does all of the work.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from exengine.cli.contact_sheet import contrast_of, mixed, plane_of

Mode = Literal["truecolor", "256", "plain"]
"""The color mode of a terminal: 24-bit colors, a palette of 256 colors, or no colors."""

RESET = b"\x1b[0m"
_SAMPLES = 2  # number of samples per pixel of the picture, along each axis
_RAMP = np.frombuffer(b" .:-=+*#%@", np.uint8)
_HALF_BLOCK = "▀".encode()
_DIGITS = np.frombuffer(b"".join(b"%03d" % number for number in range(256)), np.uint8).reshape(256, 3)
_COLORED_TERMINALS = (
    "xterm", "screen", "tmux", "rxvt", "alacritty", "foot", "kitty", "wezterm", "konsole", "gnome", "st-",
)  # fmt: skip


def mode_of(environment: Mapping[str, str], encoding: str) -> Mode:
    """Return the color mode of a terminal.

    Parameters
    ----------
    environment : mapping
        The variables ``NO_COLOR``, ``COLORTERM`` and ``TERM`` are used.
    encoding : str
        The encoding of the text that the terminal shows.

    Examples
    --------
    >>> mode_of({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "utf-8")
    'truecolor'
    >>> mode_of({"TERM": "vt100"}, "utf-8")
    'plain'
    """
    terminal = environment.get("TERM", "")
    if environment.get("NO_COLOR") or encoding.lower().replace("-", "") != "utf8":
        return "plain"
    if environment.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return "truecolor"
    return "256" if "256" in terminal or terminal.startswith(_COLORED_TERMINALS) else "plain"


def draw(
    data: npt.NDArray[Any], color: tuple[int, int, int], columns: int, lines: int, mode: Mode
) -> list[bytes]:
    """Return the lines of text that show a frame.

    Parameters
    ----------
    data : numpy.ndarray
        The pixels, ``(Y, X)`` or ``(Y, X, 3)``. They are not changed.
    color : (int, int, int)
        The color in which a frame without colors is shown.
    columns, lines : int
        The largest size of the picture, in characters.
    mode : {'truecolor', '256', 'plain'}

    Returns
    -------
    list of bytes
        The lines, with the control sequences for colors; empty if there is no room.

    Raises
    ------
    UnsupportedDataError
        If the frame cannot be shown.
    """
    plane = plane_of(data)
    height, width = plane.shape[:2]
    scale = min(columns / width, 2 * lines / height)
    across, down = round(width * scale), 2 * round(height * scale / 2)
    if across < 1 or down < 2:
        return []
    sample = plane[np.ix_(_places(height, down), _places(width, across))]
    contrast = contrast_of([sample])
    picture = mixed([(None, _averaged(sample, down, across))], {None: contrast}, {None: color})
    return _as_text(picture) if mode == "plain" else _as_half_blocks(picture, mode)


def _places(length: int, count: int) -> npt.NDArray[np.intp]:
    """Return evenly spaced positions along a side of a frame, several for each pixel of the picture."""
    return ((np.arange(count * _SAMPLES) + 0.5) * (length / (count * _SAMPLES))).astype(np.intp)


def _averaged(sample: npt.NDArray[Any], down: int, across: int) -> npt.NDArray[np.float64]:
    blocks = sample.reshape(down, _SAMPLES, across, _SAMPLES, *sample.shape[2:])
    averages: npt.NDArray[np.float64] = blocks.mean(axis=(1, 3), dtype=np.float64)
    return averages


def _as_half_blocks(picture: npt.NDArray[np.uint8], mode: Mode) -> list[bytes]:
    """Return lines of upper half blocks. The foreground is the upper pixel, the background the lower one."""
    upper, lower = picture[0::2], picture[1::2]
    if mode == "truecolor":
        cell = b"\x1b[38;2;RRR;GGG;BBB;48;2;RRR;GGG;BBBm"
        values = [half[..., part] for half in (upper, lower) for part in range(3)]
    else:
        cell = b"\x1b[38;5;NNN;48;5;NNNm"
        values = [_in_palette(upper), _in_palette(lower)]
    places = [place for place in range(len(cell)) if cell[place - 1 : place] == b";" and cell[place] > 57]
    text = np.frombuffer(cell + _HALF_BLOCK, np.uint8)
    cells = np.tile(text, (*upper.shape[:2], 1))
    for place, value in zip(places, values, strict=True):
        cells[..., place : place + 3] = _DIGITS[value]
    return [line.tobytes() + RESET for line in cells]


def _in_palette(colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the numbers of the nearest colors in the 256-color palette.

    The palette has 6 x 6 x 6 colors and 24 grays.
    """
    wide = colors.astype(np.int32)
    cube = (wide * 5 + 127) // 255
    gray = wide.mean(axis=-1)
    is_gray = np.ptp(wide, axis=-1) < 10
    grays = np.clip(np.rint((gray - 8) / 10), 0, 23) + 232
    grays[gray < 4] = 16
    grays[gray > 246] = 231
    numbers: npt.NDArray[np.uint8] = np.where(is_gray, grays, 16 + cube @ np.array([36, 6, 1])).astype(
        np.uint8
    )
    return numbers


def _as_text(picture: npt.NDArray[np.uint8]) -> list[bytes]:
    """Return the picture as lines of text, in which brighter parts have denser characters."""
    brightness = picture.astype(np.float32).reshape(len(picture) // 2, 2, -1, 3).mean(axis=(1, 3))
    return [_RAMP[row].tobytes() for row in (brightness * (len(_RAMP) - 1) / 255).round().astype(np.intp)]
