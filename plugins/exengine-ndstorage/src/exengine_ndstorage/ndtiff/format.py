"""The bytes of NDTiff, version 3.3: headers, TIFF directories, index entries.

Source of the format: the README of https://github.com/micro-manager/NDStorage and the files that
Micro-Manager writes. A dataset is a folder with ``NDTiff.index`` (one binary entry per frame, in the
order of arrival) and TIFF files of at most 4 GiB. A frame in a TIFF file is a directory (IFD), the
pixels and the metadata as JSON, in this order and without a gap.

Two private tags of the IFD hold CRC-32C checksums: 65330 of the coordinates followed by the pixels,
65331 of the coordinates followed by the metadata. Coordinates count as compact JSON in UTF-8 with sorted
keys, ``{"channel":"DAPI","time":0}``. Other readers pass over these tags.
"""

import struct

import numpy as np
import numpy.typing as npt

INDEX_NAME = "NDTiff.index"
MAX_FILE_BYTES = 2**32
"""Offsets in the index and in TIFF have 32 bits."""

MAGIC, MAJOR_VERSION, MINOR_VERSION = 483729, 3, 3
SUMMARY_MAGIC = 2355492
FIRST_IFD_AT = 4  # where the header says where the first IFD is
MAX_TEXT_BYTES = 2**16 - 1
"""Of coordinates, as JSON, and of a file name; more is no NDTiff."""
MAX_AXES = 255
"""Different axes in a dataset."""
MAX_SUMMARY_BYTES = 16 * 2**20
MAX_METADATA_BYTES = 64 * 2**20
"""Of a frame, as JSON. The format has room for more, the memory of a reader perhaps not."""
MD_PADDING = 5  # a TIFF value of up to 4 bytes stands in the tag itself: metadata is made longer

# Pixel types of the index; 3 - 6 are uint16 of which fewer bits are used.
GRAY8, GRAY16, RGB8 = 0, 1, 2
DTYPES: dict[int, npt.DTypeLike] = {0: "<u1", 1: "<u2", 2: "<u1", 3: "<u2", 4: "<u2", 5: "<u2", 6: "<u2"}

PIXELS_CRC_TAG, METADATA_CRC_TAG = 65330, 65331

_HEADER = struct.Struct("<2sHIIIIII")
_TAG = struct.Struct("<HHII")
_SHORT, _LONG, _RATIONAL, _ASCII = 3, 4, 5, 2
FULL_RESOLUTION = "Full resolution"
"""The folder of a pyramid that holds its tiles as they were acquired."""

LENGTH = struct.Struct("<I")
INDEX_NUMBERS = struct.Struct("<8I")
CHECKSUMS = struct.Struct("<HHIIHHII")
_SHAPE = struct.Struct("<10xI8xI8xI56xI")  # values of the tags of width, height, bits and rows of the strip
_BITS = 2  # which of them


def header(summary: bytes) -> bytes:
    """Return the beginning of a TIFF file, up to its first IFD.

    Parameters
    ----------
    summary : bytes
        Summary metadata, a JSON object.
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
    """How frames of one height, width and pixel type lie in a TIFF file; makes their IFDs.

    Parameters
    ----------
    height, width : int
        In pixels.
    pixel_type : int
        ``GRAY8``, ``GRAY16`` or ``RGB8``.
    number : int, default: 0
        By which a writer finds it again.
    """

    def __init__(self, height: int, width: int, pixel_type: int, number: int = 0) -> None:
        self.number = number
        rgb = pixel_type == RGB8
        bits = 16 if pixel_type == GRAY16 else 8
        self.height, self.width, self.pixel_type = height, width, pixel_type
        self.shape = (height, width, 3) if rgb else (height, width)
        self.dtype = np.dtype(DTYPES[pixel_type])
        self.pixel_bytes = height * width * (bits // 8) * (3 if rgb else 1)
        # Values that depend on where the frame lies are 0 here, and named by their place.
        tags = [
            (256, _LONG, 1, width),
            (257, _LONG, 1, height),
            (258, _SHORT, 3 if rgb else 1, 0 if rgb else bits),
            (259, _SHORT, 1, 1),  # not compressed
            (262, _SHORT, 1, 2 if rgb else 1),  # RGB, or black is zero
            (273, _LONG, 1, 0),  # where the pixels are
            (277, _SHORT, 1, 3 if rgb else 1),
            (278, _LONG, 1, height),  # one strip
            (279, _LONG, 1, self.pixel_bytes),
            (282, _RATIONAL, 1, 0),
            (283, _RATIONAL, 1, 0),
            (296, _SHORT, 1, 1),  # the resolution has no unit: the size of a pixel is in the metadata
            (51123, _ASCII, 0, 0),  # Micro-Manager's metadata
            (PIXELS_CRC_TAG, _LONG, 1, 0),
            (METADATA_CRC_TAG, _LONG, 1, 0),
        ]
        ifd = struct.pack("<H", len(tags)) + b"".join(_TAG.pack(*tag) for tag in tags) + bytes(4)
        tail = (struct.pack("<HHH", 8, 8, 8) if rgb else b"") + struct.pack("<IIII", 1, 1, 1, 1)
        self.ifd_bytes = len(ifd) + len(tail)
        """From the beginning of the IFD to the pixels."""
        self.next_at = len(ifd) - 4
        """Where in the IFD the offset of the next one stands."""
        self.checksums_at = self.next_at - 24
        """Where in the IFD the two checksum tags begin."""
        value_at = {tag[0]: 2 + 12 * number + 8 for number, tag in enumerate(tags)}
        places = [value_at[258]] if rgb else []
        places += [value_at[273], value_at[282], value_at[283], value_at[51123] - 4, value_at[51123]]
        places += [value_at[PIXELS_CRC_TAG], value_at[METADATA_CRC_TAG], self.next_at]
        whole = ifd + tail
        begins = [0, *(place + 4 for place in places)]
        self._parts = tuple(
            whole[begin:end] for begin, end in zip(begins, [*places, len(whole)], strict=True)
        )
        form = "I".join(f"{len(part)}s" for part in self._parts)
        self._pack = struct.Struct("<" + form).pack
        self._rgb = rgb
        self._shape = (width, height, bits, height)

    def ifd(self, offset: int, metadata_bytes: int, pixels_crc: int, metadata_crc: int) -> bytes:
        """Return the IFD of a frame at ``offset`` of its file, followed by another frame."""
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

    def checksums(self, ifd: bytes) -> tuple[int, int] | None:
        """Return the checksums of pixels and metadata in an IFD; None when it is not one of ours.

        None too when it says another shape: of two with as many bytes checksums do not tell the right one.
        """
        pixels_tag, kind, count, pixels_crc, metadata_tag, _, _, metadata_crc = CHECKSUMS.unpack_from(
            ifd, self.checksums_at
        )
        if (pixels_tag, metadata_tag, kind, count) != (PIXELS_CRC_TAG, METADATA_CRC_TAG, _LONG, 1):
            return None
        shape = _SHAPE.unpack_from(ifd)
        if shape != self._shape and self._is_contradicted_by(shape):
            return None
        return pixels_crc, metadata_crc

    def _is_contradicted_by(self, shape: tuple[int, ...]) -> bool:
        """Return whether more than one number of an IFD is of another shape: one may be damaged."""
        others = [told != known for told, known in zip(shape, self._shape, strict=True)]
        if self._rgb:
            del others[_BITS]  # what stands there is where the bits are
        return sum(others) > 1


def text_in_entry(text: bytes) -> bytes:
    """Return a text as it stands in an entry of the index: its length, then itself."""
    return LENGTH.pack(len(text)) + text


def index_entry(axes: bytes, file_name: bytes, numbers: tuple[int, ...]) -> bytes:
    """Return one entry of ``NDTiff.index``.

    Parameters
    ----------
    axes : bytes
        Coordinates, a JSON object.
    file_name : bytes
        Of the TIFF file, in the same folder, as :func:`text_in_entry` gives it.
    numbers : tuple of 8 int
        Offset of the pixels, width, height, pixel type, compression of the pixels (0), offset and
        length of the metadata, compression of the metadata (0).
    """
    return b"".join((LENGTH.pack(len(axes)), axes, file_name, INDEX_NUMBERS.pack(*numbers)))
