"""The arrays of a dataset as ``zarr.Array``: zarr-python decodes the chunks, but does not read files itself.

Import this module only inside functions, because importing zarr-python takes a long time.
"""

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from exengine_ome_zarr.foreign.arrays import ArrayLayout
from exengine_ome_zarr.foreign.encoded import ChunkFiles


class ChunkStore(Store):
    """A read-only store with the checked metadata of one array and its encoded chunks.

    Parameters
    ----------
    layout : ArrayLayout
    chunks : ChunkFiles
    """

    supports_writes: bool = False
    supports_deletes: bool = False
    supports_listing: bool = False

    def __init__(self, layout: ArrayLayout, chunks: ChunkFiles) -> None:
        super().__init__(read_only=True)
        self._chunks = chunks
        name = "zarr.json" if layout.document["zarr_format"] == 3 else ".zarray"
        self._documents = {name: json.dumps(layout.document).encode()}

    def __eq__(self, value: object) -> bool:
        return self is value

    __hash__ = object.__hash__

    def _read(self, key: str) -> bytes | None:
        if key in self._documents:
            return self._documents[key]
        numbers = key.removeprefix("c/").split("/")
        return self._chunks.read(tuple(map(int, numbers))) if all(map(str.isdecimal, numbers)) else None

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        data = self._read(key)
        if data is None:
            return None
        if isinstance(byte_range, RangeByteRequest):
            data = data[byte_range.start : byte_range.end]
        elif isinstance(byte_range, OffsetByteRequest):
            data = data[byte_range.offset :]
        elif isinstance(byte_range, SuffixByteRequest):
            data = data[-byte_range.suffix :]
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return self._read(key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError("the store is read-only")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("the store is read-only")

    async def list(self) -> AsyncIterator[str]:
        for name in self._documents:
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in self._documents:
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in self._documents if not prefix else ():
            yield name


def open_array(layout: ArrayLayout, chunks: ChunkFiles) -> Any:
    """Return a ``zarr.Array`` that reads the chunks of an array. zarr-python's errors are not converted."""
    return zarr.open_array(ChunkStore(layout, chunks), mode="r", zarr_format=layout.document["zarr_format"])
