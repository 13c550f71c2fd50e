"""Checks the metadata of Zarr arrays, versions 2 and 3, and simplifies them for zarr-python.

The specifications are at https://zarr-specs.readthedocs.io/en/latest/v3/core/ and .../v2/v2.0.html.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from exengine.errors import DatasetDamagedError, UnsupportedOperationError
from exengine_ome_zarr.foreign.documents import read_json
from exengine_ome_zarr.foreign.files import Files, joined

MAX_CHUNK_BYTES = 2**30
"""The maximum size of a decoded chunk. Several chunks are decoded at the same time."""
MAX_CHUNKS_PER_SHARD = 2**20
_MAX_LENGTH = 2**40

# Codecs that decode only numbers. Other registered codecs, such as pickle, can create any object.
_COMPRESSORS = frozenset({"blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4"})
_FILTERS = frozenset(
    {
        "adler32",
        "astype",
        "bitround",
        "bytes",
        "crc32",
        "crc32c",
        "delta",
        "fixedscaleoffset",
        "fletcher32",
        "jenkins_lookup3",
        "packbits",
        "quantize",
        "shuffle",
        "transpose",
    }
)
_KINDS = frozenset("biufc")


@dataclass(frozen=True)
class ArrayLayout:
    """The layout of a Zarr array.

    Attributes
    ----------
    key : str
        The path of the array.
    shape : tuple of int
    dtype : numpy.dtype
        In native byte order.
    chunk : tuple of int
        The shape of a chunk. In a sharded array, chunks are inside shards.
    shard : tuple of int or None
        The shape of a shard, or None if each chunk is a file.
    index_at_end : bool
        Whether a shard ends with its index. Otherwise, the index is at its beginning.
    index_has_crc : bool
        Whether the index of a shard ends with a CRC-32C.
    compressor : str
        The name of the compressor; empty if there is none.
    has_filters : bool
        Whether a filter precedes the compressor, and can therefore change the size of a chunk.
    checksum_bytes : int
        The size of the checksums that follow the output of the compressor.
    separator : str
        The text between the numbers in the name of a chunk.
    prefix : str
        The text, such as ``c``, before the numbers in the name of a chunk.
    document : dict
        The metadata for zarr-python. They describe an array without shards, in which each chunk is a file
        with a name such as ``c/0/1`` (version 3) or ``0/1`` (version 2).
    """

    key: str
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None
    index_at_end: bool
    index_has_crc: bool
    compressor: str
    has_filters: bool
    checksum_bytes: int
    separator: str
    prefix: str
    document: dict[str, Any]

    @property
    def chunk_bytes(self) -> int:
        """The size of a decoded chunk."""
        return math.prod(self.chunk) * self.dtype.itemsize

    @property
    def shard_grid(self) -> tuple[int, ...]:
        """The number of chunks in a shard along each axis."""
        return tuple(a // b for a, b in zip(self.shard or self.chunk, self.chunk, strict=True))

    @property
    def most_decoded_bytes(self) -> int:
        """An upper bound on the size of a chunk after decompression."""
        return self.chunk_bytes * (8 if self.has_filters else 1) + 1024

    @property
    def most_encoded_bytes(self) -> int:
        """An upper bound on the size of an encoded chunk. No encoder produces a larger chunk."""
        return self.most_decoded_bytes * 9 // 8 + 65536

    def file_name(self, place: tuple[int, ...]) -> str:
        """Return the key of the file at a grid position, relative to the array."""
        numbers = list(map(str, place))
        return self.separator.join([self.prefix, *numbers] if self.prefix else numbers)

    def place_of(self, name: str) -> tuple[int, ...] | None:
        """Return the grid position in a file name created by :meth:`file_name`, or None for other names."""
        parts = name.split(self.separator)
        if self.prefix:
            if parts[0] != self.prefix:
                return None
            del parts[0]
        if len(parts) != len(self.shape) or not all(part.isdecimal() and len(part) < 14 for part in parts):
            return None
        place = tuple(map(int, parts))
        return place if self.file_name(place) == name else None


def read_layout(files: Files, key: str, zarr_format: int) -> ArrayLayout:
    """Return the layout of an array.

    Raises
    ------
    DatasetDamagedError
        If the metadata is missing or invalid.
    UnsupportedOperationError
        If the array does not contain numbers, or uses a codec or an extension that is not supported.
    """
    name = joined(key, "zarr.json" if zarr_format == 3 else ".zarray")
    document = read_json(files, name, foreign=False)
    where = files.name(name)
    if document is None:
        raise DatasetDamagedError(f"{where} does not exist, although the metadata list an array there")
    if not isinstance(document, dict) or document.get("zarr_format") != zarr_format:
        raise DatasetDamagedError(f"{where} does not describe an array of Zarr version {zarr_format}")
    try:
        layout = _version3(key, document) if zarr_format == 3 else _version2(key, document)
    except _InvalidError as error:
        raise DatasetDamagedError(f"{where}: {error}") from None
    except UnsupportedOperationError as error:
        raise UnsupportedOperationError(f"{where}: {error}") from None
    if layout.chunk_bytes > MAX_CHUNK_BYTES:
        raise DatasetDamagedError(
            f"{where}: a chunk has {layout.chunk_bytes} bytes; the limit is {MAX_CHUNK_BYTES}"
        )
    if math.prod(layout.shard_grid) > MAX_CHUNKS_PER_SHARD:
        raise DatasetDamagedError(
            f"{where}: a shard has {math.prod(layout.shard_grid)} chunks; the limit is {MAX_CHUNKS_PER_SHARD}"
        )
    return layout


class _InvalidError(Exception):
    """Raised if a value in the metadata is not valid."""


def _version3(key: str, document: dict[str, Any]) -> ArrayLayout:
    if document.get("node_type") != "array":
        raise _InvalidError(f"the node type is {document.get('node_type')!r:.40}, not 'array'")
    shape = _lengths(document.get("shape"), "shape", least=0)
    grid = _dict(document.get("chunk_grid"), "chunk_grid")
    if grid.get("name") != "regular":
        raise UnsupportedOperationError(f"the chunk grid {grid.get('name')!r:.40} is not regular")
    chunk = _lengths(_configuration(grid).get("chunk_shape"), "chunk_shape", count=len(shape))
    dtype = _dtype(document.get("data_type"))
    if document.get("storage_transformers"):
        raise UnsupportedOperationError("storage transformers are not supported")
    encoding = _dict(document.get("chunk_key_encoding"), "chunk_key_encoding")
    prefix = {"default": "c", "v2": ""}.get(str(encoding.get("name")))
    if prefix is None:
        raise UnsupportedOperationError(
            f"the encoding {encoding.get('name')!r:.40} of chunk names is not supported"
        )
    separator = _configuration(encoding).get("separator", "/" if prefix else ".")
    codecs = _codecs(document.get("codecs"))
    shard, at_end, has_crc, inner = None, True, False, codecs
    sharding = [codec for codec in codecs if codec["name"] == "sharding_indexed"]
    if sharding:
        settings = _configuration(sharding[0])
        inner = _codecs(settings.get("codecs"))
        if len(codecs) > 1 or any(codec["name"] == "sharding_indexed" for codec in inner):
            raise UnsupportedOperationError(
                "shards inside shards, or codecs around shards, are not supported"
            )
        shard = chunk
        chunk = _lengths(settings.get("chunk_shape"), "chunk_shape of the shards", count=len(shape))
        if any(outer % part for outer, part in zip(shard, chunk, strict=True)):
            raise _InvalidError(f"shards of {shard} cannot be divided into chunks of {chunk}")
        at_end = settings.get("index_location", "end") != "start"
        index = _codecs(settings.get("index_codecs"))
        names = [codec["name"] for codec in index]
        has_crc = names == ["bytes", "crc32c"]
        plain = names == ["bytes"] or has_crc
        if not plain or _configuration(index[0]).get("endian", "little") != "little":
            raise UnsupportedOperationError(f"the codecs {index!r:.200} of a shard index are not supported")
    kept = ("shape", "data_type", "fill_value")
    return ArrayLayout(
        key=key,
        shape=shape,
        dtype=dtype,
        chunk=chunk,
        shard=shard,
        index_at_end=at_end,
        index_has_crc=has_crc,
        compressor=_compressor(inner),
        has_filters=_has_filters(inner),
        checksum_bytes=4 * sum(codec["name"] == "crc32c" for codec in inner),
        separator=_separator(separator),
        prefix=prefix,
        document={
            "zarr_format": 3,
            "node_type": "array",
            **{name: document.get(name) for name in kept},
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": inner,
            "attributes": {},
        },
    )


def _version2(key: str, document: dict[str, Any]) -> ArrayLayout:
    shape = _lengths(document.get("shape"), "shape", least=0)
    chunk = _lengths(document.get("chunks"), "chunks", count=len(shape))
    given = document.get("dtype")
    if not isinstance(given, str) or len(given) > 8:
        raise UnsupportedOperationError(f"the dtype {given!r:.80} is not numeric")
    dtype = _dtype(given.lstrip("<>|=") if given[:1] in "<>|=" else given)
    filters = document.get("filters") or []
    if not isinstance(filters, list):
        raise _InvalidError("the filters are not a list")
    codecs = [{"name": _dict(codec, "filter").get("id")} for codec in filters]
    if document.get("compressor") is not None:
        codecs.append({"name": _dict(document["compressor"], "compressor").get("id")})
    for codec in codecs:
        _check_codec(codec["name"])
    if document.get("order") not in ("C", "F"):
        raise _InvalidError(f"the order is {document.get('order')!r:.40}, not 'C' or 'F'")
    separator = _separator(document.get("dimension_separator", "."))
    kept = ("shape", "chunks", "dtype", "fill_value", "order", "compressor")
    return ArrayLayout(
        key=key,
        shape=shape,
        dtype=dtype,
        chunk=chunk,
        shard=None,
        index_at_end=True,
        index_has_crc=False,
        compressor=_compressor(codecs),
        has_filters=bool(filters),
        checksum_bytes=0,
        separator=separator,
        prefix="",
        document={
            "zarr_format": 2,
            **{name: document.get(name) for name in kept},
            "filters": filters or None,
            "dimension_separator": "/",
        },
    )


def _lengths(value: Any, what: str, *, least: int = 1, count: int | None = None) -> tuple[int, ...]:
    """Check a list of lengths, and return it as a tuple."""
    valid = isinstance(value, list) and all(type(n) is int and least <= n < _MAX_LENGTH for n in value)
    if not valid or (count is not None and len(value) != count):
        raise _InvalidError(f"the {what} {value!r:.80} is not valid")
    return tuple(value)


def _dtype(name: Any) -> "np.dtype[Any]":
    """Return a numeric dtype in native byte order."""
    if not isinstance(name, str) or name.startswith(("r", "str", "U", "S", "O", "V", "M", "m")):
        raise UnsupportedOperationError(f"the data type {name!r:.80} is not numeric")
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError):
        raise UnsupportedOperationError(f"the data type {name!r:.80} is not numeric") from None
    if dtype.kind not in _KINDS or dtype.names or dtype.subdtype or dtype.itemsize > 16:
        raise UnsupportedOperationError(f"the data type {name!r:.80} is not numeric")
    return dtype.newbyteorder("=")


def _codecs(value: Any) -> list[dict[str, Any]]:
    """Return the codecs of an array as objects with a name. Some writers use plain names."""
    if not isinstance(value, list) or len(value) > 16:
        raise _InvalidError(f"the codecs {value!r:.80} are not valid")
    codecs = [codec if isinstance(codec, dict) else {"name": codec} for codec in value]
    for codec in codecs:
        if codec.get("name") != "sharding_indexed":
            _check_codec(codec.get("name"))
    return codecs


def _check_codec(name: Any) -> None:
    short = name.removeprefix("numcodecs.") if isinstance(name, str) else None
    if short not in _COMPRESSORS and short not in _FILTERS:
        raise UnsupportedOperationError(f"the codec {name!r:.80} is not supported")


def _compressor(codecs: list[dict[str, Any]]) -> str:
    """Return the name of the compressor, or an empty string. Only checksums may follow a compressor."""
    names = [str(codec["name"]).removeprefix("numcodecs.") for codec in codecs]
    found = [name for name in names if name in _COMPRESSORS]
    if not found:
        return ""
    after = [codec["name"] for codec in codecs[names.index(found[0]) + 1 :]]
    if any(name != "crc32c" for name in after):
        raise UnsupportedOperationError(f"codecs after the compressor {found[0]} are not supported: {after}")
    return found[0]


def _has_filters(codecs: list[dict[str, Any]]) -> bool:
    plain = _COMPRESSORS | {"bytes", "transpose", "crc32c", "sharding_indexed"}
    return any(codec["name"].removeprefix("numcodecs.") not in plain for codec in codecs)


def _separator(value: Any) -> str:
    if value not in ("/", "."):
        raise _InvalidError(f"the separator {value!r:.40} of chunk names is not valid")
    return str(value)


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _InvalidError(f"{what} is not an object")
    return value


def _configuration(item: dict[str, Any]) -> dict[str, Any]:
    return _dict(item.get("configuration", {}), "configuration")
