"""Damages ``ome-zarr`` datasets: truncates their files at every offset, and edits them at random from a seed.

This module parses the journal, the layout file and the shard indices itself, and uses none of the code under
test. An edit that also corrects the checksums is a forgery rather than an accident. The content of such a
dataset is not checked; it must only be possible to open it and read it to the end.
"""

import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import crc32c
import damage
from damage import NUMBERS, VALUES, Dataset

JOURNAL, LAYOUT, FRAMES, DOCUMENT = (
    ".exengine/journal",
    ".exengine/layout.jsonl",
    ".exengine/frames.jsonl",
    "zarr.json",
)
FORGED = "forged"
RECORD_BYTES = 64
_FIELDS = struct.Struct("<6IQIIQIII")  # the part of a journal record before its checksum
LARGE = (*NUMBERS, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
"""Numbers for fields of 32 and 64 bits."""


def cuts(original: Dataset) -> Iterator[tuple[str, int]]:
    """Yield each cut: anywhere in the small files, and at the end of each shard and part."""
    for name, data in sorted(original.files.items()):
        if "/c/" in name or "/open/" in name:
            yield from ((name, offset) for offset in range(0, len(data), 61))
            yield from ((name, offset) for offset in range(max(0, len(data) - 80), len(data)))
        elif name == JOURNAL:
            yield from ((name, offset) for offset in range(min(len(data), 20 * RECORD_BYTES)))
        else:
            yield from ((name, offset) for offset in range(len(data)))


def edit(original: Dataset, rng: random.Random) -> Dataset:
    """Return a dataset with one to three edits."""
    return damage.edit(original, rng, EDITS)


# -- the journal ---------------------------------------------------------------------------------


def _records(dataset: Dataset) -> int:
    """Return the number of complete records, whether valid or not."""
    journal = dataset.files.get(JOURNAL, b"")
    count, most = 0, len(journal) // RECORD_BYTES - 1
    while count < most and journal[(count + 1) * RECORD_BYTES :][:4] == struct.pack("<I", count + 1):
        count += 1
    return count


def change_number(
    dataset: Dataset, rng: random.Random, name: str, at: int, fields: struct.Struct, field: int, bits: int
) -> str:
    """Change a number of the record at a place in a file. In half of the cases, correct its checksum.

    Parameters
    ----------
    dataset : Dataset
    rng : random.Random
    name : str
        The name of the file.
    at : int
        The offset of the record in the file, in bytes.
    fields : struct.Struct
        The layout of the record without its checksum, which follows it.
    field : int
        The index of the number.
    bits : int
        The size of the number.
    """
    values = list(fields.unpack_from(dataset.files[name], at))
    values[field] = (
        rng.choice((*LARGE, values[field] ^ 1 << rng.randrange(bits), values[field] + 1)) % 2**bits
    )
    record = fields.pack(*values)
    if rng.random() < 0.5:
        dataset.name = FORGED
        record += struct.pack("<I", crc32c.crc32c(record))
    return damage.put(dataset, name, at, record) + f" field {field}: {values[field]}"


def _record_number(dataset: Dataset, rng: random.Random) -> str:
    """Change a field of a record, usually without correcting its checksum."""
    if not (count := _records(dataset)):
        return ""
    at = RECORD_BYTES * (1 + rng.randrange(count))
    field = rng.randrange(len(_FIELDS.unpack_from(dataset.files[JOURNAL], at)))
    return change_number(dataset, rng, JOURNAL, at, _FIELDS, field, 64 if field in (6, 9) else 32)


def _records_moved(dataset: Dataset, rng: random.Random) -> str:
    if (count := _records(dataset)) < 2:
        return ""
    a, b = (RECORD_BYTES * (1 + rng.randrange(count)) for _ in range(2))
    journal = dataset.files[JOURNAL]
    first, second = journal[a : a + RECORD_BYTES], journal[b : b + RECORD_BYTES]
    what = rng.choice(("swapped", "copied", "deleted", "again and again"))
    if what == "deleted":
        dataset.files[JOURNAL] = journal[:a] + journal[a + RECORD_BYTES :]
    elif what == "again and again":
        dataset.files[JOURNAL] = journal + first * 5000
    else:
        damage.put(dataset, JOURNAL, b, first)
        if what == "swapped":
            damage.put(dataset, JOURNAL, a, second)
    return f"records at {a} and {b} {what}"


# -- lines of JSON -------------------------------------------------------------------------------


def _layout_line(dataset: Dataset, rng: random.Random) -> str:
    """Change a value in the layout file and correct its checksum."""
    lines = dataset.files.get(LAYOUT, b"").splitlines()
    if not lines:
        return ""
    number = rng.randrange(len(lines))
    try:
        content = json.loads(lines[number][9:])
    except ValueError:
        return ""
    said = change_json(content, rng)
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    lines[number] = b"%08x %s" % (crc32c.crc32c(text), text)
    dataset.files[LAYOUT] = b"\n".join(lines) + b"\n"
    dataset.name = FORGED
    return f"line {number} of the layout: {said}"


def change_json(content: Any, rng: random.Random) -> str:
    """Change a random value in a JSON document."""
    path = []
    while isinstance(content, dict | list) and content:
        key = rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
        path.append(str(key))
        if not isinstance(content[key], dict | list) or not content[key] or rng.random() < 0.2:
            content[key] = rng.choice((*VALUES, *LARGE))
            return f"{'.'.join(path)} = {content[key]!r:.40}"
        content = content[key]
    return ""


def _lines_moved(dataset: Dataset, rng: random.Random) -> str:
    name = rng.choice((LAYOUT, FRAMES))
    lines = dataset.files.get(name, b"").splitlines(keepends=True)
    if len(lines) < 2:
        return ""
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    what = rng.choice(("swapped", "doubled", "deleted"))
    if what == "swapped":
        lines[a], lines[b] = lines[b], lines[a]
    elif what == "doubled":
        lines.insert(b, lines[a])
    else:
        del lines[a]
    dataset.files[name] = b"".join(lines)
    return f"{name}: lines {a} and {b} {what}"


def _document(dataset: Dataset, rng: random.Random) -> str:
    """Change a value in one of the Zarr documents."""
    name = damage.pick(dataset, rng, DOCUMENT)
    if not name:
        return ""
    try:
        content = json.loads(dataset.files[name])
    except (ValueError, RecursionError):
        return ""
    said = change_json(content, rng)
    dataset.files[name] = json.dumps(content).encode("utf-8", "surrogatepass")
    return f"{name}: {said}"


# -- shards --------------------------------------------------------------------------------------


def _index(dataset: Dataset, rng: random.Random) -> str:
    """Change an entry of a shard's index, with or without correcting the checksum."""
    shards = sorted(name for name, data in dataset.files.items() if "/c/" in name and len(data) > 20)
    if not shards:
        return ""
    name = rng.choice(shards)
    data = dataset.files[name]
    chunks = rng.choice((1, 2, 4, 5))
    if 16 * chunks + 4 > len(data):
        return ""
    begin = len(data) - 16 * chunks - 4
    at = begin + 8 * rng.randrange(2 * chunks)
    said = damage.put(dataset, name, at, struct.pack("<Q", rng.choice((*LARGE, rng.randrange(2000)))))
    if rng.random() < 0.7:
        index = dataset.files[name][begin:-4]
        damage.put(dataset, name, len(data) - 4, struct.pack("<I", crc32c.crc32c(index)))
    return f"{said}, {chunks} chunks"


def _shards_swapped(dataset: Dataset, rng: random.Random) -> str:
    names = sorted(name for name in dataset.files if "/c/" in name or "/open/" in name)
    if len(names) < 2:
        return ""
    a, b = rng.sample(names, 2)
    dataset.files[a], dataset.files[b] = dataset.files[b], dataset.files[a]
    return f"{a} and {b} swapped"


EDITS: tuple[Callable[[Dataset, random.Random], str], ...] = (
    *damage.ANY_FORMAT, *damage.ANY_FORMAT, _record_number, _record_number, _record_number, _records_moved, _layout_line,
    _layout_line, _layout_line, _lines_moved, _document, _document, _index, _index, _shards_swapped,
)  # fmt: skip
