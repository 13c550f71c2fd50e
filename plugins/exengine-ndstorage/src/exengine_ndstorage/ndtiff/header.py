"""The header of an NDTiff file: the format version and the summary metadata."""

import struct
from typing import Any

import crc32c

from exengine.base_classes import (
    JsonValue,
    open_packed,
    packed_names,
    parse_foreign_json,
    read_at,
)
from exengine.errors import DatasetDamagedError, MetadataError
from exengine_ndstorage.ndtiff.format import MAGIC, MAJOR_VERSION, SUMMARY_MAGIC, header
from exengine_ndstorage.ndtiff.frame_bytes import encode_json
from exengine_ndstorage.ndtiff.sizes import MAX_SUMMARY_BYTES

SUMMARY_BYTES_AT, SUMMARY_AT = 24, 28
"""The offsets of two values in the header: the length of the summary metadata, and the metadata itself."""


def encode_header(summary: dict[str, Any], max_file_bytes: int) -> bytes:
    """Return the header for the files of a dataset.

    Parameters
    ----------
    summary : dict
        The summary metadata as JSON. The caller has checked it.
    max_file_bytes : int
        The size of a full file.

    Raises
    ------
    MetadataError
        If the summary metadata is too large for readers or for the files.
    """
    whole = header(encode_json(summary))
    if len(whole) > MAX_SUMMARY_BYTES:
        raise MetadataError(
            f"the summary metadata takes up {len(whole)} bytes, but readers accept at most "
            f"{MAX_SUMMARY_BYTES}"
        )
    if len(whole) > max_file_bytes // 2:
        raise MetadataError(
            f"the summary metadata takes up {len(whole)} bytes, but every file contains it, so it may take "
            f"up at most half of max_file_bytes={max_file_bytes}"
        )
    return whole


def header_checksum(head: bytes) -> int:
    """Return the CRC-32C of a header up to the end of the summary metadata."""
    size = int.from_bytes(head[SUMMARY_BYTES_AT:SUMMARY_AT], "little")
    return int(crc32c.crc32c(head[: SUMMARY_AT + size]))


def header_checksum_of(path: str) -> int:
    """Return the checksum of an existing TIFF file's header, as :func:`header_checksum` computes it.

    Raises
    ------
    DatasetDamagedError
        If the file cannot be read.
    """
    try:
        file = open_packed(path)
    except OSError as error:
        raise DatasetDamagedError(f"{path} cannot be read: {error.strerror}") from None
    start = file.start
    size = int.from_bytes(read_at(file.descriptor, 4, start + SUMMARY_BYTES_AT), "little")
    return header_checksum(read_at(file.descriptor, SUMMARY_AT + min(size, MAX_SUMMARY_BYTES), start))


def first_tiff(folder: str) -> str | None:
    """Return the name of a dataset's first TIFF file, or None if there is no TIFF file."""
    names = [name for name in packed_names(folder) if name.endswith(".tif")]
    first = [name for name in names if name.endswith("NDTiffStack.tif")]
    return min(first or names, default=None)


def read_header(path: str) -> tuple[int, JsonValue]:
    """Return the major version and the summary metadata of a TIFF file.

    For version 2, the summary metadata is empty.

    Raises
    ------
    DatasetDamagedError
        If the file is not an NDTiff file.
    """
    try:
        file = open_packed(path)
    except OSError as error:
        raise DatasetDamagedError(f"{path} cannot be read: {error.strerror}") from None
    descriptor, start = file.descriptor, file.start
    head = read_at(descriptor, SUMMARY_AT, start)
    if len(head) < SUMMARY_AT or head[:4] != b"II*\0":
        raise DatasetDamagedError(f"{path} is not a little-endian TIFF file")
    magic, major, _minor, summary_magic, size = struct.unpack("<IIIII", head[8:])
    if magic != MAGIC:
        raise DatasetDamagedError(f"{path} is a TIFF file, but not NDTiff")
    if major < MAJOR_VERSION or summary_magic != SUMMARY_MAGIC:
        return int(major), {}
    if size > min(MAX_SUMMARY_BYTES, file.size):
        raise DatasetDamagedError(
            f"{path}: the summary metadata is longer than the file or than {MAX_SUMMARY_BYTES} bytes"
        )
    try:
        return int(major), parse_foreign_json(read_at(descriptor, size, start + SUMMARY_AT))
    except (ValueError, RecursionError) as error:
        raise DatasetDamagedError(f"{path}: the summary metadata cannot be parsed: {error}") from None
