"""The journal: for each frame, a record of 64 bytes that decides whether the frame is in the dataset.

A record is written after the frame's pixels and metadata. It contains their location and checksums, and a
checksum of its own, which reveals a partly written record. The file ``.exengine/journal`` begins with a
header of the same size. Space is reserved in advance, so the file usually ends with zeros.

The writer stores records through a memory map, which needs no system call. The space for the mapped part is
always reserved beforehand, because a store into a sparse mapping on a full disk kills the process.
"""

import errno
import mmap
import os
import struct

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.base_classes import NEW, OpenFile, read_at, write_at
from exengine_ome_zarr.format.sizes import JOURNAL_FIRST_BYTES, JOURNAL_STEP_BYTES, READ_RECORDS

RECORD_BYTES = 64
_RECORD = struct.Struct("<6IQIIQIII")
_CRC = struct.Struct("<I")
_WITH_CRC = struct.Struct(_RECORD.format + "I")
HEADER = b"ExEngine OME-Zarr journal 1\n".ljust(RECORD_BYTES, b"\0")

RECORD = np.dtype(
    [
        ("sequence", "<u4"),  # the number of the frame, counted from 1
        ("image", "<u4"),
        ("t", "<u4"),
        ("c", "<u4"),
        ("z", "<u4"),
        ("part", "<u4"),  # the number of the part; 0 if the frame was written to the shard itself
        ("offset", "<u8"),
        ("length", "<u4"),
        ("stored_crc", "<u4"),  # CRC-32C of the stored bytes
        ("line_at", "<u8"),  # the location of the frame's line in frames.jsonl
        ("line_bytes", "<u4"),
        ("line_crc", "<u4"),
        ("pixels_crc", "<u4"),  # CRC-32C of the bytes before compression
        ("crc", "<u4"),  # CRC-32C of the preceding 60 bytes
    ]
)


def encode_record(
    number: int,
    image: int,
    t: int,
    c: int,
    z: int,
    part: int,
    offset: int,
    length: int,
    stored_crc: int,
    line_at: int,
    line_bytes: int,
    line_crc: int,
    pixels_crc: int,
) -> bytes:
    """Return the record of frame ``number``."""
    head = _RECORD.pack(
        number + 1,
        image,
        t,
        c,
        z,
        part,
        offset,
        length,
        stored_crc,
        line_at,
        line_bytes,
        line_crc,
        pixels_crc,
    )
    return head + _CRC.pack(crc32c.crc32c(head))


Record = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int]
"""The values of a record, without its checksum."""


def unpack_record(text: bytes) -> Record:
    """Return the values of a record without checking them."""
    values: Record = _RECORD.unpack_from(text)
    return values


def decode_record(text: bytes, number: int) -> Record | None:
    """Return the values in the record of frame ``number``, or None if the record is not valid."""
    if len(text) != RECORD_BYTES:
        return None
    values = _WITH_CRC.unpack(text)
    if values[0] != number + 1 or crc32c.crc32c(text[:-4]) != values[-1]:
        return None
    record: Record = values[:-1]
    return record


def _tables() -> npt.NDArray[np.uint32]:
    """For each 16-bit word in a record and each of its possible values, return the effect on the checksum."""
    size = RECORD_BYTES - 4
    none = crc32c.crc32c(bytes(size))
    by_byte = np.zeros((size, 256), np.uint32)
    for byte in range(size):
        for bit in range(8):
            text = bytes(byte) + bytes((1 << bit,)) + bytes(size - byte - 1)
            by_byte[byte, (np.arange(256) >> bit) & 1 == 1] ^= np.uint32(crc32c.crc32c(text) ^ none)
    by_byte[0] ^= np.uint32(none)
    tables = by_byte[1::2, :, None] ^ by_byte[0::2, None, :]
    return tables.reshape(size // 2, 65536)


_cached_tables: list[npt.NDArray[np.uint32]] = []


def valid_records(records: npt.NDArray[np.void], first: int) -> int:
    """Return the number of valid records at the beginning of an array.

    Parameters
    ----------
    records : numpy.ndarray
        ``(records,)``, of dtype ``RECORD``, contiguous.
    first : int
        The number of the frame to which the first record should belong.
    """
    if not len(records):
        return 0
    good = records["sequence"] == np.arange(first + 1, first + 1 + len(records), dtype=np.uint32)
    if not good.all():
        records = records[: int(good.argmin())]
    if len(records) < 64:
        text = records.tobytes()
        for number in range(len(records)):
            at = number * RECORD_BYTES
            if decode_record(text[at : at + RECORD_BYTES], first + number) is None:
                return number
        return len(records)
    # CRC is linear, so the checksum of a record is the XOR of the contributions of its words. This allows
    # thousands of records to be checked at once.
    if not _cached_tables:
        _cached_tables.append(_tables())
    words = records.view("<u2").reshape(len(records), RECORD_BYTES // 2)
    checksum = np.zeros(len(records), np.uint32)
    for word, table in enumerate(_cached_tables[0]):
        checksum ^= table[words[:, word]]
    good = checksum == records["crc"]
    return len(records) if good.all() else int(good.argmin())


def read_records(
    descriptor: int, first: int, most: int = READ_RECORDS, *, verified: bool = False
) -> npt.NDArray[np.void]:
    """Return at most ``most`` valid records of a journal, beginning with frame ``first``.

    Parameters
    ----------
    descriptor : int
    first, most : int
    verified : bool
        Whether the checksum of the whole journal is correct and each record is therefore valid.
    """
    text = read_at(descriptor, most * RECORD_BYTES, (first + 1) * RECORD_BYTES)
    records = np.frombuffer(text, RECORD, len(text) // RECORD_BYTES)
    return records if verified else records[: valid_records(records, first)]


class JournalWriter:
    """Appends records to a journal.

    Parameters
    ----------
    path : str
    frames : int, optional
        The number of frames in the journal, if it exists. Anything after the records of these frames is
        removed.

    Raises
    ------
    OSError
        If the journal cannot be created, or the disk is full.
    """

    def __init__(self, path: str, frames: int | None = None) -> None:
        self.file = OpenFile(path, NEW if frames is None else os.O_RDWR)
        self.end = 0
        """The offset after the last record."""
        self._map: mmap.mmap | None = None
        self._begin = self._limit = 0  # the part of the file that is mapped
        if frames is None:
            self.append(HEADER)
        else:
            self.end = (frames + 1) * RECORD_BYTES
            os.ftruncate(self.file.descriptor, self.end)

    def append(self, records: bytes) -> None:
        """Write whole records. If the method fails or is interrupted, ``end`` does not change."""
        end = self.end + len(records)
        if end > self._limit:
            self._reserve(end)
        if self._map is None:
            write_at(self.file.descriptor, (records,), self.end, len(records))
        else:
            at = self.end - self._begin
            self._map[at : at + len(records)] = records
        self.end = end

    def _reserve(self, end: int) -> None:
        """Reserve space for more records, and map it."""
        size = max(self._limit, JOURNAL_FIRST_BYTES)
        step = min(size, JOURNAL_STEP_BYTES)
        limit = self._limit
        while limit < end:
            limit += step
        if not hasattr(os, "posix_fallocate"):  # pragma: no cover - not Linux
            self._limit = limit
            return
        try:
            os.posix_fallocate(self.file.descriptor, self._limit, limit - self._limit)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self._map, self._limit = None, 2**62  # the file system cannot reserve space
            return
        # The next batch may begin at the current end, so the mapping begins there and not at the old limit.
        begin = self.end // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(self.file.descriptor, limit - begin, offset=begin)
        self._map, self._begin, self._limit = mapped, begin, limit

    def take_back(self, frames: int) -> None:
        """Remove the reserved space, and all records except the first ``frames``."""
        self._map, self._limit = None, 2**62
        end = (frames + 1) * RECORD_BYTES
        os.ftruncate(self.file.descriptor, end)
        self.end = end

    def read(self, number: int) -> Record | None:
        """Return the record of a frame."""
        return decode_record(read_at(self.file.descriptor, RECORD_BYTES, (number + 1) * RECORD_BYTES), number)
