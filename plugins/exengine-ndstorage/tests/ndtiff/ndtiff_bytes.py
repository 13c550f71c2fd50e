"""Reads and damages the bytes of a dataset, without the code under test."""

import json
import os
import struct
from typing import NamedTuple

from tifffile import TiffFile

COUNT = 12  # number of frames in the datasets ``finished`` and ``cut_short``, which have several files
BACKUP = "NDTiff.index.before-recovery"
SHAPE = (24, 32)


class Entry(NamedTuple):
    """An entry of the index, and its location."""

    axes: dict
    file: str
    numbers: tuple
    begin: int
    end: int


def at(number):
    """Return the coordinates of a frame."""
    return {"time": number, "channel": "ab"[number % 2]}


def entries(path):
    """Return the entries of the index of a dataset."""
    data, position, found = (path / "NDTiff.index").read_bytes(), 0, []
    while position < len(data):
        begin = position
        (length,) = struct.unpack_from("<I", data, position)
        axes = json.loads(data[position + 4 : position + 4 + length])
        position += 4 + length
        (length,) = struct.unpack_from("<I", data, position)
        name = data[position + 4 : position + 4 + length].decode()
        numbers = struct.unpack_from("<8I", data, position + 4 + length)
        position += 4 + length + 32
        found.append(Entry(axes, name, numbers, begin, position))
    return found


def numbers_in(path, name):
    """Return the numbers of the frames in a file."""
    return [number for number, entry in enumerate(entries(path)) if entry.file == name]


def in_order(path):
    """Return the TIFF files of a dataset in the order in which they were written."""
    return sorted(path.glob("*.tif"), key=lambda file: int("0" + "".join(filter(str.isdigit, file.stem))))


def pages_of(file):
    """Return the images of a file as tifffile reads them."""
    with TiffFile(file) as tiff:
        return [page.asarray() for page in tiff.pages]


def change(file, offset, changed):
    """Replace a byte of a file with the result of a function."""
    with open(file, "r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([changed(byte)]))


def flip(file, offset):
    """Flip a bit of a file."""
    change(file, offset, lambda byte: byte ^ 0x10)


def flip_pixel(path, number):
    """Damage the pixels of a frame."""
    entry = entries(path)[number]
    flip(path / entry.file, entry.numbers[0] + 100)


def flip_metadata(path, number):
    """Damage the metadata of a frame."""
    entry = entries(path)[number]
    change(path / entry.file, entry.numbers[5] + 11, lambda byte: byte ^ 1)


def damage_header(path):
    """Damage the header of the first file."""
    with open(path / "NDTiffStack.tif", "r+b") as file:
        file.write(b"XX")


def cut_file(path, number):
    """Cut the file of a frame shortly after the beginning of its pixels."""
    entry = entries(path)[number]
    os.truncate(path / entry.file, entry.numbers[0] + 10)
