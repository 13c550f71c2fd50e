"""Hostile datasets: each is refused or read within bounds, by errors of ExEngine, and leads to no other file."""

import itertools
import json
import os
import resource
import struct
import time
import zlib

import numpy as np
import pytest
from hand_made import array, edit, group, image, multiscales, numbered, plate, series

from exengine.errors import (
    DatasetDamagedError,
    DatasetNotFoundError,
    ExEngineError,
    UnsupportedOperationError,
)
from exengine_ome_zarr.foreign import is_ome_zarr, open_foreign

DATA = numbered(2, 3, 8, 9)
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def survey(path):
    """Use a dataset in every way that opening allows; return the first error."""
    begin = time.monotonic()
    is_ome_zarr(path)
    error = None
    try:
        dataset = open_foreign(path)
    except ExEngineError as refused:
        return refused
    for call in (
        lambda: [dataset.get_data(c) for c in itertools.islice(dataset, 5)],
        lambda: [dataset.get_metadata(c) for c in itertools.islice(dataset, 5)],
        lambda: json.dumps(dataset.summary_metadata),
        lambda: (len(dataset), dataset.axes, str(dataset.status), dataset.status_reason),
        lambda: [dataset.level(level) for level in dataset.resolution_levels],
        dataset.check_structure,
        lambda: dataset.as_array()[(0,) * len(dataset.axes)].compute(),
    ):
        try:
            call()
        except ExEngineError as refused:
            error = error or refused
    dataset.close()
    assert time.monotonic() - begin < 30
    return error


# -- metadata of the image -----------------------------------------------------------------------


def in_image(change):
    def apply(path):
        edit(path / "zarr.json", lambda d: change(d["attributes"]["ome"]["multiscales"][0]))

    return apply


def set_path(value):
    return in_image(lambda m: m["datasets"][0].update(path=value))


def set_axes(value):
    return in_image(lambda m: m.update(axes=value))


def names(*axes):
    return [{"name": axis} for axis in axes]


IMAGES = {
    "path to a parent": set_path("../../outside"),
    "path that returns": set_path("0/../0"),
    "absolute path": set_path("/etc"),
    "path with a drive": set_path("C:\\Windows"),
    "path with a zero": set_path("0\0"),
    "path of the folder itself": set_path("."),
    "empty path": set_path(""),
    "path with empty parts": set_path("0//c"),
    "path that is a number": set_path(0),
    "path that is a list": set_path(["0"]),
    "very long path": set_path("a/" * 100_000 + "0"),
    "path that does not exist": set_path("9"),
    "no datasets": in_image(lambda m: m.update(datasets=[])),
    "datasets that are numbers": in_image(lambda m: m.update(datasets=[1, 2])),
    "datasets that are text": in_image(lambda m: m.update(datasets="0")),
    "too many datasets": in_image(lambda m: m.update(datasets=m["datasets"] * 100_000)),
    "too few axes": set_axes(names("y", "x")),
    "one axis": set_axes(names("x")),
    "no axes": set_axes([]),
    "too many axes": set_axes(names(*map(str, range(1000)))),
    "axes that are text": set_axes("tcyx"),
    "axes without names": set_axes([{}, {}, {}, {}]),
    "axes with the same name": set_axes(names("t", "t", "y", "x")),
    "axes with the same meaning": set_axes(names("t", "time", "y", "x")),
    "axes with names that are numbers": set_axes(names(1, 2, 3, 4)),
    "axes with reserved names": set_axes(names("keys", "_hash", "y", "x")),
    "multiscales that are empty": lambda path: edit(
        path / "zarr.json", lambda d: d["attributes"]["ome"].update(multiscales=[])
    ),
    "multiscales that are null": lambda path: edit(
        path / "zarr.json", lambda d: d["attributes"]["ome"].update(multiscales=[None])
    ),
    "attributes that are a list": lambda path: edit(path / "zarr.json", lambda d: d.update(attributes=[1])),
    "another version of Zarr": lambda path: edit(path / "zarr.json", lambda d: d.update(zarr_format=4)),
    "a document that is deep": lambda path: (path / "zarr.json").write_bytes(DEEP),
    "a document with many values": lambda path: (path / "zarr.json").write_bytes(
        b"[" + b"0," * 2_000_000 + b"0]"
    ),
    "a document that is huge": lambda path: os.truncate(path / "zarr.json", 2**40),
    "a document that is not text": lambda path: (path / "zarr.json").write_bytes(os.urandom(999)),
    "a document that is empty": lambda path: (path / "zarr.json").write_bytes(b""),
    "a document that is a number": lambda path: (path / "zarr.json").write_text("7"),
    "a number with many digits": lambda path: (path / "zarr.json").write_text("1" * 10_000),
    "a document that is a folder": lambda path: [(path / "zarr.json").unlink(), (path / "zarr.json").mkdir()],
    "a document that is a pipe": lambda path: [(path / "zarr.json").unlink(), os.mkfifo(path / "zarr.json")],
    "a document that is a device": lambda path: [
        (path / "zarr.json").unlink(),
        (path / "zarr.json").symlink_to("/dev/zero"),
    ],
}


@pytest.mark.parametrize("kind", IMAGES)
def test_hostile_metadata_of_an_image_are_refused(path, kind):
    image(path, DATA, "tcyx")
    IMAGES[kind](path)
    assert isinstance(survey(path), ExEngineError)


def with_ome(**values):
    return lambda path: edit(path / "zarr.json", lambda d: d["attributes"]["ome"].update(values))


HARMLESS = {
    "channels that are text": with_ome(omero={"channels": "abc"}),
    "channels that are numbers": with_ome(omero={"channels": [1, 2, 3]}),
    "labels that are lists": with_ome(omero={"channels": [{"label": [1]}] * 3}),
    "labels with half a surrogate pair": with_ome(
        omero={"channels": [{"label": "\ud800a"}, {"label": "b"}, {"label": "c"}]}
    ),
    "omero that is a list": with_ome(omero=[1]),
    "a name that is a number": in_image(lambda m: m.update(name=7)),
    "a unit that is a list": in_image(lambda m: m["axes"][0].update(unit=["s"])),
    "transformations that are text": in_image(
        lambda m: m["datasets"][0].update(coordinateTransformations="scale")
    ),
    "transformations that are numbers": in_image(
        lambda m: m["datasets"][0].update(coordinateTransformations=[1])
    ),
    "a scale that is infinite": in_image(
        lambda m: m["datasets"][0].update(
            coordinateTransformations=[{"type": "scale", "scale": [1, 1, float("inf"), float("nan")]}]
        )
    ),
    "a scale that overflows": in_image(
        lambda m: m["datasets"][0].update(
            coordinateTransformations=[{"type": "scale", "scale": [1, 1, 10**400, 1e308]}]
        )
    ),
    "a type that is a list": in_image(
        lambda m: m["datasets"][0].update(coordinateTransformations=[{"type": ["scale"]}])
    ),
    "metadata of frames that are text": lambda path: edit(
        path / "zarr.json", lambda d: d["attributes"].update(ome_writers={"frame_metadata": "x"})
    ),
    "a writer that is a list": lambda path: edit(
        path / "zarr.json", lambda d: d["attributes"].update(ome_writers=[1])
    ),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_metadata_that_pixels_do_not_need_may_be_wrong(path, kind):
    image(path, DATA, "tcyx")
    HARMLESS[kind](path)
    assert survey(path) is None
    dataset = open_foreign(path)
    for coordinates, frame in zip(dataset, DATA.reshape(-1, 8, 9), strict=True):
        np.testing.assert_array_equal(dataset[coordinates], frame)


# -- metadata of arrays --------------------------------------------------------------------------


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


# -- plates and series ---------------------------------------------------------------------------


def in_series(**values):
    return lambda path: edit(path / "OME/zarr.json", lambda d: d["attributes"]["ome"].update(values))


def in_plate(**values):
    return lambda path: edit(path / "zarr.json", lambda d: d["attributes"]["ome"]["plate"].update(values))


SERIES = {
    "a series that leads out": in_series(series=["../outside"]),
    "a series of absolute paths": in_series(series=["/etc"]),
    "a series of numbers": in_series(series=[0, 1]),
    "a series that is too long": in_series(series=["0"] * 100_000),
    "a series of images that do not exist": in_series(series=["8", "9"]),
    "a series of itself": in_series(series=["."]),
}
PLATES = {
    "wells that lead out": in_plate(wells=[{"path": "../../outside"}]),
    "wells without a path": in_plate(wells=[{}]),
    "wells that are text": in_plate(wells="A/1"),
    "too many wells": in_plate(wells=[{"path": "A/1"}] * 100_000),
    "no wells": in_plate(wells=[]),
    "wells that do not exist": in_plate(wells=[{"path": "Z/99"}]),
    "fields that lead out": lambda path: edit(
        path / "A/1/zarr.json",
        lambda d: d["attributes"]["ome"]["well"].update(images=[{"path": "../../../outside"}]),
    ),
    "fields that are text": lambda path: edit(
        path / "A/1/zarr.json", lambda d: d["attributes"]["ome"]["well"].update(images="0")
    ),
    "too many fields": lambda path: edit(
        path / "A/1/zarr.json",
        lambda d: d["attributes"]["ome"]["well"].update(images=[{"path": "0"}] * 100_000),
    ),
}


@pytest.mark.parametrize("kind", SERIES)
def test_a_hostile_series_is_refused(path, kind):
    series(path, [DATA[None]] * 2)
    SERIES[kind](path)
    assert isinstance(survey(path), ExEngineError)


@pytest.mark.parametrize("kind", PLATES)
def test_a_hostile_plate_is_refused(path, kind):
    plate(path, {"A/1": [DATA[None]]})
    PLATES[kind](path)
    assert isinstance(survey(path), ExEngineError)


def test_too_many_frames_in_many_images_are_refused(path, monkeypatch):
    import exengine_ome_zarr.foreign.images as images

    monkeypatch.setattr(images, "MAX_FRAMES", 10)
    series(path, [DATA[None]] * 2)
    with pytest.raises(DatasetDamagedError, match="claims to have 12 frames or more"):
        open_foreign(path)


# -- links and places ----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["zarr.json", "0", "0/zarr.json", "0/c"])
def test_nothing_outside_the_dataset_is_read(path, tmp_path, what):
    outside = tmp_path / "outside"
    image(path, DATA, "tcyx", compressors=None)
    (path / what).rename(outside)
    (path / what).symlink_to(outside)
    error = survey(path)
    assert isinstance(error, DatasetDamagedError) and "symbolic link" in str(error)


def test_the_dataset_itself_may_be_a_link(path, tmp_path):
    image(tmp_path / "real", DATA, "tcyx")
    path.symlink_to(tmp_path / "real")
    assert is_ome_zarr(path) and survey(path) is None


@pytest.mark.parametrize(
    "make",
    [
        os.mkdir,
        lambda path: None,
        lambda path: group(path, {}),
        lambda path: group(path, {}, "0.4"),
        lambda path: array(path, DATA),
        os.mkfifo,
        lambda path: path.symlink_to(path),
    ],
)
def test_any_other_path_is_not_a_dataset(path, make):
    make(path)
    assert not is_ome_zarr(path)
    with pytest.raises((DatasetNotFoundError, DatasetDamagedError)):
        open_foreign(path)


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000, 7, None, b"bytes"])
def test_is_ome_zarr_never_raises(path):
    assert is_ome_zarr(path) is False


# -- bombs ---------------------------------------------------------------------------------------


def zstd_of_zeros(blocks):
    """Return a frame of zstd that decompresses to 128 KiB of zeros per block, without stating its size."""
    block = struct.pack("<I", 2**17 << 3 | 1 << 1)[:3] + b"\0"
    last = struct.pack("<I", 2**17 << 3 | 1 << 1 | 1)[:3] + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * (blocks - 1) + last


def zstd_with_size(size):
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + struct.pack("<I", 1)[:3]


def deflated(size, wbits):
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)  # can be repeated
    return head + piece * (size // 2**24) + packer.flush()


BOMBS = {
    "blosc": ("blosc", lambda: struct.pack("<4B3I", 2, 1, 0, 1, 2**31 - 1, 2**30, 100) + bytes(84)),
    "blosc that claims more bytes than it has": (
        "blosc",
        lambda: struct.pack("<4B3I", 2, 1, 0, 1, 1000, 1000, 2**30) + bytes(84),
    ),
    "lz4": ("lz4", lambda: struct.pack("<I", 2**31 - 1) + bytes(96)),
    "zstd": ("zstd", lambda: zstd_of_zeros(2**14)),
    "zstd with a size": ("zstd", lambda: zstd_with_size(2**40)),
    "gzip": ("gzip", lambda: deflated(2**31, 31)),
    "zlib": ("zlib", lambda: deflated(2**31, 15)),
    "bz2": ("bz2", lambda: __import__("bz2").compress(bytes(2**25))),
    "lzma": ("lzma", lambda: __import__("lzma").compress(bytes(2**25))),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_in_a_chunk_is_not_decompressed(path, kind):
    import numcodecs

    codec, content = BOMBS[kind]
    large = "gzip" in kind or "zlib" in kind
    shape = (1, 2, 2**11, 2**11) if large else (1, 2, 64, 64)
    group(path, {"multiscales": multiscales("tcyx", version="0.4")}, "0.4")
    array(
        path / "0",
        np.zeros(shape, "u2")[:, :0],
        "0.4",
        chunks=(1, 1, *shape[2:]),
        compressors=numcodecs.get_codec({"id": codec}),
    )
    edit(path / "0/.zarray", lambda d: d.update(shape=list(shape)))
    chunk = path / "0/0/0/0/0"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(content())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetDamagedError, match="0/0/0/0"):
        open_foreign(path).get_data({"time": 0, "channel": 0})
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024, f"memory grew by {grown} KiB"


def test_a_frame_of_zstd_without_a_size_is_read(path):
    import zarr.codecs as codecs

    group(path, {"multiscales": multiscales("zyx")})
    array(path / "0", np.ones((2, 512, 512), "u2"), chunks=(1, 512, 512), compressors=codecs.ZstdCodec())
    (path / "0/c/0/0/0").write_bytes(zstd_of_zeros(4))
    dataset = open_foreign(path)
    assert not dataset[{"z": 0}].any() and dataset[{"z": 1}].all()


def test_unsupported_is_told_apart_from_damaged(path):
    image(path, DATA, "tcyx")
    in_array(codecs=[{"name": "bytes"}, {"name": "jpegxl"}])(path)
    with pytest.raises(UnsupportedOperationError, match="0/zarr.json: the codec 'jpegxl' is not supported"):
        open_foreign(path)
