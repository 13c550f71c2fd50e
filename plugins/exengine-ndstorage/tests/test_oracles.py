"""What we write, others read: the ndstorage library and tifffile, which use nothing of ours."""

import json
import logging
import struct

import numpy as np
import pytest
import tifffile

import exengine

METADATA_TAG = 51123


def grid(**axes):
    """Return all combinations of positions."""
    combinations = [{}]
    for axis, values in axes.items():
        combinations = [{**some, axis: value} for some in combinations for value in values]
    return combinations


CASES = {
    "int axes": (grid(time=range(4), z=range(3)), np.uint16, (20, 30), {}),
    "str axes": (grid(channel=("DAPI", "FITC", "Cy5"), time=range(3)), np.uint16, (20, 30), {}),
    "str axes only": (grid(channel=("b", "a"), position=("A1", "B 2", "C-3")), np.uint16, (5, 7), {}),
    "custom axes": (grid(angle=(3, 1, 2), laser=("488 nm", "561 nm"), stage_x_um=(-5, 100_000)), np.uint16, (9, 9), {}),
    "negative positions": (grid(z=range(-3, 4), time=(-(2**31), 2**31 - 1)), np.uint16, (4, 4), {}),
    "different axes in one dataset": (
        [{"time": 0}, {"time": 1, "z": 0}, {"z": 5, "time": 1, "channel": "x"}], np.uint16, (4, 4), {},
    ),
    "axes in changing order": ([{"time": 0, "z": 1}, {"z": 2, "time": 0}], np.uint16, (4, 4), {}),
    "uint8": (grid(time=range(5)), np.uint8, (21, 31), {}),
    "uint8, odd number of bytes": (grid(time=range(5)), np.uint8, (3, 5), {}),
    "RGB": (grid(time=range(4), channel=("colour",)), np.uint8, (12, 18, 3), {}),
    "RGB, odd number of bytes": (grid(time=range(4)), np.uint8, (3, 3, 3), {}),
    "one frame": ([{"time": 0}], np.uint16, (64, 64), {}),
    "one pixel": ([{"time": 0}], np.uint8, (1, 1), {}),
    "rollover": (grid(time=range(25)), np.uint16, (32, 32), {"max_file_bytes": 25_000}),
    "rollover of RGB": (grid(time=range(25)), np.uint8, (20, 30, 3), {"max_file_bytes": 25_000}),
    "unicode": (grid(channel=("mCherry 红", "µ\u0301", "\U0001f52c", 'quote " \\ / \n'), Übersicht=(0, 1)), np.uint16, (4, 4), {}),
    "names with digits": (grid(position=("Pos0", "Pos1", "Pos10"), time=(9, 10, 11)), np.uint16, (4, 4), {}),
}  # fmt: skip
METADATA = [
    {"exposure_ms": 10.5, "name": "frame"}, None, [], {}, [1, [2, None]], 7, -1.5, True, "text", "",
    {"µ": "日本", "nested": {"list": [1, 2, {"a": None}]}}, {"long": "x" * 5000}, {"big": 2**70},
]  # fmt: skip


@pytest.fixture(params=CASES)
def written(request, path, frame):
    """Write a dataset of every case, and return what is in it."""
    places, dtype, shape, options = CASES[request.param]
    frames = [
        (where, frame(where, shape, dtype), METADATA[number % len(METADATA)])
        for number, where in enumerate(places)
    ]
    with exengine.open_storage("ndtiff", path, **options) as storage:
        for some in frames:
            storage.put(*some)
    return frames


def test_ndstorage_reads_equal_pixels_and_metadata(written, path, oracle, keys_of):
    dataset = oracle(path)
    assert keys_of(dataset) == [where for where, _, _ in written]
    for where, data, metadata in written:
        np.testing.assert_array_equal(dataset.read_image(**where), data, strict=True)
        assert dataset.read_metadata(**where) == metadata


def test_we_read_equal_pixels_and_metadata(written, opened):
    dataset = opened()
    assert list(dataset) == [where for where, _, _ in written]
    for where, data, metadata in written:
        np.testing.assert_array_equal(dataset[where], data, strict=True)
        assert dataset.get_metadata(where) == metadata


def raw_metadata(tiff, page):
    tag = page.tags[METADATA_TAG]
    tiff.filehandle.seek(tag.valueoffset)
    return tiff.filehandle.read(tag.count)


def pages(path, caplog):
    """Return pixels and metadata of the pages of every TIFF file, in order, as tifffile sees them."""
    found = []
    with caplog.at_level(logging.DEBUG, "tifffile"):
        for name in sorted(path.glob("*.tif"), key=lambda file: (len(file.name), file.name)):
            with tifffile.TiffFile(name) as tiff:
                for page in tiff.pages:
                    assert page.photometric.name == ("RGB" if page.ndim == 3 else "MINISBLACK")
                    assert page.bitspersample == page.dtype.itemsize * 8
                    found.append((page.asarray(), json.loads(raw_metadata(tiff, page))))
    assert not caplog.records  # tifffile logs what it does not like
    return found


def test_tifffile_reads_equal_pages_and_finds_nothing_wrong(written, path, caplog):
    found = pages(path, caplog)
    assert len(found) == len(written)
    for (data, metadata), (_, expected, expected_metadata) in zip(found, written, strict=True):
        np.testing.assert_array_equal(data, expected, strict=True)
        assert metadata == expected_metadata


def test_rollover_makes_three_files_that_all_readers_read_across(path, frame, oracle, caplog):
    with exengine.open_storage("ndtiff", path, max_file_bytes=25_000) as storage:
        for where in grid(time=range(25)):
            storage.put(where, frame(where, (32, 32)), where)
    names = sorted(file.name for file in path.glob("*.tif"))
    assert names == ["NDTiffStack.tif", "NDTiffStack_1.tif", "NDTiffStack_2.tif"]
    assert all((path / name).stat().st_size <= 25_000 for name in names)
    assert [metadata["time"] for _, metadata in pages(path, caplog)] == list(range(25))
    assert np.array_equal(oracle(path).read_image(time=24), frame({"time": 24}, (32, 32)))


def test_frames_of_different_shape_and_dtype_are_read_by_all(path, frame, oracle, caplog):
    kinds = [
        ((8, 9), np.uint16),
        ((9, 8), np.uint8),
        ((4, 5, 3), np.uint8),
        ((8, 9), np.uint8),
        ((8, 9), np.uint16),
    ]
    expected = [frame({"n": n}, shape, dtype) for n, (shape, dtype) in enumerate(kinds)]
    with exengine.open_storage("ndtiff", path) as storage:
        for number, data in enumerate(expected):
            storage.put({"n": number}, data, None)
    for number, (data, page) in enumerate(zip(expected, pages(path, caplog), strict=True)):
        np.testing.assert_array_equal(oracle(path).read_image(n=number), data, strict=True)
        np.testing.assert_array_equal(page[0], data, strict=True)


SUMMARIES = {
    "none": None,
    "empty": {},
    "text": {"who": "me", "µ": "日本", "nested": {"a": [1, 2.5, None]}},
    "odd length": {"a": "b"},
    "1 MiB": {"long": "é" * 2**19, "list": list(range(10_000))},
}


@pytest.mark.parametrize("summary", SUMMARIES)
def test_summary_metadata_are_those_that_ndstorage_reads(summary, path, frame, oracle, opened, caplog):
    summary = SUMMARIES[summary]
    with exengine.open_storage("ndtiff", path, summary_metadata=summary) as storage:
        storage.put({"time": 0}, frame({"time": 0}), {"a": 1})
    assert oracle(path).summary_metadata == (summary or {})
    assert opened().summary_metadata == (summary or {})
    assert oracle(path).read_metadata(time=0) == {"a": 1}
    assert len(pages(path, caplog)) == 1


def test_a_dataset_without_frames_is_whole(path, opened):
    exengine.open_storage("ndtiff", path, summary_metadata={"a": 1}).__exit__(None, None, None)
    dataset = opened()
    assert (len(dataset), list(dataset), dataset.axes, dataset.status) == (0, [], {}, "complete")
    assert dataset.summary_metadata == {"a": 1}
    header = (path / "NDTiffStack.tif").read_bytes()
    assert struct.unpack("<2sHI", header[:8]) == (b"II", 42, 0)  # a TIFF file of no pages
    assert not (path / "NDTiff.index").read_bytes()


def test_an_incomplete_dataset_is_read_by_ndstorage_and_tifffile_too(path, frame, oracle, keys_of, caplog):
    storage = exengine.open_storage("ndtiff", path)
    for where in grid(time=range(3)):
        storage.put(where, frame(where), where)
    storage.close()
    dataset = oracle(path)
    assert keys_of(dataset) == grid(time=range(3))
    for where in keys_of(dataset):
        np.testing.assert_array_equal(dataset.read_image(**where), frame(where))
    with caplog.at_level(logging.CRITICAL, "tifffile"), tifffile.TiffFile(path / "NDTiffStack.tif") as tiff:
        assert len(tiff.pages) == 3
        np.testing.assert_array_equal(tiff.pages[2].asarray(), frame({"time": 2}))


def test_files_are_as_long_as_what_is_in_them(path, frame):
    with exengine.open_storage("ndtiff", path) as storage:
        storage.put({"time": 0}, frame({"time": 0}), None)
        assert (path / "NDTiffStack.tif").stat().st_blocks * 512 < 100_000
    assert (path / "NDTiffStack.tif").stat().st_size < 24 * 32 * 2 + 400


def test_checksums_stand_in_private_tags_as_documented(path, frame):
    import crc32c

    where = {"time": 3, "channel": "é", "a": -1}
    with exengine.open_storage("ndtiff", path) as storage:
        storage.put(where, frame(where), {"b": 1})
    coordinates = '{"a":-1,"channel":"é","time":3}'.encode()
    with tifffile.TiffFile(path / "NDTiffStack.tif") as tiff:
        page = tiff.pages[0]
        assert page.tags[65330].value == crc32c.crc32c(coordinates + page.asarray().tobytes())
        assert page.tags[65331].value == crc32c.crc32c(coordinates + raw_metadata(tiff, page))
