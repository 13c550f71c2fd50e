"""Faulty readers, each of which the campaign of damaged datasets must detect."""

import os
import time
from collections.abc import Callable
from typing import Any

MOST_BYTES = 2**30
"""The memory that reading a dataset may take."""


class _Equal(int):
    """A checksum that is equal to any other checksum."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def compare_no_checksum() -> None:
    """Make a reader faulty, so that it trusts the data that it reads."""
    from types import SimpleNamespace

    from exengine_ome_zarr.format import frame_files

    frame_files.crc32c = SimpleNamespace(crc32c=lambda *data: _Equal())
    from exengine_ndstorage.ndtiff.reader import NDTiffReader

    for cls in _spool_readers():
        cls.checksum = staticmethod(lambda data: _Equal())
    frames_of_others = property(lambda self: False, lambda self, value: None)
    NDTiffReader._checked = NDTiffReader._written_here = frames_of_others


def _spool_readers() -> list[Any]:
    from exengine_hdf5.reader import Hdf5SpoolReader
    from exengine_ome_tiff.reader import OmeTiffSpoolReader

    return [Hdf5SpoolReader, OmeTiffSpoolReader]


def _readers() -> list[Any]:
    from exengine_ndstorage.ndtiff.reader import NDTiffReader
    from exengine_ome_zarr.reader import OmeZarrReader

    return [NDTiffReader, OmeZarrReader, *_spool_readers()]


def at_a_damaged_index(do: Callable[[], None]) -> Callable[[], None]:
    """Return a function that makes readers misbehave if an index cannot be read."""

    def spoil() -> None:
        for cls in _readers():
            real = cls._settle

            def instead(self: Any, real: Any = real) -> None:
                real(self)
                # an index that ends within an entry, or a journal
                if "incomplete entry" in self.status_reason or "journal" in self.status_reason:
                    do()

            cls._settle = instead

    return spoil


def _raise_in_await() -> None:
    for cls in _readers():
        cls.await_new_data = lambda self, timeout: {}["nothing"]


def _take_memory() -> None:
    for cls in _readers():
        cls.await_new_data = lambda self, timeout: bytes(2 * MOST_BYTES)


SPOILS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "no-checksums": compare_no_checksum,
    "foreign-error": at_a_damaged_index(_raise_in_await),
    "memory": at_a_damaged_index(_take_memory),
    "hang": at_a_damaged_index(lambda: time.sleep(60)),
    "crash": at_a_damaged_index(os.abort),
}
"""The faults of a reader that the campaign must detect."""
