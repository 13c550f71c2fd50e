"""Small changes to the files of a dataset, to test that a reader notices them or survives them.

Each file gets its share of the changes. In small files every byte is changed; in larger files the changes are
dense at the beginning and the end, where formats keep their headers and indexes.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from exengine.kernel.storage.manifest import LOCK_NAME
from exengine.testing.tasks.dataset_files import files_of, name_in, place_in

Change = Callable[[bytes], bytes | None]

_HEAD, _TAIL = 64, 24
_MASKS = (0x01, 0x10, 0x80, 0xFF)
_PICKLE = b"cexengine_decoy\nloaded\n."  # loading this pickle imports a module that does not exist


@dataclass(frozen=True)
class Damage:
    """One change to one file.

    Attributes
    ----------
    place : callable
        Returns the path of the file in a copy of the dataset.
    text : str
        A description of the change, for messages.
    change : callable
        Maps the old content of the file to the new content, or to None, which removes the file.
    """

    place: Callable[[Path], Path]
    text: str
    change: Change


def damages_of(path: Path, most: int, only: Collection[str] = ()) -> Iterator[Damage]:
    """Yield about ``most`` changes to the files of a dataset, alternating between the files.

    Parameters
    ----------
    path : pathlib.Path
    most : int
    only : collection of str
        The names of the files to change, as ``name_in`` returns them; by default, all files.
    """
    files = [file for file in files_of(path) if not file.name.endswith(LOCK_NAME)]
    files = [file for file in files if not only or name_in(path, file) in only]
    share = most * 4 // 5 // max(len(files), 1)
    series = [_changes(place_in(path, file), file, share) for file in files]
    while series:
        for one in list(series):
            try:
                yield next(one)
            except StopIteration:
                series.remove(one)


def _changes(place: Callable[[Path], Path], file: Path, share: int) -> Iterator[Damage]:
    size = file.stat().st_size
    shown = f"{file.name} ({size} bytes)"
    noise = bytes((number * 197 + 31) % 256 for number in range(4096))
    whole: list[tuple[str, Change]] = [
        ("was truncated to 0 bytes", lambda content: b""),
        ("was truncated to half its size", lambda content: content[: len(content) // 2]),
        ("lost its last byte", lambda content: content[:-1]),
        ("was replaced by noise", lambda content: noise),
        ("has noise in its second half", lambda content: content[: len(content) // 2] + noise),
        ("contains only zeros", lambda content: bytes(len(content))),
        ("is followed by noise", lambda content: content + noise),
        ("was replaced by a pickle", lambda content: _PICKLE),
        ("was removed", lambda content: None),
    ]
    for what, change in whole:
        yield Damage(place, f"{shown} {what}", change)
    for number, offset in enumerate(_offsets(size, max(share - len(whole), 12))):
        mask = _MASKS[number % len(_MASKS)]
        yield Damage(place, f"byte {offset} of {shown} was XORed with {mask:#04x}", _flip(offset, mask))
        if number % 8 == 7:  # a size or a count that is far too large
            yield Damage(place, f"four bytes of {shown} were overwritten at offset {offset}", _set(offset))
        elif number % 8 == 3:
            yield Damage(place, f"{shown} was truncated to {offset} bytes", _cut(offset))


def _offsets(size: int, most: int) -> list[int]:
    """Return offsets in a file: all offsets if the file is small, otherwise mainly those near its ends."""
    if size <= most:
        return list(range(size))
    step = max(1, _HEAD * 2 // most)
    ends = [*range(0, min(_HEAD, size), step), *range(max(size - _TAIL, 0), size, step)]
    between = max(most - len(ends), most // 4, 4)
    return sorted({*ends, *(size * number // between for number in range(between))})


def _flip(offset: int, mask: int) -> Change:
    return lambda content: content[:offset] + bytes([content[offset] ^ mask]) + content[offset + 1 :]


def _set(offset: int) -> Change:
    return lambda content: content[:offset] + b"\xff\xff\xff\x7f" + content[offset + 4 :]


def _cut(offset: int) -> Change:
    return lambda content: content[:offset]
