"""The user block: the first 512 bytes of a file, which HDF5 leaves to applications.

It contains the location of ExEngine's records.
"""

import os
import struct

import crc32c

from exengine.base_classes import open_regular, read_at

USER_BLOCK_BYTES = 512
MAGIC = b"ExEngine HDF5 1\n"
_POINTER = struct.Struct("<QQ")  # the offset and the size of the records
_CRC = struct.Struct("<I")


def user_block(offset: int, size: int) -> bytes:
    """Return the user block for records at this offset. Without records, offset and size are 0."""
    head = MAGIC + _POINTER.pack(offset, size)
    return (head + _CRC.pack(crc32c.crc32c(head))).ljust(USER_BLOCK_BYTES, b"\0")


def records_at(block: bytes) -> tuple[int, int] | None:
    """Return the offset and size of the records from a user block; None if the block is damaged."""
    end = len(MAGIC) + _POINTER.size
    if len(block) < end + _CRC.size or crc32c.crc32c(block[:end]) != _CRC.unpack_from(block, end)[0]:
        return None
    offset, size = _POINTER.unpack_from(block, len(MAGIC))
    return offset, size


def first_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the user block of a file; empty if the file cannot be read."""
    try:
        descriptor = open_regular(path, follow_links=True)
    except OSError:
        return b""
    try:
        return read_at(descriptor, USER_BLOCK_BYTES, 0)
    finally:
        os.close(descriptor)
