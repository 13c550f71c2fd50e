"""Hostile metadata of arrays: types, codecs and sizes that are refused before zarr-python sees them."""

import os

import pytest
from hand_made import edit, image
from surveying import DATA, DEEP, survey

from exengine.errors import ExEngineError, UnsupportedOperationError
from exengine_ome_zarr.foreign import open_foreign


def in_array(**values):
    return lambda path: edit(path / "0/zarr.json", lambda d: d.update(values))


def chunked(*shape):
    return in_array(chunk_grid={"name": "regular", "configuration": {"chunk_shape": list(shape)}})


def sharded(shape, inner, **more):
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    settings = {
        "chunk_shape": inner,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "index_codecs": index,
        **more,
    }

    def apply(path):
        chunked(*shape)(path)
        in_array(codecs=[{"name": "sharding_indexed", "configuration": settings}])(path)

    return apply


NESTED = {
    "name": "sharding_indexed",
    "configuration": {"chunk_shape": [1, 1, 1, 1], "codecs": [], "index_codecs": []},
}
ARRAYS = {
    "a negative shape": in_array(shape=[-1, 3, 8, 9]),
    "a shape of fractions": in_array(shape=[2.0, 3, 8, 9]),
    "a shape of truth values": in_array(shape=[True, 3, 8, 9]),
    "a shape that is text": in_array(shape="2389"),
    "a shape that overflows": in_array(shape=[2**63, 3, 8, 9]),
    "a shape with too many digits": in_array(shape=[10**300, 3, 8, 9]),
    "too many frames": in_array(shape=[2**30, 3, 8, 9]),
    "a shape of another rank": in_array(shape=[2, 3, 8]),
    "a thousand dimensions": lambda path: [in_array(shape=[1] * 1000)(path), chunked(*[1] * 1000)(path)],
    "a frame that is too large": lambda path: [
        in_array(shape=[2, 3, 2**20, 2**20])(path),
        chunked(1, 1, 2**12, 2**12)(path),
    ],
    "a frame of too many chunks": lambda path: [
        in_array(shape=[2, 3, 2**15, 2**15])(path),
        chunked(1, 1, 1, 1)(path),
    ],
    "chunks of no size": chunked(0, 1, 8, 9),
    "chunks of negative size": chunked(-1, 1, 8, 9),
    "chunks that are too large": chunked(1, 1, 2**20, 2**20),
    "chunks that are more than 64 bits": chunked(2**39, 2**39, 2**39, 2**39),
    "chunks of another rank": chunked(8, 9),
    "chunks that are not regular": in_array(
        chunk_grid={"name": "rectilinear", "configuration": {"chunk_shapes": [[1]]}}
    ),
    "a chunk grid that is text": in_array(chunk_grid="regular"),
    "text": in_array(data_type="string"),
    "text of a fixed length": in_array(
        data_type={"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**40}}
    ),
    "bytes of a fixed length": in_array(data_type="r80000000000"),
    "records": in_array(data_type={"name": "structured", "configuration": {"fields": [["a", "uint8"]]}}),
    "records by comma": in_array(data_type="u1,u1"),
    "arrays in an array": in_array(data_type="(1000000000,)u1"),
    "objects": in_array(data_type="O"),
    "times": in_array(data_type="M8[s]"),
    "a data type that does not exist": in_array(data_type="uint12"),
    "a data type that is a number": in_array(data_type=16),
    "no data type": in_array(data_type=None),
    "a codec that loads objects": in_array(codecs=[{"name": "numcodecs.pickle"}]),
    "a codec that does not exist": in_array(codecs=[{"name": "bytes"}, {"name": "evil"}]),
    "a codec without a name": in_array(codecs=[{}]),
    "a codec that is a number": in_array(codecs=[7]),
    "codecs that are text": in_array(codecs="bytes"),
    "no codecs": in_array(codecs=[]),
    "a thousand codecs": in_array(codecs=[{"name": "bytes"}] * 1000),
    "two compressors": in_array(
        codecs=[{"name": "bytes"}, {"name": "zstd"}, {"name": "gzip", "configuration": {"level": 1}}]
    ),
    "a codec with wrong settings": in_array(
        codecs=[{"name": "bytes", "configuration": {"endian": "middle"}}]
    ),
    "a codec with settings that are text": in_array(codecs=[{"name": "blosc", "configuration": "fast"}]),
    "a transposition that is not one": in_array(
        codecs=[{"name": "transpose", "configuration": {"order": [0, 0, 9, 9]}}, {"name": "bytes"}]
    ),
    "shards inside shards": sharded([2, 3, 8, 9], [1, 1, 8, 9], codecs=[NESTED]),
    "shards that cannot be divided": sharded([2, 3, 8, 9], [1, 2, 8, 9]),
    "shards of too many chunks": sharded([2**12, 2**12, 8, 9], [1, 1, 1, 1]),
    "shards with a compressed index": sharded(
        [2, 3, 8, 9], [1, 1, 8, 9], index_codecs=[{"name": "bytes"}, {"name": "gzip"}]
    ),
    "shards without settings": in_array(codecs=[{"name": "sharding_indexed"}]),
    "shards with settings that are text": in_array(
        codecs=[{"name": "sharding_indexed", "configuration": "x"}]
    ),
    "storage transformers": in_array(storage_transformers=[{"name": "indexed"}]),
    "a fill value that is an object": in_array(fill_value={"a": 1}),
    "a fill value that is text": in_array(fill_value="zero"),
    "a fill value that is too large": in_array(fill_value=2**70),
    "names of chunks in another form": in_array(chunk_key_encoding={"name": "hilbert"}),
    "names of chunks that lead out": in_array(
        chunk_key_encoding={"name": "default", "configuration": {"separator": "/../"}}
    ),
    "a group in place of an array": in_array(node_type="group"),
    "another version of Zarr": in_array(zarr_format=2),
    "a document that is a list": lambda path: (path / "0/zarr.json").write_text("[]"),
    "a document that is deep": lambda path: (path / "0/zarr.json").write_bytes(DEEP),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_hostile_metadata_of_an_array_are_refused(path, kind):
    image(path, DATA, "tcyx")
    ARRAYS[kind](path)
    assert isinstance(survey(path), ExEngineError)


def in_version2(**values):
    return lambda path: edit(path / "0/.zarray", lambda d: d.update(values))


VERSION2 = {
    "a filter that loads objects": in_version2(dtype="|O", filters=[{"id": "pickle"}]),
    "a filter that loads objects from numbers": in_version2(filters=[{"id": "pickle"}]),
    "a compressor that loads objects": in_version2(compressor={"id": "pickle"}),
    "filters that are text": in_version2(filters="pickle"),
    "filters that are numbers": in_version2(filters=[1]),
    "a compressor that is text": in_version2(compressor="zlib"),
    "a filter to objects": in_version2(
        filters=[{"id": "astype", "encode_dtype": "|O", "decode_dtype": "|O"}]
    ),
    "a filter with a huge type": in_version2(
        filters=[{"id": "astype", "encode_dtype": "|V1000000000", "decode_dtype": "<u2"}]
    ),
    "records": in_version2(dtype=[["a", "<u2"]]),
    "text": in_version2(dtype="<U1000000000"),
    "bytes": in_version2(dtype="|S8"),
    "times": in_version2(dtype="<M8[ns]"),
    "a long data type": in_version2(dtype="<" * 10_000),
    "another order": in_version2(order="K"),
    "another separator": in_version2(dimension_separator="/../../"),
    "chunks of no size": in_version2(chunks=[0, 0, 0, 0]),
    "a shape that is null": in_version2(shape=None),
    "another version": in_version2(zarr_format=3),
}


@pytest.mark.parametrize("kind", VERSION2)
def test_hostile_metadata_of_version_04_are_refused(path, kind):
    image(path, DATA, "tcyx", "0.4")
    VERSION2[kind](path)
    assert isinstance(survey(path), ExEngineError)


@pytest.mark.changes_files
def test_no_object_is_ever_unpickled(path, tmp_path):
    proof = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(proof),)

    import pickle

    image(path, DATA, "tcyx", "0.4", compressors=None)
    (path / "0/0/0/0/0").write_bytes(pickle.dumps([Evil()]))
    for values in (
        {"dtype": "|O", "filters": [{"id": "pickle"}]},
        {"filters": [{"id": "pickle"}]},
        {"compressor": {"id": "pickle"}},
    ):
        in_version2(**values)(path)
        assert survey(path)
    assert not proof.exists()


def test_unsupported_is_told_apart_from_damaged(path):
    image(path, DATA, "tcyx")
    in_array(codecs=[{"name": "bytes"}, {"name": "jpegxl"}])(path)
    with pytest.raises(UnsupportedOperationError, match="0/zarr.json: the codec 'jpegxl' is not supported"):
        open_foreign(path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("a frame that is too large", "a frame has 2199023255552 bytes; the limit is"),
        ("a frame of too many chunks", "a frame has 1073741824 chunks; the limit is"),
        ("too many frames", "claims to have 3221225472 frames or more"),
        ("chunks that are too large", "a chunk has 2199023255552 bytes; the limit is"),
        ("shards of too many chunks", "a shard has 1207959552 chunks; the limit is"),
        ("shards inside shards", "shards inside shards"),
        ("records", "is not numeric"),
        ("a codec that loads objects", "the codec 'numcodecs.pickle' is not supported"),
    ],
)
def test_a_limit_is_named(path, kind, words):
    image(path, DATA, "tcyx")
    ARRAYS[kind](path)
    assert words in str(survey(path))
