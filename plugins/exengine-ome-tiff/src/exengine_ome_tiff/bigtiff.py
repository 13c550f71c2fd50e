"""Encodes the parts of a BigTIFF file: its header, and the directories (IFDs) that describe its pages.

All numbers are little-endian, and the pixels of a page are one strip. No tag refers to the 48 bytes between
the header and the first pixels. These bytes state where ExEngine's records are in the file. As in a spool,
each frame has a record with the location of its pixels, checksums, coordinates and metadata.

The format is described at https://www.awaresystems.be/imaging/tiff/bigtiff.html, and its tags in the TIFF 6.0
specification (Adobe, 1992).
"""

import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import crc32c
import numpy as np

from exengine.base_classes import open_regular, read_at

MAGIC = b"ExEngine TIFF 1\n"
FIRST_PIXELS_AT = 64
METADATA_TAG = 65400
"""The private tag whose value is the JSON text of a frame's record."""
UNFINISHED = (
    "This dataset is not finished. Its frames are in files next to it, with names that begin with its name "
    "and .exengine. If its writer has ended, run: exengine recover --in-place"
)
EMPTY = "This dataset has no frames."
NOTES = (UNFINISHED, EMPTY)
"""The descriptions of files without frames."""
COMPRESSIONS = {"none": 1, "zlib": 8, "zstd": 50000}
"""Maps the name of each compression method to its number in TIFF."""

_HEADER = struct.Struct("<2sHHHQ")  # byte order, version, size of offsets, 0, offset of the first directory
_POINTER = struct.Struct("<QQ")  # the offset and the size of the records
_CRC = struct.Struct("<I")
_COUNT = struct.Struct("<Q")
_ENTRY = struct.Struct("<HHQ8s")  # tag, type, number of values, the values or their offset
_TYPES = {"ascii": 2, "short": 3, "long": 4, "rational": 5, "undefined": 7, "long8": 16}
_FORMATS = {"short": "H", "long": "I", "rational": "I", "long8": "Q"}
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3, "c": 6}
_CENTIMETER = 3


class Text(NamedTuple):
    """The offset and size of the bytes to which a tag refers."""

    offset: int
    size: int


class Page(NamedTuple):
    """A page.

    Attributes
    ----------
    shape : tuple of int
        ``(Y, X)`` or ``(Y, X, samples)``.
    dtype : str
    compression : str
        A key of ``COMPRESSIONS``.
    has_predictor : bool
        Whether each pixel is stored as its difference from the pixel on the left.
    offset, size : int
        The location of the strip that contains the pixels.
    record : Text or None
        The value of ``METADATA_TAG``.
    """

    shape: tuple[int, ...]
    dtype: str
    compression: str
    has_predictor: bool
    offset: int
    size: int
    record: Text | None = None


def header(first_directory: int, records: Text) -> bytes:
    """Return the first 64 bytes of a file. If there are no records, pass 0 for their offset and size."""
    pointer = MAGIC + _POINTER.pack(*records)
    begin = _HEADER.pack(b"II", 43, 8, 0, first_directory) + pointer + _CRC.pack(crc32c.crc32c(pointer))
    return begin.ljust(FIRST_PIXELS_AT, b"\0")


def records_in(begin: bytes) -> Text | None:
    """Return the location of the records, from the first 64 bytes of a file; None if these are damaged."""
    pointer = begin[_HEADER.size : _HEADER.size + len(MAGIC) + _POINTER.size]
    crc = begin[_HEADER.size + len(pointer) :][: _CRC.size]
    if len(crc) < _CRC.size or _CRC.pack(crc32c.crc32c(pointer)) != crc:
        return None
    return Text(*_POINTER.unpack_from(pointer, len(MAGIC)))


def is_own(begin: bytes) -> bool:
    """Return whether a file with these first bytes was written by this backend."""
    return begin[_HEADER.size :].startswith(MAGIC)


def is_tiff(begin: bytes) -> bool:
    """Return whether a file with these first bytes is a TIFF file."""
    return begin[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def first_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the first 64 bytes of a file; empty if the file cannot be read."""
    try:
        descriptor = open_regular(path, follow_links=True)
    except OSError:
        return b""
    try:
        return read_at(descriptor, FIRST_PIXELS_AT, 0)
    finally:
        os.close(descriptor)


def directories(
    pages: Sequence[Page], at: int, description: Text, pixel_size_um: tuple[float, float] | None
) -> bytes:
    """Return the directories of all pages, one after another.

    Parameters
    ----------
    pages : sequence of Page
    at : int
        The offset of the first directory in the file; a multiple of 8.
    description : Text
        The location of the text that describes the file, including a final NUL.
    pixel_size_um : (float, float) or None
        ``(y, x)``.
    """
    parts = []
    for number, page in enumerate(pages):
        tags = _tags(page, pixel_size_um)
        if number == 0:
            tags[270] = ("ascii", description)
        part = _directory(tags, at, is_last=number == len(pages) - 1)
        parts.append(part)
        at += len(part)
    return b"".join(parts)


_Tags = dict[int, tuple[str, Text | tuple[int, ...]]]


def _tags(page: Page, pixel_size_um: tuple[float, float] | None) -> _Tags:
    height, width, *rest = page.shape
    samples = rest[0] if rest else 1
    colors = 3 if samples in (3, 4) else 1
    dtype = np.dtype(page.dtype)
    tags: _Tags = {
        256: ("long", (width,)),
        257: ("long", (height,)),
        258: ("short", (dtype.itemsize * 8,) * samples),  # bits per sample
        259: ("short", (COMPRESSIONS[page.compression],)),
        262: ("short", (2 if colors == 3 else 1,)),  # RGB or BlackIsZero
        273: ("long8", (page.offset,)),
        277: ("short", (samples,)),
        278: ("long", (height,)),  # rows per strip
        279: ("long8", (page.size,)),
        284: ("short", (1,)),  # the samples of a pixel are next to each other
        339: ("short", (_SAMPLE_FORMATS[dtype.kind],) * samples),
    }
    if page.has_predictor:
        tags[317] = ("short", (2,))
    if samples > colors:
        tags[338] = ("short", (0,) * (samples - colors))  # extra samples of unspecified meaning
    if page.record is not None:
        tags[METADATA_TAG] = ("undefined", page.record)
    if pixel_size_um is not None:
        fractions = [Fraction(1e4 / size).limit_denominator(10**4) for size in pixel_size_um]
        if all(0 < fraction.numerator < 2**32 for fraction in fractions):
            for tag, fraction in zip((283, 282), fractions, strict=True):
                tags[tag] = ("rational", (fraction.numerator, fraction.denominator))
            tags[296] = ("short", (_CENTIMETER,))
    return tags


def _directory(tags: _Tags, at: int, *, is_last: bool) -> bytes:
    """Return a directory, followed by any of its values that are longer than 8 bytes."""
    size = _COUNT.size + len(tags) * _ENTRY.size + _COUNT.size
    entries, long_values = [], b""
    for tag in sorted(tags):
        kind, value = tags[tag]
        if isinstance(value, Text):
            count, packed = value.size, _COUNT.pack(value.offset)
        else:
            count = len(value) // 2 if kind == "rational" else len(value)
            packed = struct.pack(f"<{len(value)}{_FORMATS[kind]}", *value)
            if len(packed) > 8:
                place = at + size + len(long_values)
                long_values += packed.ljust(-(-len(packed) // 8) * 8, b"\0")
                packed = _COUNT.pack(place)
        entries.append(_ENTRY.pack(tag, _TYPES[kind], count, packed.ljust(8, b"\0")))
    following = 0 if is_last else -(-(at + size + len(long_values)) // 8) * 8
    whole = b"".join([_COUNT.pack(len(tags)), *entries, _COUNT.pack(following), long_values])
    return whole.ljust(-(-len(whole) // 8) * 8, b"\0")
