"""The files of a dataset that contain no pixels: file names, documents, and files that only grow."""

import contextlib
import itertools
import os
from collections.abc import Iterator

import crc32c
import orjson

from exengine.base_classes import NEW, OpenFile, open_new, parse_json, read_at, sync_folder, write_at
from exengine.errors import DatasetDamagedError
from exengine_ome_zarr.format import sizes

OWN_FOLDER = ".exengine"
JOURNAL = f"{OWN_FOLDER}/journal"
LAYOUT = f"{OWN_FOLDER}/layout.jsonl"
FRAMES = f"{OWN_FOLDER}/frames.jsonl"
TABLE = f"{OWN_FOLDER}/frames.parquet"
OPEN = f"{OWN_FOLDER}/open"
"""The folder for files that are not yet at their final path."""
DOCUMENT = "zarr.json"

_ARRAYS = ("{number}", "{number}/{number}", "{name}/{number}/{number}/{number}")
_SHARDS = tuple("c/" + "/".join(["{number}"] * count) for count in (2, 3, 4, 5))
DATASET_FILES = (
    DOCUMENT,
    "OME/zarr.json",
    "OME/METADATA.ome.xml",
    "{number}/zarr.json",
    "{number}/{number}/zarr.json",
    "{name}/zarr.json",
    "{name}/{number}/zarr.json",
    "{name}/{number}/{number}/zarr.json",
    "{name}/{number}/{number}/{number}/zarr.json",
    *(f"{array}/{shard}" for array in _ARRAYS for shard in _SHARDS),
    JOURNAL,
    f"{JOURNAL}.before-recovery",
    LAYOUT,
    FRAMES,
    TABLE,
    f"{OPEN}/file-{{number}}",
    f"{OPEN}/part-{{number}}",
)
"""Patterns for the names of all files in a dataset."""

_numbers = itertools.count()

PACKED_SUFFIX = ".ozx"
"""The suffix of an OME-Zarr dataset that is packed into one file (RFC-9)."""
PACKED_COMMENT = b'{"ome": {"version": "0.5", "zipFile": {"centralDirectory": {"jsonFirst": true}}}}'
"""The archive comment of a packed dataset. As RFC-9 recommends, it states that the documents come first."""


def temporary(folder: str) -> str:
    """Return an unused path for a file that will be renamed into place."""
    return os.path.join(folder, OPEN, f"file-{os.getpid()}{next(_numbers):06}")


def place_document(folder: str, name: str, content: bytes, *, durable: bool = False) -> None:
    """Create or replace a file of a dataset, so that readers see either the old or the new content.

    Parameters
    ----------
    folder : str
        The folder of the dataset.
    name : str
        The path of the file in this folder. Missing subfolders are created.
    content : bytes
    durable : bool
        Whether the new content must survive power loss.
    """
    path, new = os.path.join(folder, name), temporary(folder)
    with os.fdopen(open_new(new), "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    try:
        os.replace(new, path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(new, path)
    if durable:
        sync_folder(os.path.dirname(path))


def forget_variables(error: BaseException | None) -> None:
    """Clear the local variables in an error's traceback, so that a stored error keeps no files open."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            with contextlib.suppress(RuntimeError):  # the variables of a running call cannot be cleared
                trace.tb_frame.clear()
            trace = trace.tb_next
        error = error.__context__


def folders_in(path: str) -> Iterator[str]:
    """Yield a folder and all folders in it, the innermost first.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    for folder, _, _ in os.walk(path, topdown=False, onerror=refuse):
        yield folder


class AppendFile:
    """A file to which lines are appended. If a write fails, the next write overwrites the incomplete lines.

    Parameters
    ----------
    path : str
    end : int, optional
        The size of the file, if it exists.
    """

    def __init__(self, path: str, end: int | None = None) -> None:
        self.file = OpenFile(path, NEW if end is None else os.O_RDWR)
        self.end = end or 0
        """The offset after the last line."""

    def append(self, lines: bytes) -> None:
        """Write whole lines. If the method fails or is interrupted, ``end`` does not change."""
        self.end = write_at(self.file.descriptor, (lines,), self.end, len(lines))

    def finish(self) -> None:
        """Cut off anything after the last line."""
        os.ftruncate(self.file.descriptor, self.end)


def checksum(file: OpenFile) -> int:
    """Return the CRC-32C of a whole file."""
    found = at = 0
    while text := read_at(file.descriptor, 2 * sizes.MIB, at):
        found, at = crc32c.crc32c(text, found), at + len(text)
    return found


def encode_line(value: object) -> bytes:
    """Return a line of the layout file: its CRC-32C in hexadecimal digits, and then a JSON string."""
    text = orjson.dumps(value)
    return b"%08x %s\n" % (crc32c.crc32c(text), text)


def decode_lines(text: bytes) -> tuple[list[object], int]:
    """Return the values of the valid lines at the start of the layout file, and the size of these lines."""
    values: list[object] = []
    at = 0
    while (end := text.find(b"\n", at)) >= 0:
        line = text[at:end]
        if line[8:9] != b" " or b"%08x" % crc32c.crc32c(line[9:]) != line[:8]:
            break
        try:
            values.append(parse_json(line[9:]))
        except (ValueError, RecursionError):
            break
        at = end + 1
    return values, at


def read_lines(folder: str, at: int) -> tuple[list[object], int]:
    """Return the values that follow an offset in the layout file, and the offset after them.

    Raises
    ------
    DatasetDamagedError
        If the file is too large.
    OSError
        If the file cannot be opened.
    """
    file = OpenFile(os.path.join(folder, LAYOUT), os.O_RDONLY)
    size = os.fstat(file.descriptor).st_size
    if size > sizes.MAX_LAYOUT_BYTES:
        raise DatasetDamagedError(
            f"{folder}: {LAYOUT} has {size} bytes; the limit is {sizes.MAX_LAYOUT_BYTES}"
        )
    values, used = decode_lines(read_at(file.descriptor, max(0, size - at), at))
    return values, at + used
