"""The layout of a dataset: how frames are arranged in images, arrays, shards, chunks and bytes.

A frame has an index on each of the four dimensions ``p`` (the image), ``t``, ``c`` and ``z``. Within an
image, a shard is a box of frames, and has a file of its own. Without compression, each frame has a fixed slot
in this file. The slot's offset follows from the frame's indices, so the shard's index can be written in
advance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import crc32c
import numpy as np
import numpy.typing as npt

from exengine_ome_zarr.format import sizes

FRAME_DIMENSIONS = ("t", "c", "z")
"""The dimensions along which an image can have several frames, in the order that OME-Zarr requires."""

ROLES = {"time": "t", "channel": "c", "z": "z", "position": "p"}
"""Maps axes of an acquisition to the dimensions of OME-Zarr."""

DTYPES = (
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64",
)  # fmt: skip
"""The pixel types that OME-Zarr readers support."""

NO_CODEC = "none"
EMPTY = 2**64 - 1
"""The offset and length of a chunk that a shard does not contain."""

Indices = tuple[int, int, int]
"""The indices of a frame or shard along t, c and z."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The arrangement of all frames of a dataset. It never changes after the first frame.

    Attributes
    ----------
    height, width : int
        The size of a frame in pixels.
    samples : int
        The number of planes of a frame: 3 for RGB, otherwise 1. They are stored as consecutive channels.
    dtype : str
        The name of the numpy dtype.
    axes : tuple of str
        The axes of every frame's coordinates.
    roles : dict of str to tuple of str
        The axes that form each dimension; a dimension without axes has only the index 0.
    codec : str
        The compression of the chunks.
    level : int or None
        The compression level.
    tile : tuple of two int
        The height and width of a chunk in pixels.
    chunk, shard : tuple of three int
        The number of frames in a chunk and in a shard, along t, c and z.
    order : tuple of str
        The dimensions t, c and z in the order of acquisition, the slowest first. Consecutive frames have
        consecutive slots.
    """

    height: int
    width: int
    samples: int
    dtype: str
    axes: tuple[str, ...]
    roles: dict[str, tuple[str, ...]]
    codec: str = NO_CODEC
    level: int | None = None
    tile: tuple[int, int] = (0, 0)
    chunk: Indices = (1, 1, 1)
    shard: Indices = (1, 1, 1)
    order: tuple[str, ...] = FRAME_DIMENSIONS

    def to_json(self) -> dict[str, Any]:
        """Return the layout as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the layout from the JSON object that :meth:`to_json` returned.

        Raises
        ------
        ValueError, TypeError, KeyError
            If the value does not describe a valid layout.
        """
        layout = cls(
            **{
                **value,
                "axes": tuple(map(str, value["axes"])),
                "roles": {dim: tuple(map(str, axes)) for dim, axes in value["roles"].items()},
                "tile": tuple(value["tile"]),
                "chunk": tuple(value["chunk"]),
                "shard": tuple(value["shard"]),
                "order": tuple(value["order"]),
            }
        )
        layout.refuse_nonsense()
        return layout

    def refuse_nonsense(self) -> None:
        """Raise ``ValueError`` if the numbers contradict each other or exceed the limits."""
        numbers = (self.height, self.width, *self.tile, *self.chunk, *self.shard)
        if len(numbers) != 10 or any(type(n) is not int or not 0 < n < 2**31 for n in numbers):
            raise ValueError("the sizes of its frames, chunks and shards are not valid")
        if self.dtype not in DTYPES or self.samples not in (1, 3):
            raise ValueError(
                f"its dtype {self.dtype!r:.40} or its number of samples, {self.samples!r:.20}, is not valid"
            )
        if any(shard % chunk for shard, chunk in zip(self.shard, self.chunk, strict=True)):
            raise ValueError("its shards do not consist of whole chunks")
        if math.prod(self.shard) * self.tiles > sizes.MAX_SHARD_CHUNKS or self.frame_bytes > 2**40:
            raise ValueError("its shards have too many chunks, or its frames are too large")
        if sorted(self.order) != sorted(FRAME_DIMENSIONS) or not set(self.roles) <= {"p", *FRAME_DIMENSIONS}:
            raise ValueError("its dimensions are not p, t, c and z")
        if sorted(axis for members in self.roles.values() for axis in members) != sorted(set(self.axes)):
            raise ValueError("its axes differ from the axes of its dimensions")
        if not isinstance(self.codec, str) or type(self.level) not in (int, type(None)):
            raise ValueError(f"its codec {self.codec!r:.40} or its compression level is not valid")
        if self.frames_per_chunk > 1 and (self.tiles > 1 or (self.samples > 1 and self.chunk[2] > 1)):
            raise ValueError("its chunks do not consist of whole frames")

    # -- arrays ----------------------------------------------------------------------------------

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        """The dimensions of each image's array, such as ``('t', 'c', 'y', 'x')``."""
        frames = [dim for dim in FRAME_DIMENSIONS if dim in self.roles or (dim == "c" and self.samples > 1)]
        return (*frames, "y", "x")

    def in_array(self, lengths: Indices, height: int, width: int) -> list[int]:
        """Return the shape of an array with these lengths along t, c and z, and this height and width."""
        t, c, z = lengths
        sizes_by_dim = {"t": t, "c": c * self.samples, "z": z, "y": height, "x": width}
        return [sizes_by_dim[dim] for dim in self.dimensions]

    # -- bytes -----------------------------------------------------------------------------------

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype of the stored pixels, in little-endian byte order."""
        return np.dtype(self.dtype).newbyteorder("<")

    @cached_property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of a frame, ``(Y, X)`` or ``(Y, X, 3)``."""
        shape = (self.height, self.width)
        return shape if self.samples == 1 else (*shape, self.samples)

    @cached_property
    def tiles_y(self) -> int:
        """The number of chunks that cover the height of a frame."""
        return -(-self.height // self.tile[0])

    @cached_property
    def tiles_x(self) -> int:
        """The number of chunks that cover the width of a frame."""
        return -(-self.width // self.tile[1])

    @cached_property
    def tiles(self) -> int:
        """The number of chunks that cover a frame."""
        return self.tiles_y * self.tiles_x

    @cached_property
    def tile_bytes(self) -> int:
        """The number of bytes that one frame occupies in a chunk."""
        return self.samples * self.tile[0] * self.tile[1] * self.numpy_dtype.itemsize

    @cached_property
    def frame_bytes(self) -> int:
        """The size in bytes of a frame's slot, including the padding of the last tiles."""
        return self.tiles * self.tile_bytes

    @cached_property
    def frames_per_chunk(self) -> int:
        """The number of frames that share a chunk."""
        return math.prod(self.chunk)

    @cached_property
    def is_compressed(self) -> bool:
        """Whether the chunks are compressed, and therefore vary in size."""
        return self.codec != NO_CODEC

    # -- shards ----------------------------------------------------------------------------------

    @cached_property
    def chunks_along(self) -> Indices:
        """The number of chunks in a shard along t, c and z."""
        t, c, z = (shard // chunk for shard, chunk in zip(self.shard, self.chunk, strict=True))
        return t, c, z

    @cached_property
    def chunks_in_shard(self) -> int:
        """The number of chunks in a shard."""
        return math.prod(self.chunks_along) * self.tiles

    @cached_property
    def slot_strides(self) -> Indices:
        """The distance between the slots of neighboring chunks along t, c and z."""
        strides, stride = {}, 1
        for dim in reversed(self.order):
            strides[dim] = stride
            stride *= self.chunks_along[FRAME_DIMENSIONS.index(dim)]
        return strides["t"], strides["c"], strides["z"]

    @cached_property
    def slots_bytes(self) -> int:
        """The size in bytes of all slots of a shard; the index follows."""
        return math.prod(self.shard) * self.frame_bytes

    @cached_property
    def index_bytes(self) -> int:
        """The size in bytes of a shard's index, including its checksum."""
        return 16 * self.chunks_in_shard + 4

    def slot(self, t: int, c: int, z: int) -> int:
        """Return the number of a frame's slot in its shard. This number determines the slot's offset."""
        (shard_t, shard_c, shard_z), (chunk_t, chunk_c, chunk_z) = self.shard, self.chunk
        stride_t, stride_c, stride_z = self.slot_strides
        t, c, z = t % shard_t, c % shard_c, z % shard_z
        chunk = t // chunk_t * stride_t + c // chunk_c * stride_c + z // chunk_z * stride_z
        return chunk * self.frames_per_chunk + (t % chunk_t * chunk_c + c % chunk_c) * chunk_z + z % chunk_z

    def chunk_number(self, t: int, c: int, z: int) -> int:
        """Return the position of a frame's first chunk in the index of its shard."""
        local = [i % s // k for i, s, k in zip((t, c, z), self.shard, self.chunk, strict=True)]
        _, along_c, along_z = self.chunks_along
        return ((local[0] * along_c + local[1]) * along_z + local[2]) * self.tiles

    def shard_at(self, t: int, c: int, z: int) -> Indices:
        """Return the indices of the shard that contains a frame."""
        return t // self.shard[0], c // self.shard[1], z // self.shard[2]

    def shard_name(self, t: int, c: int, z: int) -> str:
        """Return the path of a shard, relative to the folder of its array."""
        places = {"t": t, "c": c, "z": z, "y": 0, "x": 0}
        return "c/" + "/".join(str(places[dim]) for dim in self.dimensions)

    @cached_property
    def chunk_slots(self) -> npt.NDArray[np.int64]:
        """The slot number of each chunk in a shard, in the order of the shard's index.

        ``(chunks,)`` int64.
        """
        grid = np.indices(self.chunks_along).reshape(3, -1)
        slots = np.asarray(self.slot_strides) @ grid
        return np.asarray((slots[:, None] * self.tiles + np.arange(self.tiles)).reshape(-1), np.int64)

    @cached_property
    def complete_index(self) -> bytes:
        """The index of a shard in which every chunk has its fixed slot."""
        size = self.tile_bytes * self.frames_per_chunk
        entries = np.empty((self.chunks_in_shard, 2), "<u8")
        entries[:, 0] = self.chunk_slots * size
        entries[:, 1] = size
        return encode_index(entries)


def encode_index(entries: npt.NDArray[np.uint64]) -> bytes:
    """Encode the offsets and lengths of chunks, ``(chunks, 2)`` uint64, as an index with a checksum."""
    text = np.ascontiguousarray(entries, "<u8").tobytes()
    return text + crc32c.crc32c(text).to_bytes(4, "little")


def decode_index(text: bytes) -> npt.NDArray[np.uint64] | None:
    """Return the offsets and lengths in an index, ``(chunks, 2)`` uint64; None if the index is damaged."""
    if len(text) < 4 or crc32c.crc32c(text[:-4]) != int.from_bytes(text[-4:], "little"):
        return None
    return np.frombuffer(text, "<u8", len(text) // 16 * 2).reshape(-1, 2)


def choose_layout(
    shape: tuple[int, ...],
    dtype: str,
    axes: Sequence[str],
    roles: Mapping[str, tuple[str, ...]],
    lengths: Mapping[str, int | None],
    *,
    order: Sequence[str] = FRAME_DIMENSIONS,
    codec: str = NO_CODEC,
    level: int | None = None,
    chunk: int | None = None,
    shard: int | None = None,
    frames_per_chunk: int | None = None,
) -> Layout:
    """Choose the sizes of chunks and shards.

    Parameters
    ----------
    shape : tuple of int
        The shape of a frame, ``(Y, X)`` or ``(Y, X, 3)``.
    dtype : str
    axes : sequence of str
        The axes of the frames' coordinates.
    roles : mapping of str to tuple of str
        The axes of each dimension.
    lengths : mapping of str to int or None
        The known lengths of the dimensions.
    order : sequence of str
        The dimensions in the order of acquisition, the slowest first.
    codec, level, chunk, shard, frames_per_chunk
        The options of the backend.

    Returns
    -------
    Layout
        A layout in which few shards are written at the same time.
    """
    height, width = shape[:2]
    samples = shape[2] if len(shape) == 3 else 1
    rows = height if codec == NO_CODEC else _rows_of_chunk(height, width * samples * np.dtype(dtype).itemsize)
    tile = (min(chunk or rows, height), min(chunk or width, width))
    frame_bytes = samples * np.dtype(dtype).itemsize * math.prod(tile)
    frame_bytes *= -(-height // tile[0]) * -(-width // tile[1])
    tiles = -(-height // tile[0]) * -(-width // tile[1])
    room = shard or max(1, min(sizes.MAX_SHARD_FRAMES, sizes.SHARD_BYTES // frame_bytes))
    room = max(1, min(room, sizes.MAX_SHARD_CHUNKS // tiles))
    order = (*(dim for dim in FRAME_DIMENSIONS if dim not in order), *(d for d in order if d != "p"))
    present = [dim for dim in order if dim in roles]
    # A dimension of unknown length can only be the slowest within a shard, because growth along another
    # dimension would change the place of every frame. If all lengths are unknown, shards extend along time.
    along = dict.fromkeys(FRAME_DIMENSIONS, 1)
    together = dict.fromkeys(FRAME_DIMENSIONS, 1)
    unknown = [dim for dim in ("t", "z", "c") if dim in present and lengths.get(dim) is None]
    for dim in reversed(present):
        length = lengths.get(dim)
        if length is not None:
            along[dim] = max(1, min(length, room))
        elif dim == unknown[0]:
            along[dim] = room
        room //= along[dim]
    if codec == NO_CODEC and tiles == 1:
        wanted = frames_per_chunk or 1 << (-(-sizes.CHUNK_BYTES // frame_bytes) - 1).bit_length()
        for dim in reversed(present):
            if not (samples > 1 and dim == "z"):  # the planes of a frame must be consecutive
                chunks = -(-along[dim] // min(wanted, along[dim]))
                together[dim] = -(-along[dim] // chunks)
                along[dim] = together[dim] * chunks
                wanted //= together[dim]
            if wanted < 2:
                break
    return Layout(
        height=height,
        width=width,
        samples=samples,
        dtype=dtype,
        axes=tuple(axes),
        roles=dict(roles),
        codec=codec,
        level=level,
        tile=tile,
        chunk=(together["t"], together["c"], together["z"]),
        shard=(along["t"], along["c"], along["z"]),
        order=tuple(order),
    )


def _rows_of_chunk(height: int, row_bytes: int) -> int:
    """Return the height of a compressed chunk. Two threads compress the chunks of a large frame."""
    chunks = 1
    if height * row_bytes >= 2 * sizes.CHUNK_BYTES:
        chunks = 2
        while height * row_bytes > chunks * sizes.COMPRESSED_CHUNK_BYTES:
            chunks *= 2
    while height % chunks:  # all chunks must have the same height
        chunks //= 2
    return height // chunks
