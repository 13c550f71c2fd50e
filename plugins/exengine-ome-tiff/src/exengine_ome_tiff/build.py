"""Builds a finished OME-TIFF file from frames, and compares the file with the frames.

The pixels come first, in order of arrival, then the records of ExEngine, the OME-XML and the directories of
all pages. The header is written last. Only then is the file a TIFF file.
"""

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import crc32c
import numpy as np

from exengine.base_classes import (
    JOURNAL_HEADER,
    FrameToBuild,
    JsonValue,
    SourcePlan,
    encode_record,
    open_new,
    read_at,
    write_at,
)
from exengine_ome_tiff import ome_xml
from exengine_ome_tiff.bigtiff import (
    EMPTY,
    FIRST_PIXELS_AT,
    UNFINISHED,
    Page,
    Text,
    directories,
    header,
)
from exengine_ome_tiff.codecs import encode, has_predictor
from exengine_ome_tiff.layout import arrange

_AHEAD = 8


def empty_file() -> bytes:
    """Return the content of a new file: a page of one pixel, with a note for users of other programs."""
    note = UNFINISHED.encode() + b"\0"
    text = Text(FIRST_PIXELS_AT + 8, len(note))
    at = _aligned(text.offset + text.size)
    whole = header(at, Text(0, 0)) + bytes(8) + note
    return whole.ljust(at, b"\0") + directories([_no_frame()], at, text, None)


def _no_frame() -> Page:
    return Page((1, 1), "uint8", "none", False, FIRST_PIXELS_AT, 1)


def build(
    path: str,
    frames: Sequence[FrameToBuild],
    *,
    summary: JsonValue,
    manifest: bytes,
    plan: SourcePlan,
    compression: str,
) -> None:
    """Write, compare and sync a file; see ``SpooledStorage.build_file``."""
    known = json.loads(manifest)
    descriptor = open_new(path, os.O_RDWR)
    try:
        pages, texts, crcs, at = _write_pixels(descriptor, frames, compression)
        head = json.dumps({"summary": summary, "manifest": known}).encode()
        parts = [JOURNAL_HEADER, encode_record(0, 0, 0, 0, head, crc32c.crc32c)]
        records_at, at = at, at + sum(map(len, parts))
        for number, (page, text, crc) in enumerate(zip(pages, texts, crcs, strict=True)):
            record = encode_record(number + 1, page.offset, page.size, crc, text, crc32c.crc32c)
            at += len(record)
            pages[number] = page._replace(record=Text(at - len(text), len(text)))
            parts.append(record)
        records = Text(records_at, at - records_at)
        xml = ome_xml.encode(arrange(frames), frames, plan, known) if frames else EMPTY.encode()
        description = Text(at, len(xml) + 1)
        first = _aligned(at + description.size)
        parts += [xml, bytes(first - at - len(xml))]
        parts.append(directories(pages or [_no_frame()], first, description, plan.pixel_size_um))
        content = b"".join(parts)
        write_at(descriptor, [content], records_at)
        write_at(descriptor, [header(first, records)], 0)
        if read_at(descriptor, len(content), records_at) != content:
            raise OSError(f"the content of {path} differs from the data that was written")
        _compare(path, frames, xml.decode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aligned(offset: int) -> int:
    return -(-offset // 8) * 8


def _write_pixels(
    descriptor: int, frames: Sequence[FrameToBuild], compression: str
) -> tuple[list[Page], list[bytes], list[int], int]:
    """Write the pixels; return pages, texts of records, checksums, and the offset after the pixels."""
    pages, texts, crcs, at = [], [], [], FIRST_PIXELS_AT
    write_at(descriptor, [bytes(at + 8)], 0)  # the pixel of a file without frames
    for frame, strip in zip(frames, _strips(frames, compression), strict=True):
        size = memoryview(strip).nbytes
        end = write_at(descriptor, [strip], at, size)
        has_differences = has_predictor(frame.dtype, compression)
        pages.append(Page(frame.shape, frame.dtype, compression, has_differences, at, size))
        text: dict[str, Any] = {"c": frame.coordinates.coordinate_dict, "s": frame.shape, "d": frame.dtype}
        if compression != "none":
            text |= {"z": compression, "k": crc32c.crc32c(strip)}
        text["m"] = frame.metadata()
        texts.append(json.dumps(text, separators=(",", ":"), ensure_ascii=False).encode())
        crcs.append(frame.crc)
        at = end + end % 2  # values in a TIFF file begin at even offsets
    return pages, texts, crcs, _aligned(max(at, FIRST_PIXELS_AT + 8))


def _strips(frames: Sequence[FrameToBuild], compression: str) -> Iterator[Any]:
    """Yield the strip of each frame, while other threads compress the next frames."""
    if compression == "none":
        yield from (encode(frame.pixels(), compression) for frame in frames)
        return
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _AHEAD), "exengine-ome-tiff") as pool:

        def strip(frame: FrameToBuild) -> Any:
            return encode(frame.pixels(), compression)

        rest = iter(frames)
        waiting = [pool.submit(strip, frame) for frame in itertools.islice(rest, _AHEAD)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(strip, frame) for frame in itertools.islice(rest, 1)]


def _compare(path: str, frames: Sequence[FrameToBuild], description: str) -> None:
    """Raise an OSError unless tifffile finds every frame and the OME-XML in the file."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.pages) != max(len(frames), 1) or file.pages.first.description != description:
            raise OSError(f"{path} does not have the pages that were written")
        for number, frame in enumerate(frames):
            pixels = file.pages[number].asarray()
            found = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
            if _without_ones(found.shape) != _without_ones(frame.shape) or found.dtype.name != frame.dtype:
                raise OSError(f"page {number} of {path} has the wrong layout")
            if crc32c.crc32c(found.reshape(-1).view(np.uint8).data) != frame.crc:
                raise OSError(f"{path} differs from the spool in frame {number}")


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)  # tifffile omits an axis of length 1
