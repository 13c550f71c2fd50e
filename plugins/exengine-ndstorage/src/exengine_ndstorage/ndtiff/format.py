"""The byte layout of NDTiff, version 3.3: headers, TIFF directories and index entries.

This implementation is based on the README at https://github.com/micro-manager/NDStorage and on the files that
Micro-Manager writes. A dataset is a folder that contains ``NDTiff.index`` (one binary entry per frame, in the
order of arrival) and TIFF files of at most 4 GiB. A frame in a TIFF file consists of a directory (IFD), the
pixels, and the metadata as JSON, in this order and without gaps.

Two private tags of the IFD contain CRC-32C checksums. Tag 65330 covers the coordinates followed by the
pixels, and tag 65331 covers the coordinates followed by the metadata. For the checksums, the coordinates are
encoded as compact JSON in UTF-8 with sorted keys, such as ``{"channel":"DAPI","time":0}``. Other readers skip
these tags.
"""

import struct
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from exengine.base_classes import StorageCapabilities

BACKEND_NAME = "ndtiff"
"""The name of the backend in a dataset's manifest."""

CAPABILITIES = StorageCapabilities(
    persistent=True,
    dtypes=("uint8", "uint16"),
    ndim=(2, 3),
    string_axes=True,
    negative_indices=True,
    metadata=True,
    iterable=True,
    reopen=True,
    read_while_writing=True,
    concurrent_readers=True,
    resumable=True,
    checksums=True,
    safety_of_put="written",
    durable_flush=True,
    readers=("Micro-Manager", "Pycro-Manager", "ndstorage", "napari-ndtiff", "tifffile", "ImageJ", "MATLAB"),
)
"""The capabilities of the writer and of all readers except that of pyramids."""

INDEX_NAME = "NDTiff.index"
BACKUP_NAME = INDEX_NAME + ".before-recovery"
"""The index as it was before a recovery removed entries. Only this file lists the removed frames.
"""
DAMAGED_METADATA_NAME = "NDTiff.damaged-metadata"
"""A file with one JSON object per line: the original text of damaged metadata after a recovery."""
DATASET_FILES = (
    INDEX_NAME,
    f"{INDEX_NAME}.new",
    BACKUP_NAME,
    f"{BACKUP_NAME}.new",
    DAMAGED_METADATA_NAME,
    f"{DAMAGED_METADATA_NAME}.new",
    "NDTiffStack.tif",
    "NDTiffStack_{number}.tif",
    "{name}_NDTiffStack.tif",
    "{name}_NDTiffStack_{number}.tif",
)
"""Patterns that match the names of all files in a dataset."""
OTHER_FILES = tuple(name for name in DATASET_FILES if "NDTiffStack" not in name)
"""Patterns that match the names of all files except TIFF files."""
FULL_RESOLUTION = "Full resolution"
"""In a pyramid, the folder that contains the tiles as they were acquired."""

MAGIC, MAJOR_VERSION, MINOR_VERSION = 483729, 3, 3
SUMMARY_MAGIC = 2355492
FIRST_IFD_AT = 4  # the position in the header at which the offset of the first IFD is stored
MAX_LENGTH = 2**31  # heights and widths must be smaller, because readers store them as signed numbers
METADATA_PADDING = 5  # TIFF stores up to 4 bytes in the tag itself, so short metadata is padded to 5 bytes

# Pixel types in the index. Types 3 to 6 are uint16 with fewer than 16 significant bits.
GRAY8, GRAY16, RGB8 = 0, 1, 2
DTYPES: dict[int, npt.DTypeLike] = {0: "<u1", 1: "<u2", 2: "<u1", 3: "<u2", 4: "<u2", 5: "<u2", 6: "<u2"}

PIXELS_CRC_TAG, METADATA_CRC_TAG = 65330, 65331

LENGTH = struct.Struct("<I")
INDEX_NUMBERS = struct.Struct("<8I")
CHECKSUMS = struct.Struct("<HHIIHHII")
METADATA_CRC_AT = CHECKSUMS.size - 4  # the offset of the last number in CHECKSUMS
_HEADER = struct.Struct("<2sHIIIIII")
_TAG = struct.Struct("<HHII")
_SHORT, _LONG, _RATIONAL, _ASCII = 3, 4, 5, 2
_SIZES = struct.Struct("<10xI8xI8xI56xI")  # the width, height, bits-per-sample and rows-per-strip tags
_BITS = 2  # the position of the bits-per-sample tag in _SIZES

EntryLayout = tuple[int, int, int, int, int]
"""A frame layout in an index entry: width, height, pixel type, compression of pixels and of metadata."""


def header(summary: bytes) -> bytes:
    """Return the header of a TIFF file, up to its first IFD.

    Parameters
    ----------
    summary : bytes
        The summary metadata as a JSON object.
    """
    first = _HEADER.size + len(summary)
    padding = first & 1
    return (
        _HEADER.pack(
            b"II", 42, first + padding, MAGIC, MAJOR_VERSION, MINOR_VERSION, SUMMARY_MAGIC, len(summary)
        )
        + summary
        + b" " * padding
    )


class FrameLayout:
    """The layout of TIFF frames with a given height, width and pixel type. It creates IFDs for such frames.

    Parameters
    ----------
    height, width : int
        The height and width in pixels.
    pixel_type : int
        ``GRAY8``, ``GRAY16`` or ``RGB8``.
    number : int, default: 0
        The writer's number for this layout.
    """

    def __init__(self, height: int, width: int, pixel_type: int, number: int = 0) -> None:
        self.number = number
        rgb = pixel_type == RGB8
        bits = 16 if pixel_type == GRAY16 else 8
        self.height, self.width, self.pixel_type = height, width, pixel_type
        self.shape = (height, width, 3) if rgb else (height, width)
        self.dtype = np.dtype(DTYPES[pixel_type])
        self.pixel_bytes = height * width * (bits // 8) * (3 if rgb else 1)
        # Values that depend on the frame's offset in the file are set to 0 here, and are listed in `places`.
        tags = [
            (256, _LONG, 1, width),
            (257, _LONG, 1, height),
            (258, _SHORT, 3 if rgb else 1, 0 if rgb else bits),
            (259, _SHORT, 1, 1),  # not compressed
            (262, _SHORT, 1, 2 if rgb else 1),  # photometric interpretation: RGB or BlackIsZero
            (273, _LONG, 1, 0),  # offset of the pixels
            (277, _SHORT, 1, 3 if rgb else 1),
            (278, _LONG, 1, height),  # one strip
            (279, _LONG, 1, self.pixel_bytes),
            (282, _RATIONAL, 1, 0),
            (283, _RATIONAL, 1, 0),
            (296, _SHORT, 1, 1),  # resolution without a unit, because the metadata contains the pixel size
            (51123, _ASCII, 0, 0),  # Micro-Manager's metadata
            (PIXELS_CRC_TAG, _LONG, 1, 0),
            (METADATA_CRC_TAG, _LONG, 1, 0),
        ]
        ifd = struct.pack("<H", len(tags)) + b"".join(_TAG.pack(*tag) for tag in tags) + bytes(4)
        tail = (struct.pack("<HHH", 8, 8, 8) if rgb else b"") + struct.pack("<IIII", 1, 1, 1, 1)
        self.ifd_bytes = len(ifd) + len(tail)
        """The number of bytes from the beginning of the IFD to the pixels."""
        self.next_at = len(ifd) - 4
        """The position in the IFD where the offset of the next IFD is stored."""
        self.checksums_at = self.next_at - 24
        """The position of the two checksum tags in the IFD."""
        value_at = {tag[0]: 2 + 12 * number + 8 for number, tag in enumerate(tags)}
        places = [value_at[258]] if rgb else []
        places += [value_at[273], value_at[282], value_at[283], value_at[51123] - 4, value_at[51123]]
        places += [value_at[PIXELS_CRC_TAG], value_at[METADATA_CRC_TAG], self.next_at]
        whole = ifd + tail
        begins = [0, *(place + 4 for place in places)]
        self._parts = tuple(
            whole[begin:end] for begin, end in zip(begins, [*places, len(whole)], strict=True)
        )
        parts_and_values = "I".join(f"{len(part)}s" for part in self._parts)
        self._pack = struct.Struct("<" + parts_and_values).pack
        self._rgb = rgb
        self._sizes = (width, height, bits, height)

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: np.dtype[Any], number: int) -> Self:
        """Return the layout for frames with a shape and dtype that NDTiff can store."""
        pixel_type = RGB8 if len(shape) == 3 else GRAY8 if dtype.itemsize == 1 else GRAY16
        return cls(shape[0], shape[1], pixel_type, number)

    def ifd(self, offset: int, metadata_bytes: int, pixels_crc: int, metadata_crc: int) -> bytes:
        """Return the IFD for a frame at ``offset`` in a file, with a link to the position after the frame."""
        pixels = offset + self.ifd_bytes
        metadata = pixels + self.pixel_bytes
        end = metadata + metadata_bytes
        end += end & 1
        p = self._parts
        if self._rgb:
            return self._pack(
                p[0], pixels - 22, p[1], pixels, p[2], pixels - 16, p[3], pixels - 8, p[4], metadata_bytes,
                p[5], metadata, p[6], pixels_crc, p[7], metadata_crc, p[8], end, p[9],
            )  # fmt: skip
        return self._pack(
            p[0], pixels, p[1], pixels - 16, p[2], pixels - 8, p[3], metadata_bytes,
            p[4], metadata, p[5], pixels_crc, p[6], metadata_crc, p[7], end, p[8],
        )  # fmt: skip

    def index_entry(self, axes: bytes, file_name: bytes, pixels_at: int, metadata_bytes: int) -> bytes:
        """Return a frame's entry for ``NDTiff.index``.

        Parameters
        ----------
        axes : bytes
            The coordinates as a JSON object.
        file_name : bytes
            The name of the TIFF file in the same folder, as returned by :func:`text_in_entry`.
        pixels_at : int
            The offset of the pixels in the file.
        metadata_bytes : int
        """
        # The compression fields are 0, because neither the pixels nor the metadata are compressed.
        numbers = INDEX_NUMBERS.pack(
            pixels_at, self.width, self.height, self.pixel_type, 0,
            pixels_at + self.pixel_bytes, metadata_bytes, 0,
        )  # fmt: skip
        return b"".join((LENGTH.pack(len(axes)), axes, file_name, numbers))

    def checksums(self, ifd: bytes) -> tuple[int, int] | None:
        """Return the checksums of the pixels and the metadata from an IFD.

        Returns
        -------
        tuple of two int, or None
            The checksums, or None if this backend did not write the IFD or if the IFD has a different layout.
            The layout must be compared because two layouts with the same number of bytes can have the same
            checksums.
        """
        pixels_tag, tag_type, count, pixels_crc, metadata_tag, _, _, metadata_crc = CHECKSUMS.unpack_from(
            ifd, self.checksums_at
        )
        if (pixels_tag, metadata_tag, tag_type, count) != (PIXELS_CRC_TAG, METADATA_CRC_TAG, _LONG, 1):
            return None
        sizes = _SIZES.unpack_from(ifd)
        if sizes != self._sizes and self._is_contradicted_by(sizes):
            return None
        return pixels_crc, metadata_crc

    def _is_contradicted_by(self, sizes: tuple[int, ...]) -> bool:
        """Return whether two or more numbers in an IFD differ from this layout.

        If only one number differs, the reason may be damage.
        """
        differ = [found != expected for found, expected in zip(sizes, self._sizes, strict=True)]
        if self._rgb:
            del differ[_BITS]  # for an RGB frame, this tag contains an offset instead of the bits per sample
        return sum(differ) > 1


def text_in_entry(text: bytes) -> bytes:
    """Encode a string, preceded by its length, for an index entry."""
    return LENGTH.pack(len(text)) + text


def pixel_bytes(layout: EntryLayout) -> int:
    """Return the size of a frame's pixels in this layout, in bytes."""
    width, height, pixel_type, *_ = layout
    samples = 3 if pixel_type == RGB8 else 1
    return width * height * samples * np.dtype(DTYPES.get(pixel_type, "<u1")).itemsize
