"""Follows the chain of directories (IFDs) in a TIFF file. Each directory contains the offset of the next.

If the chain is a loop, tifffile follows it forever. If the chain leads out of the file, tifffile silently
ends it early. This module therefore checks a file before tifffile opens it.
"""

import os
import struct
from typing import NamedTuple

from exengine.base_classes import read_at

_MOST_TAGS = 10_000


class Chain(NamedTuple):
    """The number of pages in the chain, and the reason if the chain ends early, otherwise an empty string."""

    pages: int
    fault: str


def follow(descriptor: int) -> Chain:
    """Follow the chain of directories of a TIFF file.

    Raises
    ------
    ValueError
        If the chain is a loop, or if the file is not a TIFF file.
    """
    size = os.fstat(descriptor).st_size
    begin = read_at(descriptor, 16, 0)
    order = {b"II": "<", b"MM": ">"}.get(begin[:2])
    version = struct.unpack(f"{order}H", begin[2:4])[0] if order and len(begin) >= 8 else 0
    if version not in (42, 43):
        raise ValueError("the file does not begin with a TIFF header")
    is_big = version == 43
    count_format, entry_bytes = (f"{order}Q", 20) if is_big else (f"{order}H", 12)
    offset_format = f"{order}{'Q' if is_big else 'I'}"
    count_bytes, offset_bytes = struct.calcsize(count_format), struct.calcsize(offset_format)
    at = struct.unpack(offset_format, begin[8:16] if is_big else begin[4:8])[0] if len(begin) >= 16 else 0
    seen: set[int] = set()
    while at:
        if at in seen:
            raise ValueError(f"the chain of directories is a loop; pages before it repeats: {len(seen)}")
        number = len(seen)
        count = read_at(descriptor, count_bytes, at) if at < size else b""
        tags = struct.unpack(count_format, count)[0] if len(count) == count_bytes else 0
        if not 0 < tags <= _MOST_TAGS:
            return Chain(number, f"the directory of page {number}, at offset {at}, is damaged or missing")
        following = read_at(descriptor, offset_bytes, at + count_bytes + tags * entry_bytes)
        if len(following) < offset_bytes:
            return Chain(number, f"the file ends in the directory of page {number}")
        seen.add(at)
        at = struct.unpack(offset_format, following)[0]
    return Chain(len(seen), "" if seen else "the file has no pages")
