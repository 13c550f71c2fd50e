"""The spool, which holds the frames of a single-file dataset until the file itself is complete.

The spool consists of two files next to the dataset. ``scan.h5.exengine.frames`` contains the pixels of the
frames, in order. ``scan.h5.exengine.journal`` contains a record for each frame: its number, the place and the
checksum of its pixels, and a JSON text with its coordinates, layout and metadata. The record is written after
the pixels, so a frame is complete if its record is complete. Each record has a checksum of its own. An
incomplete record, left by a writer that was killed, is ignored.

Numbers are little-endian. The journal begins with a header of 32 bytes and a record for the dataset itself,
with the number 0 and the summary metadata; frame n has the number n + 1.
"""

import json
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from exengine.kernel.errors import DatasetDamagedError
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_json

FRAMES, JOURNAL = "exengine.frames", "exengine.journal"
HEADER = b"ExEngine spool 1\n".ljust(32, b"\0")
"""The bytes with which every journal begins."""
_MAGIC = b"\xefrec"
_RECORD = struct.Struct("<4sQQQIII")  # magic, number, offset, size and CRC of pixels; size and CRC of text
_CRC = struct.Struct("<I")
_HEAD_BYTES = _RECORD.size + _CRC.size
_PAGE_BYTES = 4096
_ALIGN_FROM_BYTES = 65536  # larger frames begin at a page boundary, because unaligned writes take longer
_MOST_TEXT_BYTES = 2**28
_STEP_BYTES = 2**22  # number of journal bytes that are read at a time

Checksum = Callable[[Any], int]


class SpooledFrame(NamedTuple):
    """The location and the description of a frame in the spool."""

    offset: int
    size: int
    crc: int
    text_at: int
    text_size: int
    text_crc: int


class SpoolWriter:
    """Appends frames to a new spool.

    Parameters
    ----------
    path : str
        The path of the dataset.
    summary : JSON value
        The summary metadata.
    checksum : callable
        Computes a 32-bit CRC.
    options : dict, optional
        The options of the file that is built at the end.
    journal : str
        The ending of the journal's file name.

    Raises
    ------
    OSError
    """

    def __init__(
        self,
        path: str,
        summary: Any,
        checksum: Checksum = zlib.crc32,
        *,
        options: Mapping[str, Any] | None = None,
        journal: str = JOURNAL,
    ) -> None:
        self._checksum = checksum
        self._end = self._journal_end = 0
        self.pixels = files.open_new(f"{path}.{FRAMES}", os.O_RDWR)
        try:
            self.journal = files.open_new(f"{path}.{journal}", os.O_RDWR)
            text = json.dumps({"summary": summary, "options": dict(options or {})}).encode()
            head = HEADER + encode_record(0, 0, 0, 0, text, checksum)
            self._journal_end = files.write_at(self.journal, [head], 0, len(head))
        except BaseException:
            os.close(self.pixels)
            raise

    @classmethod
    def reopen(cls, path: str, frames: Sequence[SpooledFrame], checksum: Checksum = zlib.crc32) -> Self:
        """Open the spool of a writer that has ended, in order to append more frames.

        Parameters
        ----------
        path : str
            The path of the dataset.
        frames : sequence of SpooledFrame
            All frames of the spool, at least one.
        checksum : callable
        """
        spool = cls.__new__(cls)
        spool._checksum = checksum
        spool._end = max(frame.offset + frame.size for frame in frames)
        spool._journal_end = max(frame.text_at + frame.text_size for frame in frames)
        spool.pixels = files.open_regular(f"{path}.{FRAMES}", os.O_RDWR)
        try:
            spool.journal = files.open_regular(f"{path}.{JOURNAL}", os.O_RDWR)
        except BaseException:
            os.close(spool.pixels)
            raise
        return spool

    def cut(self) -> None:
        """Remove the incomplete frame, if any, after the last complete frame."""
        os.ftruncate(self.journal, self._journal_end)
        os.ftruncate(self.pixels, self._end)

    def append(self, number: int, pixels: npt.NDArray[Any], text: bytes) -> SpooledFrame:
        """Write frame ``number``, so that it survives the death of the process after this method returns.

        Parameters
        ----------
        number : int
        pixels : numpy.ndarray
            The pixels, C-contiguous and in little-endian byte order.
        text : bytes
            The description; see :func:`describe`.

        Raises
        ------
        OSError
            If the frame could not be written completely; the next frame then overwrites the written part.
        """
        size = pixels.nbytes
        crc = self._checksum(pixels.data if size else b"")
        begin = self._end
        if size >= _ALIGN_FROM_BYTES:
            begin = -(-begin // _PAGE_BYTES) * _PAGE_BYTES
        end = files.write_at(self.pixels, [pixels.data], begin, size) if size else begin
        record = encode_record(number + 1, begin, size, crc, text, self._checksum)
        frame = SpooledFrame(
            begin, size, crc, self._journal_end + _HEAD_BYTES, len(text), self._checksum(text)
        )
        self._journal_end = files.write_at(self.journal, [record], self._journal_end, len(record))
        self._end = end
        return frame

    def sync(self) -> None:
        """Sync all frames to the disk."""
        os.fsync(self.pixels)  # before the records, because a record implies that its pixels exist
        os.fsync(self.journal)

    def close(self) -> None:
        """Close both files."""
        os.close(self.pixels)
        os.close(self.journal)


def encode_record(
    number: int, offset: int, size: int, crc: int, text: bytes, checksum: Checksum = zlib.crc32
) -> bytes:
    """Return the record of frame ``number - 1``, or of the dataset itself if the number is 0."""
    head = _RECORD.pack(_MAGIC, number, offset, size, crc, len(text), checksum(text))
    return head + _CRC.pack(checksum(head)) + text


def describe(coordinates: dict[str, int | str], pixels: npt.NDArray[Any], metadata: Any) -> bytes:
    """Return the JSON text of a frame's record."""
    return json.dumps(
        {"c": coordinates, "s": pixels.shape, "d": pixels.dtype.name, "m": metadata},
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode()


def as_stored(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array in C-contiguous and little-endian form; the result may be the array itself."""
    dtype = data.dtype.newbyteorder("<")
    return np.ascontiguousarray(data, dtype).reshape(data.shape)


class Scan:
    """Reads a journal from its beginning. Each call of :meth:`advance` reads any new records.

    Parameters
    ----------
    journal : int
        A descriptor of the file.
    checksum : callable
        The checksum that the writer used.
    begin : int
        The offset of the journal in the file.
    size : int, optional
        The size of the journal in bytes; by default, it extends to the end of the file.

    Attributes
    ----------
    gap : str
        The reason why records in the middle of the journal are missing; empty if none are missing.
    head : dict
        The description of the dataset itself, with the ``summary`` metadata.
    """

    def __init__(
        self, journal: int, checksum: Checksum = zlib.crc32, begin: int = 0, size: int | None = None
    ) -> None:
        self._journal = journal
        self._checksum = checksum
        self._limit = None if size is None else begin + size
        self._end = begin + len(HEADER)
        self._next = 0
        self.gap = ""
        self.head: dict[str, Any] = {}

    def advance(self) -> Iterator[tuple[SpooledFrame, dict[str, Any]]]:
        """Yield each frame that has a new, complete record, together with its description."""
        while True:
            size = _STEP_BYTES if self._limit is None else min(_STEP_BYTES, self._limit - self._end)
            chunk = files.read_at(self._journal, max(size, 0), self._end)
            used = 0
            while (record := self._record_in(chunk, used)) is not None:
                frame, number, description = record
                used = frame.text_at + frame.text_size - self._end
                if number > self._next:
                    self.gap = f"the journal lacks {number - self._next} of its records"
                self._next = number + 1
                if number == 0:
                    self.head = description
                else:
                    yield frame, description
            if not used:
                used = self._next_record(chunk)
            if not used:
                return  # the end, or a record that is being written
            self._end += used

    def _record_in(self, chunk: bytes, at: int) -> tuple[SpooledFrame, int, dict[str, Any]] | None:
        """Return the record at an offset in a chunk, with its number; None if the record is not complete."""
        if len(chunk) - at < _HEAD_BYTES or chunk[at : at + 4] != _MAGIC:
            return None
        head = chunk[at : at + _RECORD.size]
        if self._checksum(head) != _CRC.unpack_from(chunk, at + _RECORD.size)[0]:
            return None
        _, number, offset, size, crc, text_size, text_crc = _RECORD.unpack(head)
        begin = at + _HEAD_BYTES
        text = chunk[begin : begin + text_size]
        if len(text) < text_size <= _MOST_TEXT_BYTES:  # longer than the rest of the chunk
            text = files.read_at(self._journal, text_size, self._end + begin)
        if len(text) < text_size or self._checksum(text) != text_crc:
            return None
        try:
            description = parse_json(text)
        except (ValueError, RecursionError):
            return None
        if number < self._next or not isinstance(description, dict):
            return None
        return SpooledFrame(offset, size, crc, self._end + begin, text_size, text_crc), number, description

    def _next_record(self, chunk: bytes) -> int:
        """Return the offset of the first complete record after damaged bytes; 0 if there is none."""
        at = chunk.find(_MAGIC, 1)
        while at >= 0 and self._record_in(chunk, at) is None:
            at = chunk.find(_MAGIC, at + 1)
        return max(at, 0)


def read_pixels(
    descriptor: int, frame: SpooledFrame, description: Any, checksum: Checksum, name: str
) -> npt.NDArray[Any]:
    """Return the pixels of a frame, after verifying their checksum.

    Raises
    ------
    DatasetDamagedError
    """
    try:
        dtype = np.dtype(str(description["d"]))
        shape = tuple(int(length) for length in description["s"])
        if dtype.hasobject or frame.size != dtype.itemsize * int(np.prod(shape, dtype=object)):
            raise ValueError("the size of the pixels does not match their shape and dtype")
        if frame.offset + frame.size > os.fstat(descriptor).st_size:
            raise ValueError("the file ends before the end of the frame")
        pixels = np.empty(shape, dtype.newbyteorder("<"))
        if frame.size:
            flat: Any = pixels.reshape(-1).view(np.uint8)
            view = memoryview(flat)
            done = 0
            while more := files.read_into(descriptor, view[done:], frame.offset + done):
                done += more
            if done < frame.size or checksum(view) != frame.crc:
                raise ValueError("the checksum of the pixels differs from the recorded one")
    except (KeyError, TypeError, ValueError, OverflowError, MemoryError, OSError) as error:
        raise DatasetDamagedError(f"{name} is damaged: {error}") from None
    return pixels if sys.byteorder == "little" else pixels.astype(dtype)  # pragma: no cover - big-endian
