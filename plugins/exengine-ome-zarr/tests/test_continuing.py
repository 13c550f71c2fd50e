"""``OmeZarrStorage.resume``: a second writer continues the dataset of one that died.

``EXENGINE_LONG=1`` continues after each number of frames in each variant. Otherwise, every second case is tested.
"""

import itertools
import os

import numpy as np
import pytest

import exengine
from exengine.errors import (
    CoordinatesExistError,
    DatasetDamagedError,
    DatasetLockedError,
    OptionError,
    StorageFinishedError,
)
from exengine_ome_zarr import OmeZarrStorage
from exengine_ome_zarr.continued.writer import ContinuedWriter
from exengine_ome_zarr.frame_writer import FrameWriter
from exengine_ome_zarr.pyramid import halve

FRAMES = 24
VARIANTS = {
    "none": {"shard": 5},
    "one file per shard": {"shard": 1},
    "compressed": {"codec": "blosc-lz4", "shard": 5},
    "compressed in tiles": {"codec": "zstd", "shard": 4, "chunk": 16},
    "small frames in a chunk": {"frames_per_chunk": 4, "shard": 8},
    "pyramid": {"shard": 4, "pyramid": "mean"},
}
CASES = [*itertools.product(VARIANTS, [1, 6, 11, 12, 13, 23, 24])]
CHOSEN = CASES if os.environ.get("EXENGINE_LONG") else CASES[::2]


def frame(number, size=20):
    axes = {
        "position": ("left", "right")[number // 12],
        "time": number % 12 // 2,
        "channel": ("B", "A")[number % 2],
    }
    y, x = np.indices((size, size), np.uint16)
    return axes, y * 7 + x + number * 100, {"number": number, "text": "é" * number}


def write(storage, begin, end=FRAMES, size=20):
    for number in range(begin, end):
        storage.put(*frame(number, size))


def _place(number):
    """Return the indices of a frame that was put in the scattered order: channel "B" is put first."""
    return number % 12 // 2, number % 2


@pytest.fixture
def killed(tmp_path, copy_at_rest):
    """Return what leaves a dataset as after a kill: its first frames, and torn writes behind them."""

    def killed(frames, options, size=20):
        at = tmp_path / "data"
        storage = OmeZarrStorage(tmp_path / "alive", summary_metadata={"name": "demo"}, **options)
        write(storage, 0, frames, size)
        copy_at_rest(tmp_path / "alive", at)
        storage.finish()
        storage.close()
        with (at / ".exengine" / "frames.jsonl").open("ab") as file:
            file.write(b'{"coordinates": {"ti')
        with (at / ".exengine" / "layout.jsonl").open("ab") as file:
            file.write(b'12345678 {"label": ["t", ')
        for name in ("file-123", "part-99"):
            (at / ".exengine" / "open" / name).write_bytes(b"torn")
        return at

    return killed


@pytest.mark.once
@pytest.mark.parametrize(("variant", "frames"), CHOSEN)
def test_a_continued_dataset_has_every_frame_and_is_as_good_as_one_written_at_once(
    killed, variant, frames, by_zarr
):
    options = VARIANTS[variant]
    size = 600 if variant == "pyramid" and frames in (6, 13) else 20
    path = killed(frames, options, size)
    with OmeZarrStorage.resume(path, summary_metadata={"name": "demo"}, **options) as storage:
        assert len(storage) == frames
        with pytest.raises(CoordinatesExistError):
            storage.put(*frame(0, size))
        write(storage, frames, size=size)
        assert np.array_equal(storage.get_data(frame(0)[0]), frame(0, size)[1])
    report = exengine.verify(path)
    assert report.ok and report.status == "complete" and report.full_frames == FRAMES, report
    dataset = exengine.open_dataset(path)
    assert [dict(each) for each in dataset] == [frame(number)[0] for number in range(FRAMES)]
    for number in range(FRAMES):
        axes, pixels, metadata = frame(number, size)
        assert np.array_equal(dataset[axes], pixels) and dataset.get_metadata(axes) == metadata
        assert np.array_equal(by_zarr(path, f"{number // 12}/0")[number % 12 // 2, number % 2], pixels)
    assert dataset.summary_metadata == {"name": "demo"}
    assert list((path / ".exengine" / "open").iterdir()) == []
    assert len(dataset.resolution_levels) == (2 if size == 600 else 1)
    dataset.close()


@pytest.mark.once
@pytest.mark.parametrize("frames", [1, 13])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_dataset_that_was_finished_early_is_continued(tmp_path, variant, frames, by_zarr):
    """Frames that lie apart are missing, so that shards in the middle have room as well."""
    options, path = VARIANTS[variant], tmp_path / "data"
    size = 600 if variant == "pyramid" else 20
    scattered = sorted(range(FRAMES), key=lambda number: number * 7 % FRAMES)
    storage = OmeZarrStorage(path, summary_metadata={"name": "demo"}, **options)
    for number in scattered[:frames]:
        storage.put(*frame(number, size))
    storage.abort("out of reach")
    storage.close()
    with OmeZarrStorage.resume(path, summary_metadata={"name": "demo"}, **options) as storage:
        assert exengine.open_dataset(path).status == "incomplete"
        assert not exengine.verify(path).to_dict()["damaged"]
        for number in scattered[frames:]:
            storage.put(*frame(number, size))
            live = options.get("codec", "none") == "none"
            if live:
                pixels = by_zarr(path, f"{number // 12}/0")[_place(number)]
                assert np.array_equal(pixels, frame(number, size)[1])
    report = exengine.verify(path)
    assert report.ok and report.status == "complete" and report.full_frames == FRAMES, report
    with exengine.open_dataset(path) as dataset:
        for number in range(FRAMES):
            axes, pixels, metadata = frame(number, size)
            assert np.array_equal(dataset[axes], pixels) and dataset.get_metadata(axes) == metadata
            stored = by_zarr(path, f"{number // 12}/0")[_place(number)]
            assert np.array_equal(stored, pixels)
            if size == 600:
                assert np.array_equal(dataset.level(1)[axes], halve(pixels, "mean"))
    assert list((path / ".exengine" / "open").iterdir()) == []
    with pytest.raises(StorageFinishedError, match="is complete"):
        OmeZarrStorage.resume(path, summary_metadata={"name": "demo"}, **options)
    assert exengine.verify(path).ok


def test_a_dataset_that_is_killed_again_is_continued_again(killed, copy_at_rest, tmp_path):
    path = killed(3, {"codec": "blosc-lz4", "shard": 5})
    for frames in range(3, FRAMES, 3):
        storage = OmeZarrStorage.resume(path, summary_metadata={"name": "demo"}, codec="blosc-lz4", shard=5)
        assert len(storage) == frames
        write(storage, frames, frames + 3)
        copy = copy_at_rest(path, tmp_path / f"after-{frames}")
        storage.close()
        path = copy
    with OmeZarrStorage.resume(path, summary_metadata={"name": "demo"}, codec="blosc-lz4", shard=5):
        pass
    assert exengine.verify(path).ok and exengine.verify(path).frames == FRAMES


def test_a_writer_that_is_alive_is_not_interrupted(tmp_path):
    with OmeZarrStorage(tmp_path / "data") as storage:
        write(storage, 0, 3)
        with pytest.raises(DatasetLockedError, match="is being written"):
            OmeZarrStorage.resume(tmp_path / "data")
        write(storage, 3)


@pytest.mark.parametrize("options", [{"codec": "zstd"}, {"pyramid": "mean"}, {"summary_metadata": {"a": 1}}])
def test_other_options_are_refused_and_the_dataset_stays(killed, options):
    path = killed(5, {})
    given = {"summary_metadata": {"name": "demo"}}
    with pytest.raises(OptionError, match="was created with other options"):
        OmeZarrStorage.resume(path, **{**given, **options})
    assert exengine.open_dataset(path).status == "incomplete"
    with OmeZarrStorage.resume(path, **given) as storage:
        assert len(storage) == 5


def test_a_dataset_without_frames_is_refused(killed):
    with pytest.raises(DatasetDamagedError, match="has no frames"):
        OmeZarrStorage.resume(killed(0, {}), summary_metadata={"name": "demo"})


def test_a_continued_writer_has_the_state_of_a_new_one(killed, monkeypatch):
    """Both are set up by the same constructor and the same layout."""
    seen = []
    release = FrameWriter.release
    monkeypatch.setattr(FrameWriter, "release", lambda self: (seen.append(self), release(self)))
    with OmeZarrStorage.resume(killed(5, {}), summary_metadata={"name": "demo"}):
        pass
    new, continued = seen
    assert isinstance(continued, ContinuedWriter)
    assert vars(new).keys() == vars(continued).keys() - {"existing"}
