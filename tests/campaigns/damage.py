"""Damages datasets: truncates their files at every offset, and edits them at random from a seed.

A dataset is represented by its files, name -> bytes. Anything other than a file (a pipe, a link, a device) is
listed in ``special``. This module parses the index itself and uses none of the code under test.
"""

import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

INDEX, MANIFEST, LOCK = "NDTiff.index", "exengine.json", "exengine.lock"
NUMBERS = (0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
SPECIAL = (
    "missing",
    "folder",
    "pipe",
    "link inside",
    "link outside",
    "dangling",
    "loop",
    "/dev/zero",
    "/dev/full",
)
NAMES = (
    b"", b"\0", b"a\0b.tif", b".", b"..", b"../outside.tif", b"/etc/passwd", b"/dev/zero", b"x/../y.tif", b"\xff\xfe",
    b"NDTiff.index", b"exengine.json", b"no-such.tif", b"x" * 300, b"x" * 65535, b"C:\\x.tif", b"..\\x.tif",
)  # fmt: skip
AXES = (
    b"{}", b"[]", b"null", b'"x"', b"1", b'{"time":1e400}', b'{"time":NaN}', b'{"time":true}', b'{"time":null}',
    b'{"time":1.5}', b'{"time":[0]}', b'{"time":99999999999999999999}', b'{"time":-9223372036854775809}', b"[" * 60000,
    b'{"a":' * 10000, b'{"":0}', b'{"time":0,"time":1}', b'{"self":0}', b'{"time":"\\ud800"}', b'{"time":"\xff"}',
    b'{"time":' + b"9" * 5000 + b"}", b"{" + b",".join(b'"a%d":0' % n for n in range(300)) + b"}", b'{"t\\u0000":0}',
)  # fmt: skip
VALUES: tuple[object, ...] = (
    None, True, 0, -1, 2**31, 2**63, 2**64, 10**300, 1.5, 1e308, float("nan"), float("inf"), "", "x", "\0", "\ud800",
    "../x", "/etc", "ndram", "ndtiff", "os:system", "x" * 100_000, "complete", "damaged", "incomplete", [], [[]], {},
    {"a": {}}, [0] * 1000, {"frames": 3},
)  # fmt: skip


@dataclass
class Dataset:
    """The files of a dataset, and the objects that replace some of them."""

    name: str
    files: dict[str, bytes]
    special: dict[str, str] = field(default_factory=dict)
    longer: dict[str, int] = field(default_factory=dict)  # extended to this length with a hole
    done: list[str] = field(default_factory=list)

    def copy(self) -> "Dataset":
        """Return a copy that can be changed independently."""
        return Dataset(self.name, dict(self.files))

    def write(self, folder: str, outside: str) -> None:
        """Write the dataset to the disk; ``outside`` is a folder for the targets of links."""
        for name in sorted({*self.files, *self.special}):
            if any(name.startswith(f"{above}/") for above in self.special):
                continue
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            kind = self.special.get(name, "file")
            if kind == "missing":
                continue
            if kind == "folder":
                os.mkdir(path)
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind == "link inside":
                _write(path + ".real", self.files.get(name, b""))
                os.symlink(os.path.basename(path) + ".real", path)
            elif kind == "link outside":
                target = os.path.join(outside, os.path.basename(path))
                _write(target, self.files.get(name, b""))
                os.symlink(target, path)
            elif kind == "dangling":
                os.symlink("nowhere", path)
            elif kind == "loop":
                os.symlink(os.path.basename(path), path)
            elif kind.startswith("/dev/"):
                os.symlink(kind, path)
            else:
                _write(path, self.files[name])
                if name in self.longer:
                    os.truncate(path, self.longer[name])


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


# -- the index, taken apart ----------------------------------------------------------------------


def entries(index: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Return the axes, file name and numbers of every complete entry."""
    found = []
    at = 0
    while at + 4 <= len(index):
        (length,) = struct.unpack_from("<I", index, at)
        axes = index[at + 4 : at + 4 + length]
        at += 4 + length
        if at + 4 > len(index):
            break
        (length,) = struct.unpack_from("<I", index, at)
        name, numbers = index[at + 4 : at + 4 + length], index[at + 4 + length : at + 36 + length]
        at += 36 + length
        if len(numbers) < 32:
            break
        found.append((axes, name, numbers))
    return found


def joined(parts: list[tuple[bytes, bytes, bytes]]) -> bytes:
    """Return an index with these entries."""
    return b"".join(
        struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name + numbers
        for axes, name, numbers in parts
    )


# -- cuts ----------------------------------------------------------------------------------------


def manifest_of(dataset: Dataset) -> str:
    """Return the name of the manifest, or an empty string; that of a single-file dataset has a prefix."""
    return next((name for name in sorted(dataset.files) if name.endswith(MANIFEST)), "")


def cuts(original: Dataset) -> Iterator[tuple[str, int]]:
    """Yield each cut: anywhere in the index, the manifest, and a TIFF file's header and first directory."""
    for name, data in sorted(original.files.items()):
        if name.endswith((INDEX, MANIFEST)):
            yield from ((name, offset) for offset in range(len(data)))
        elif name.endswith(".tif"):
            (first,) = struct.unpack_from("<I", data, 4)
            tags = struct.unpack_from("<H", data, first)[0] if first + 2 <= len(data) else 0
            yield from ((name, offset) for offset in range(min(len(data), first + 2 + 12 * tags + 4)))


def cut(original: Dataset, name: str, offset: int) -> Dataset:
    """Return a dataset in which one file ends at an offset."""
    changed = original.copy()
    changed.files[name] = changed.files[name][:offset]
    changed.done.append(f"{name} cut at {offset}")
    return changed


# -- edits ---------------------------------------------------------------------------------------


Edit = Callable[[Dataset, random.Random], str]


def edit(original: Dataset, rng: random.Random, edits: "tuple[Edit, ...] | None" = None) -> Dataset:
    """Return a dataset with one to three edits, by default for NDTiff."""
    changed = original.copy()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choice(edits or EDITS)
        changed.done.append(f"{change.__name__.strip('_')}: {change(changed, rng)}")
    return changed


def pick(dataset: Dataset, rng: random.Random, *ends: str) -> str:
    """Return the name of a nonempty file with one of these suffixes, or an empty string."""
    names = sorted(name for name in dataset.files if name.endswith(ends or ("",)) and dataset.files[name])
    return rng.choice(names) if names else ""


def place(dataset: Dataset, name: str, rng: random.Random, size: int) -> int:
    """Return an offset; in TIFF files, prefer headers and directories."""
    last = max(len(dataset.files[name]) - size, 0)
    return rng.randint(0, min(last, 500) if rng.random() < 0.5 else last)


def put(dataset: Dataset, name: str, at: int, data: bytes) -> str:
    """Overwrite some bytes of a file; return a description."""
    old = dataset.files[name]
    dataset.files[name] = old[:at] + data + old[at + len(data) :]
    return f"{name} at {at}: {old[at : at + len(data)][:16]!r} -> {data[:16]!r}"


def _byte(dataset: Dataset, rng: random.Random) -> str:
    if not (name := pick(dataset, rng)):
        return ""
    at = place(dataset, name, rng, 1)
    return put(dataset, name, at, bytes([dataset.files[name][at] ^ rng.randint(1, 255)]))


def _number(dataset: Dataset, rng: random.Random) -> str:
    if not (name := pick(dataset, rng, INDEX, ".tif")):
        return ""
    value = rng.choice((*NUMBERS, rng.getrandbits(32)))
    return put(dataset, name, place(dataset, name, rng, 4), struct.pack("<I", value))


def _entry_number(dataset: Dataset, rng: random.Random) -> str:
    def change(parts: list[tuple[bytes, bytes, bytes]]) -> str:
        entry, number = rng.randrange(len(parts)), rng.randrange(8)
        axes, name, numbers = parts[entry]
        values = list(struct.unpack("<8I", numbers))
        if rng.random() < 0.3:  # numbers that occur in real files
            values[1], values[2] = rng.choice(
                ((values[2], values[1]), (values[1] * 2, values[2] // 2), (1, 64))
            )
        else:
            near = (values[number] + 1, max(values[number], 1) - 1, values[number] ^ 1 << rng.randrange(32))
            values[number] = rng.choice((*NUMBERS, *near)) % 2**32
        parts[entry] = (axes, name, struct.pack("<8I", *values))
        return f"entry {entry}: {values}"

    return _in_index(dataset, rng, change)


def _in_index(
    dataset: Dataset, rng: random.Random, change: Callable[[list[tuple[bytes, bytes, bytes]]], str]
) -> str:
    if not (name := pick(dataset, rng, INDEX)) or not (parts := entries(dataset.files[name])):
        return ""
    said = change(parts)
    dataset.files[name] = joined(parts)
    return f"{name}: {said}"


def _zeros(dataset: Dataset, rng: random.Random) -> str:
    if not (name := pick(dataset, rng)):
        return ""
    size = rng.choice((1, 2, 4, 16, 100, 512, 4096))
    at = place(dataset, name, rng, size)
    return put(dataset, name, at, bytes(min(size, len(dataset.files[name]) - at)))


def _moved(dataset: Dataset, rng: random.Random) -> str:
    if not (name := pick(dataset, rng)):
        return ""
    size = rng.choice((1, 4, 12, 32, 128, 500))
    data = dataset.files[name]
    begin, to = place(dataset, name, rng, size), place(dataset, name, rng, size)
    if rng.random() < 0.5:
        return put(dataset, name, to, data[begin : begin + size])
    rest = data[:begin] + data[begin + size :]
    dataset.files[name] = rest[:to] + data[begin : begin + size] + rest[to:]
    return f"{name}: {size} bytes at {begin} moved to {to}"


def _entries(dataset: Dataset, rng: random.Random) -> str:
    def change(parts: list[tuple[bytes, bytes, bytes]]) -> str:
        a, b = rng.randrange(len(parts)), rng.randrange(len(parts))
        what = rng.choice(
            ("swapped", "places swapped", "doubled", "deleted", "axes taken", "again and again")
        )
        if what == "swapped":
            parts[a], parts[b] = parts[b], parts[a]
        elif what == "places swapped":
            (axes_a, *place_a), (axes_b, *place_b) = parts[a], parts[b]
            parts[a], parts[b] = (axes_a, *place_b), (axes_b, *place_a)
        elif what == "doubled":
            parts.insert(b, parts[a])
        elif what == "deleted":
            del parts[a]
        elif what == "axes taken":
            parts[a] = (parts[b][0], *parts[a][1:])
        else:
            parts += [parts[a]] * 5000
        return f"entries {a} and {b} {what}"

    return _in_index(dataset, rng, change)


def _file_name(dataset: Dataset, rng: random.Random) -> str:
    others = [os.path.basename(name).encode() for name in dataset.files]
    name = rng.choice((*NAMES, *others))

    def change(parts: list[tuple[bytes, bytes, bytes]]) -> str:
        entry = rng.randrange(len(parts))
        parts[entry] = (parts[entry][0], name, parts[entry][2])
        return f"entry {entry}: file {name[:40]!r}"

    return _in_index(dataset, rng, change)


def _axes(dataset: Dataset, rng: random.Random) -> str:
    axes = rng.choice(AXES)

    def change(parts: list[tuple[bytes, bytes, bytes]]) -> str:
        entry = rng.randrange(len(parts))
        parts[entry] = (axes, *parts[entry][1:])
        return f"entry {entry}: axes {axes[:40]!r}"

    return _in_index(dataset, rng, change)


def _manifest(dataset: Dataset, rng: random.Random) -> str:
    if not (name := manifest_of(dataset)):
        return ""
    try:
        content = json.loads(dataset.files[name])
    except (ValueError, RecursionError):
        return ""
    if not isinstance(content, dict):
        return ""
    key = rng.choice((*content, "status", "backend", "frames", "reason", "annotations", "lost", "ledger"))
    value = rng.choice(VALUES)
    content[key] = value
    dataset.files[name] = json.dumps(content).encode("utf-8", "surrogatepass")
    return f"{key} = {value!r:.40}"


def _manifest_text(dataset: Dataset, rng: random.Random) -> str:
    if not (name := manifest_of(dataset)):
        return ""
    old = dataset.files[name]
    new = rng.choice(
        (
            b"", b"null", b"[]", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe" + old, b"\xef\xbb\xbf" + old,
            old.decode("utf-8", "replace").encode("utf-16"), old + old, b"0" * 100_000, bytes(1000), b"[" + b"[]," * 10**6,
            old.replace(b"{", b'{"x": ' + b"[" * 900 + b"]" * 900 + b",", 1), b'{"format": "exengine-dataset"}',
        )
    )  # fmt: skip
    dataset.files[name] = new
    return f"{new[:30]!r}, {len(new)} bytes"


def _summary(dataset: Dataset, rng: random.Random) -> str:
    if not (name := pick(dataset, rng, ".tif")):
        return ""
    if rng.random() < 0.5:
        return put(dataset, name, 24, struct.pack("<I", rng.choice(NUMBERS)))
    return put(dataset, name, 28, rng.choice((b"[" * 3000, b"{", b"\xff" * 40, b'{"a":1e999', b"1" * 5000)))


def _special(dataset: Dataset, rng: random.Random) -> str:
    names = sorted({*dataset.files, f"{manifest_of(dataset).removesuffix(MANIFEST)}{LOCK}"})
    folders = sorted({os.path.dirname(name) for name in names} - {""})
    name = rng.choice((*names, *folders))
    kind = rng.choice(SPECIAL)
    if name in folders:
        for inside in [other for other in dataset.files if other.startswith(f"{name}/")]:
            del dataset.files[inside]
            dataset.special.pop(inside, None)
    dataset.special[name] = kind
    return f"{name}: {kind}"


def _longer(dataset: Dataset, rng: random.Random) -> str:
    """Extend a file, mostly with a hole, and make a number in an entry refer to the extended part."""
    if not (name := pick(dataset, rng)):
        return ""
    dataset.longer[name] = rng.choice((len(dataset.files[name]) + 1, 10**6, 2**31, 2**32 + 5))
    said = _entry_number(dataset, rng) if rng.random() < 0.7 else ""
    return f"{name}: {dataset.longer[name]} bytes; {said}"


def _shorter(dataset: Dataset, rng: random.Random) -> str:
    if not (name := pick(dataset, rng)):
        return ""
    dataset.files[name] = dataset.files[name][: rng.randint(0, len(dataset.files[name]))]
    return f"{name}: {len(dataset.files[name])} bytes"


def _junk(dataset: Dataset, rng: random.Random) -> str:
    if not (name := pick(dataset, rng)):
        return ""
    dataset.files[name] += rng.randbytes(rng.choice((1, 3, 40, 500)))
    return name


EDITS = (
    _byte, _byte, _number, _number, _entry_number, _entry_number, _zeros, _moved, _entries, _file_name, _axes,
    _manifest, _manifest_text, _summary, _special, _special, _longer, _shorter, _junk,
)  # fmt: skip
ANY_FORMAT = (_byte, _zeros, _moved, _manifest, _manifest_text, _special, _special, _longer, _shorter, _junk)
"""Edits that require no knowledge of the format."""
