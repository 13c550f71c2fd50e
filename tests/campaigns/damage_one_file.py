"""Damages single-file datasets: truncates their files at every offset, and edits them at random from a seed.

This module parses the records and the pointer to them itself, and uses none of the code under test. An edit that
also corrects the checksums is a forgery rather than an accident. The content of such a dataset is not checked; it
must only be possible to open it and read it to the end.
"""

import json
import random
import struct
from collections.abc import Callable, Iterator

import crc32c
import damage
from damage import NUMBERS, Dataset
from damage_zarr import FORGED, LARGE, change_json, change_number

JOURNAL, PIXELS = ".exengine.journal", ".exengine.frames"
POINTERS = (b"ExEngine HDF5 1\n", b"ExEngine TIFF 1\n")
"""The bytes before the pointer to the records in a finished file."""
_RECORDS_BEGIN = b"ExEngine spool 1\n".ljust(32, b"\0")
_RECORD_BEGINS = b"\xefrec"
_FIELDS = struct.Struct("<4sQQQIII")  # magic, number, offset, size and CRC of pixels; size and CRC of text
_HEAD_BYTES = _FIELDS.size + 4
_POINTER = struct.Struct("<QQ")


def cuts(original: Dataset) -> Iterator[tuple[str, int]]:
    """Yield each cut: anywhere in the journal, the manifest and both ends of the file, and in steps elsewhere."""
    for name, data in sorted(original.files.items()):
        if name.endswith((JOURNAL, damage.MANIFEST)):
            yield from ((name, offset) for offset in range(len(data)))
        else:
            every = {
                *range(0, len(data), 61),
                *range(min(len(data), 600)),
                *range(max(0, len(data) - 80), len(data)),
            }
            yield from ((name, offset) for offset in sorted(every))


def edit(original: Dataset, rng: random.Random) -> Dataset:
    """Return a dataset with one to three edits."""
    return damage.edit(original, rng, EDITS)


# -- records -------------------------------------------------------------------------------------


def _records(dataset: Dataset) -> tuple[str, list[tuple[int, int]]]:
    """Return the name of the file with the records, and the begin and end of each record."""
    for name, data in sorted(dataset.files.items()):
        if (at := data.find(_RECORDS_BEGIN)) < 0:
            continue
        at += len(_RECORDS_BEGIN)
        found = []
        while data[at : at + 4] == _RECORD_BEGINS and at + _HEAD_BYTES <= len(data):
            end = at + _HEAD_BYTES + _FIELDS.unpack_from(data, at)[5]
            if end > len(data):
                break
            found.append((at, end))
            at = end
        if found:
            return name, found
    return "", []


def _record_number(dataset: Dataset, rng: random.Random) -> str:
    """Change a number in a record, usually without correcting its checksum."""
    name, records = _records(dataset)
    if not records:
        return ""
    at, _ = rng.choice(records)
    field = rng.randrange(1, len(_FIELDS.unpack_from(dataset.files[name], at)))
    return change_number(dataset, rng, name, at, _FIELDS, field, 64 if field < 4 else 32)


def _record_text(dataset: Dataset, rng: random.Random) -> str:
    """Change a value in the text of a record, and correct its checksums."""
    name, records = _records(dataset)
    if not records:
        return ""
    begin, end = rng.choice(records)
    data = dataset.files[name]
    values = list(_FIELDS.unpack_from(data, begin))
    try:
        content = json.loads(data[begin + _HEAD_BYTES : end])
    except (ValueError, RecursionError):
        return ""
    said = change_json(content, rng)
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    values[5:] = len(text), crc32c.crc32c(text)
    head = _FIELDS.pack(*values)
    whole = head + struct.pack("<I", crc32c.crc32c(head)) + text
    dataset.files[name] = data[:begin] + whole + data[end:]
    dataset.name = FORGED
    return f"{name}: text at {begin}: {said}"


def _records_moved(dataset: Dataset, rng: random.Random) -> str:
    name, records = _records(dataset)
    if len(records) < 2:
        return ""
    (a, a_end), (b, b_end) = sorted(rng.sample(records, 2))
    data = dataset.files[name]
    first, between, second = data[a:a_end], data[a_end:b], data[b:b_end]
    what = rng.choice(("swapped", "copied", "deleted", "again and again"))
    parts = {
        "swapped": second + between + first,
        "copied": first + between + first,
        "deleted": between + second,
        "again and again": first * 5000 + between + second,
    }
    dataset.files[name] = data[:a] + parts[what] + data[b_end:]
    return f"{name}: records at {a} and {b} {what}"


def _pointer(dataset: Dataset, rng: random.Random) -> str:
    """Change the pointer to the records, with or without correcting its checksum."""
    for name, data in sorted(dataset.files.items()):
        for begins in POINTERS:
            if (at := data.find(begins)) < 0:
                continue
            values = list(_POINTER.unpack_from(data, at + len(begins)))
            field = rng.randrange(2)
            values[field] = rng.choice((*LARGE, *(max(0, values[field] + step) for step in (-32, -1, 1, 32))))
            text = begins + _POINTER.pack(*(value % 2**64 for value in values))
            if rng.random() < 0.5:
                dataset.name = FORGED
                text += struct.pack("<I", crc32c.crc32c(text))
            return damage.put(dataset, name, at, text) + f" pointer: {values}"
    return ""


# -- any bytes -----------------------------------------------------------------------------------


def _number(dataset: Dataset, rng: random.Random) -> str:
    """Change a number of 2, 4 or 8 bytes anywhere, such as a tag of TIFF or an address of HDF5."""
    if not (name := damage.pick(dataset, rng)):
        return ""
    size, form = rng.choice(((2, "<H"), (4, "<I"), (8, "<Q")))
    value = rng.choice((*NUMBERS, *LARGE, rng.getrandbits(64))) % 256**size
    at = damage.place(dataset, name, rng, size)
    return damage.put(dataset, name, at, struct.pack(form, value)[: len(dataset.files[name]) - at])


def _files_swapped(dataset: Dataset, rng: random.Random) -> str:
    names = sorted(dataset.files)
    if len(names) < 2:
        return ""
    a, b = rng.sample(names, 2)
    dataset.files[a], dataset.files[b] = dataset.files[b], dataset.files[a]
    return f"{a} and {b} swapped"


EDITS: tuple[Callable[[Dataset, random.Random], str], ...] = (
    *damage.ANY_FORMAT, *damage.ANY_FORMAT, _record_number, _record_number, _record_number, _record_text, _record_text,
    _record_text, _records_moved, _records_moved, _pointer, _pointer, _number, _number, _files_swapped,
)  # fmt: skip
