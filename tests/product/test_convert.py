"""``exengine convert``: the same frames in another format, also after kills, and never half a dataset.

``EXENGINE_LONG=1`` kills conversions 50 times, from two formats into each. Otherwise, they are killed three times, from
one format into one dataset of each kind: in a folder, compressed, in one file. Jobs are killed without compression.
"""

import errno
import json
import os
import random
import re
import shutil
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest

import exengine
from exengine.cli.main import main
from exengine.datasets.conversion import copy as copying
from exengine.errors import (
    DatasetAccessError,
    DatasetDamagedError,
    DatasetExistsError,
    DatasetLockedError,
    DatasetNotFoundError,
    OptionError,
    UnsupportedDataError,
    UnsupportedOperationError,
)

LONG = bool(os.environ.get("EXENGINE_LONG"))
KILLS = 50 if LONG else 3
_NAMED = os.environ.get("EXENGINE_TEST_DATA")
_BESIDE = Path(__file__).parents[3] / "shared" / "data"
DATA = Path(_NAMED) if _NAMED else _BESIDE if _BESIDE.is_dir() else None
BACKENDS = {
    "ndtiff": ("ndtiff", {}),
    "ndtiff in small files": ("ndtiff", {"max_file_bytes": 16384}),
    "ome-zarr": ("ome-zarr", {"shard": 7}),
    "ome-zarr compressed": ("ome-zarr", {"codec": "zstd", "shard": 5}),
    "hdf5": ("hdf5", {"compression": "gzip"}),
    "ome-tiff": ("ome-tiff", {"compression": "zlib"}),
}
SUFFIXES = {"hdf5": ".h5", "ome-tiff": ".ome.tif"}


def place(folder, name, backend):
    """Return the path of a dataset, with the suffix that the backend requires."""
    return folder / f"{name}{SUFFIXES.get(backend, '')}"


LEDGER = {"offered": 63, "stored": 63, "dropped": 0, "failed": 0, "balanced": True}
SUMMARY = {"name": "démo", "list": [1, 2.0, True, None], "deep": {"a": {"b": -0.5}}}


def frames():
    """Yield the frames of an acquisition with two positions and channels, z and time; some are missing."""
    number = 0
    for position in ("left", "right"):
        for time in range(0, 12, 2):
            for channel in ("FITC", "DAPI"):
                for z in (-1, 7, 3):
                    if (time + z) % 5 == 3 or (position == "right" and time == 10 and channel == "DAPI"):
                        continue
                    y, x = np.indices((11, 13), np.uint16)
                    axes = {"position": position, "time": time, "channel": channel, "z": z}
                    yield (
                        axes,
                        y * 17 + x + number * 300,
                        {"n": number, "float": 1.0, "text": "µ", "none": None},
                    )
                    number += 1


def write(path, backend, options, status="complete"):
    storage = exengine.open_storage(backend, path, summary_metadata=SUMMARY, **options)
    for frame in frames():
        storage.put(*frame)
    storage.annotate("ledger", {**LEDGER, "offered": len(storage), "stored": len(storage)})
    storage.annotate("config", {"storage.backend": backend})
    if status == "complete":
        storage.finish()
    elif status != "incomplete":
        storage.abort("stopped by the user", failed=status == "failed")
    storage.close()
    return path


def same(one, other, *, without=("conversion",)):
    """Compare all that two datasets contain, exactly."""
    with exengine.open_dataset(one) as a, exengine.open_dataset(other) as b:
        assert list(map(dict, a)) == list(map(dict, b))
        assert [{k: type(v) for k, v in each.items()} for each in a] == [
            {k: type(v) for k, v in each.items()} for each in b
        ]
        assert {axis: list(values) for axis, values in a.axes.items()} == dict(b.axes)
        for each in a:
            assert a[each].dtype == b[each].dtype and np.array_equal(a[each], b[each])
            assert json.dumps(a.get_metadata(each), sort_keys=True) == json.dumps(
                b.get_metadata(each), sort_keys=True
            )
        assert json.dumps(a.summary_metadata, sort_keys=True) == json.dumps(
            b.summary_metadata, sort_keys=True
        )
        assert {k: v for k, v in a.annotations.items() if k not in without} == {
            k: v for k, v in b.annotations.items() if k not in without
        }
        assert (a.status, a.status_reason) == (b.status, b.status_reason)
    return True


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "source", "ndtiff", {})


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out" / "result.ome.zarr"


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


# -- the same frames -----------------------------------------------------------------------------


@pytest.mark.parametrize(("here", "there"), list(combinations_with_replacement(BACKENDS, 2)))
def test_every_backend_converts_to_every_other_and_back_without_a_loss(here, there, tmp_path):
    backend, options = BACKENDS[here]
    to, with_options = BACKENDS[there]
    source, back = place(tmp_path, "source", backend), place(tmp_path, "back", backend)
    there = place(tmp_path, "there", to)
    write(source, backend, options)
    report = exengine.convert(source, there, backend=to, options=with_options)
    assert (report.outcome, report.backend, report.source_backend) == ("converted", to, backend)
    assert report.verified and report.frames == report.total == len(list(frames()))
    assert same(source, there) and exengine.verify(there).ok
    exengine.convert(there, back, backend=backend, options=options)
    assert same(source, back) and exengine.verify(back).ok
    with exengine.open_dataset(back) as dataset:
        assert dataset.annotations["conversion"]["source"] == str(there)
        assert dataset.annotations["conversion"]["earlier"]["source"] == str(source)
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {"back", "source", "there"}


@pytest.mark.parametrize("status", ["aborted", "failed"])
def test_the_status_and_its_reason_are_kept(status, tmp_path, target):
    source = write(tmp_path / "source", "ndtiff", {}, status)
    assert exengine.convert(source, target, backend="ome-zarr").status == status
    assert same(source, target)


def test_rgb_frames_keep_their_shape(tmp_path, target):
    with exengine.open_storage("ndtiff", tmp_path / "rgb") as storage:
        for time in range(3):
            storage.put({"time": time}, np.full((8, 9, 3), time, np.uint8), None)
    exengine.convert(tmp_path / "rgb", target, backend="ome-zarr")
    assert same(tmp_path / "rgb", target)
    exengine.convert(target, tmp_path / "back", backend="ndtiff")
    assert same(tmp_path / "rgb", tmp_path / "back")


@pytest.mark.parametrize("packed", [False, True])
def test_a_dataset_of_another_program_is_converted_with_its_channels_and_pixel_size(packed, tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr-python is not installed")
    group = zarr.open_group(tmp_path / "foreign.ome.zarr", mode="w", zarr_format=3)
    array = group.create_array("0", shape=(3, 2, 8, 9), chunks=(1, 1, 8, 9), dtype="uint16")
    array[:] = np.arange(3 * 2 * 8 * 9).reshape(3, 2, 8, 9)
    axes = [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    scale = [{"type": "scale", "scale": [2.0, 1.0, 0.5, 0.25]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}],
        "omero": {"channels": [{"label": "DAPI", "color": "0000FF"}, {"label": "FITC", "color": "00FF00"}]},
    }
    source = tmp_path / "foreign.ome.zarr"
    if packed:
        source = shutil.make_archive(str(tmp_path / "packed.ome.zarr"), "zip", source)
    exengine.convert(source, tmp_path / "there", backend="ndtiff")
    exengine.convert(tmp_path / "there", tmp_path / "back.ome.zarr", backend="ome-zarr")
    with exengine.open_dataset(tmp_path / "back.ome.zarr") as back:
        for time in range(3):
            for number, channel in enumerate(("DAPI", "FITC")):
                assert np.array_equal(back[{"time": time, "channel": channel}], array[time, number])
        plan = back.recorded_plan
        assert plan.pixel_size_um == (0.5, 0.25) and plan.interval_s == 2.0
        assert [each.color for each in plan.channels] == ["0000FF", "00FF00"]


@pytest.fixture
def example_data():
    if DATA is None:
        pytest.skip("no example datasets: EXENGINE_TEST_DATA is not set, and none are beside the checkout")
    return DATA / "ndtiff"


REAL = {
    "v3/ndtiff3.2_monochrome": {},
    "v3/12_bit_pycromanager_mda": {},
    "v3/ndtiffv3.0_test": {},
    "v3/ndtiffv3.0_stitched_test": {"extra_axes": "split"},
    "v3/ndtiff3.2_magellan_explore_rgb": {"extra_axes": "split"},
    "v2/ndtiffv2.0_test": {},
}


@pytest.mark.parametrize("backend", ["ome-zarr", "hdf5", "ome-tiff"])
@pytest.mark.parametrize("name", REAL)
def test_the_datasets_of_micro_manager_convert_to_another_format_and_back(
    name, backend, example_data, tmp_path
):
    there, back = place(tmp_path, "there", backend), tmp_path / "back"
    options = REAL[name] if backend == "ome-zarr" else {}
    exengine.convert(example_data / name, there, backend=backend, options=options)
    exengine.convert(there, back, backend="ndtiff")
    assert same(example_data / name, there) and same(example_data / name, back)
    assert exengine.verify(there).ok and exengine.verify(back).ok


def test_a_damaged_dataset_of_micro_manager_is_refused(example_data, tmp_path):
    with pytest.raises(DatasetDamagedError, match="run exengine recover"):
        exengine.convert(example_data / "v3/mm_mda_tcz_15", tmp_path / "there", backend="ome-zarr")
    assert list(tmp_path.iterdir()) == []


def test_pixel_size_channel_colors_and_stage_positions_survive_a_format_that_has_no_place_for_them(tmp_path):
    from exengine.base_classes import PlannedChannel, PlannedPosition, SourcePlan

    storage = exengine.open_storage("ome-zarr", tmp_path / "a")
    plan = SourcePlan(
        pixel_size_um=(0.5, 0.25),
        z_step_um=2.0,
        interval_s=30.0,
        channels=(PlannedChannel("DAPI", "0000FF"), PlannedChannel("FITC", "00FF00")),
        stage_positions=(PlannedPosition(name="left", x_um=10.0, y_um=-5.0), PlannedPosition(name="right")),
    )
    storage.expect(plan)
    for frame in frames():
        storage.put(*frame)
    storage.finish()
    storage.close()
    exengine.convert(tmp_path / "a", tmp_path / "b", backend="ndtiff")
    exengine.convert(tmp_path / "b", tmp_path / "c", backend="ome-zarr")
    with exengine.open_dataset(tmp_path / "a") as a, exengine.open_dataset(tmp_path / "c") as c:
        found, expected = c.recorded_plan, a.recorded_plan
        assert {each.name: each.color for each in found.channels} == {"DAPI": "0000FF", "FITC": "00FF00"}
        assert found.stage_positions == expected.stage_positions == plan.stage_positions
        assert (found.pixel_size_um, found.z_step_um, found.interval_s) == ((0.5, 0.25), 2.0, 30.0)
    exengine.convert(
        tmp_path / "b",
        tmp_path / "d",
        backend="ome-zarr",
        select={"z": [7, 3], "position": "right", "channel": "FITC"},
    )
    with exengine.open_dataset(tmp_path / "d") as d:
        found = d.recorded_plan
        assert found.z_step_um is None and [each.name for each in found.stage_positions] == ["right"]
        assert [each.name for each in found.channels] == ["FITC"]


# -- a part of the frames ------------------------------------------------------------------------


def test_positions_are_selected_and_axes_renamed(source, target):
    report = exengine.convert(
        source,
        target,
        backend="ome-zarr",
        select={"channel": "DAPI", "time": range(2, 9)},
        rename={"z": "depth", "channel": "z"},
        options={"extra_axes": "fold"},
    )
    wanted = [
        (frame, {{"z": "depth", "channel": "z"}.get(axis, axis): value for axis, value in frame[0].items()})
        for frame in frames()
        if frame[0]["channel"] == "DAPI" and frame[0]["time"] in (2, 4, 6, 8)
    ]
    assert report.frames == len(wanted) < report.total
    with exengine.open_dataset(target) as result:
        assert list(map(dict, result)) == [new for _, new in wanted]
        for (_, pixels, metadata), new in wanted:
            assert np.array_equal(result[new], pixels) and result.get_metadata(new) == metadata
        note = result.annotations["conversion"]
        assert "ledger" not in result.annotations and note["ledger"]["stored"] == report.total
        assert note["select"] == {"channel": ["DAPI"], "time": [2, 4, 6, 8]}
    assert exengine.verify(target).ok


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"chanel": "DAPI"}, "no axis 'chanel' .did you mean 'channel'"),
        ({"channel": "DAP"}, "'DAP' is not a position .did you mean 'DAPI'"),
        ({"channel": ["DAPI", "Cy5"]}, "'Cy5' is not a position"),
        ({"time": "20:30"}, "'20:30' contains no position"),
        ({"time": 1}, "1 is not a position"),
    ],
)
def test_a_selection_of_what_does_not_exist_is_refused(select, message, source, target):
    with pytest.raises(OptionError, match=message):
        exengine.convert(source, target, backend="ome-zarr", select=select)
    assert not target.parent.exists()


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"slice": "z"}, "no axis 'slice'"),
        ({"z": "time"}, "two axes would have the name 'time'"),
        ({"z": "_z"}, "cannot be an axis name"),
    ],
)
def test_a_name_that_no_axis_can_have_is_refused(rename, message, source, target):
    with pytest.raises(OptionError, match=message):
        exengine.convert(source, target, backend="ome-zarr", rename=rename)


# -- what is refused before anything is written ----------------------------------------------------


def test_a_damaged_frame_is_named_before_anything_is_written(source, target):
    tiff = source / "NDTiffStack.tif"
    content = bytearray(tiff.read_bytes())
    axes, pixels, _ = list(frames())[40]
    at = content.find(pixels.tobytes())
    content[at] ^= 1
    tiff.write_bytes(content)
    with pytest.raises(DatasetDamagedError) as refused:
        exengine.convert(source, target, backend="ome-zarr")
    assert f"1 of {len(list(frames()))} frames of {source} cannot be read, the first at {axes}" in str(
        refused.value
    )
    assert list(target.parent.iterdir()) == []


def test_frames_that_the_format_cannot_store_are_refused(tmp_path):
    with exengine.open_storage("ome-zarr", tmp_path / "floats") as storage:
        storage.put({"time": 0}, np.zeros((4, 4), np.float32), None)
    with pytest.raises(UnsupportedDataError, match="ndtiff cannot store the frames of .*floats.*float32"):
        exengine.convert(tmp_path / "floats", tmp_path / "result", backend="ndtiff")
    with exengine.open_storage("ndtiff", tmp_path / "sizes") as storage:
        storage.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
        storage.put({"time": 1}, np.zeros((4, 5), np.uint16), None)
    with pytest.raises(UnsupportedDataError, match="ome-zarr cannot store the frames"):
        exengine.convert(tmp_path / "sizes", tmp_path / "result", backend="ome-zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["floats", "sizes"]


def test_a_source_that_is_not_finished_is_refused(tmp_path, target):
    storage = exengine.open_storage("ndtiff", tmp_path / "live")
    storage.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
    with pytest.raises(DatasetLockedError, match="is being written"):
        exengine.convert(tmp_path / "live", target, backend="ome-zarr")
    storage.close()
    with pytest.raises(DatasetDamagedError, match="is incomplete.*run exengine recover"):
        exengine.convert(tmp_path / "live", target, backend="ome-zarr")


def test_a_result_in_memory_at_a_url_or_in_the_source_is_refused(source, tmp_path):
    with pytest.raises(UnsupportedOperationError, match="ndram keeps frames in memory"):
        exengine.convert(source, tmp_path / "x", backend="ndram")
    with pytest.raises(UnsupportedOperationError, match="is a URL"):
        exengine.convert(source, "s3://bucket/x.ome.zarr", backend="ome-zarr")
    for place in (source, source / "inside", source.parent):
        with pytest.raises(OptionError, match="must not be inside"):
            exengine.convert(source, place, backend="ome-zarr", if_exists="overwrite")


# -- the path of the result ------------------------------------------------------------------------


def test_the_same_command_again_says_that_it_is_done(source, target):
    exengine.convert(source, target, backend="ome-zarr")
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert exengine.convert(source, target, backend="ome-zarr").outcome == "already converted"
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
    with pytest.raises(DatasetExistsError, match="already exists"):
        exengine.convert(source, target, backend="ome-zarr", options={"codec": "zstd"})


def test_an_existing_path_is_refused_numbered_or_overwritten(source, target, tmp_path):
    old = exengine.open_storage("ndtiff", target)
    old.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
    old.finish()
    old.close()
    with pytest.raises(DatasetExistsError):
        exengine.convert(source, target, backend="ome-zarr")
    report = exengine.convert(source, target, backend="ome-zarr", if_exists="number")
    assert report.path == str(target.with_name("result_1.ome.zarr")) and same(source, report.path)
    assert len(exengine.open_dataset(target)) == 1
    assert exengine.convert(source, target, backend="ome-zarr", if_exists="overwrite").path == str(target)
    assert same(source, target)
    assert sorted(path.name for path in target.parent.iterdir()) == ["result.ome.zarr", "result_1.ome.zarr"]


def test_overwrite_refuses_what_is_not_a_dataset_before_it_converts(source, target, monkeypatch):
    target.mkdir(parents=True)
    (target / "thesis.doc").write_text("precious")
    with pytest.raises(DatasetExistsError, match="was not deleted"):
        exengine.convert(source, target, backend="ome-zarr", if_exists="overwrite", on_progress=pytest.fail)
    assert (target / "thesis.doc").read_text() == "precious"


def test_a_path_that_is_taken_during_the_conversion_is_not_touched(source, target):
    def take(phase, done, total):
        if phase == "compared":
            target.mkdir(exist_ok=True)
            (target / "other").write_text("")

    with pytest.raises(DatasetExistsError, match="was created by another process during the conversion"):
        exengine.convert(source, target, backend="ome-zarr", on_progress=take)
    assert [path.name for path in target.iterdir()] == ["other"]
    shutil.rmtree(target)
    report = exengine.convert(source, target, backend="ome-zarr")  # only the rename was left to do
    assert report.resumed_at == report.frames and same(source, target)


# -- interruptions ---------------------------------------------------------------------------------


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(copying, "_MOST_FRAMES", 3)
    monkeypatch.setattr(copying, "_SYNC_S", 0.0)
    monkeypatch.setattr(copying, "_POLL_S", 0.001)


# Forks for each conversion, and has no threads of its own that a fork would lack.
KILLED_CONVERTER = """
import json, os, sys
import exengine
from exengine.datasets.conversion import convert, copy
from exengine.testing import killed_at_call

copy._MOST_FRAMES, copy._SYNC_S, copy._POLL_S = 3, 0.0, 0.001
backend, options, source, target = json.loads(sys.argv[1])
exengine.open_dataset(source).close()
warm = os.path.join(os.path.dirname(target), "warm-" + os.path.basename(target))
exengine.open_storage(backend, warm, **options).close()
for line in sys.stdin:
    number, when = line.split()
    run = lambda: exengine.convert(source, target, backend=backend, options=options)
    print(json.dumps(killed_at_call(int(number), when, run)), flush=True)
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("there", BACKENDS if LONG else ["ndtiff", "ome-zarr compressed", "hdf5"])
@pytest.mark.parametrize("here", ["ndtiff", "ome-zarr"] if LONG else ["ndtiff"])
def test_a_conversion_that_is_killed_again_and_again_comes_to_the_same_result(
    here, there, tmp_path, start_python
):
    source = write(tmp_path / "source", *BACKENDS[here])
    backend, options = BACKENDS[there]
    target, whole = place(tmp_path / "out", "result", backend), place(tmp_path, "whole", backend)
    exengine.convert(source, whole, backend=backend, options=options)
    converter = start_python(KILLED_CONVERTER, json.dumps([backend, options, str(source), str(target)]))

    def is_killed(number, when="before"):
        converter.stdin.write(f"{number} {when}\n")
        converter.stdin.flush()
        return json.loads(converter.stdout.readline())

    chance = random.Random(f"{here} {there}")
    kills = progress = 0
    while kills < KILLS:
        latest = 120  # grows, because the end of a conversion is not divided into steps
        while is_killed(chance.randrange(40, latest), chance.choice(("before", "after"))):
            kills += 1
            latest += 40
            progress += (target.parent / f".{target.name}.converting" / "progress.json").exists()
            assert not target.exists() or exengine.verify(target).ok  # killed after it was published
        assert same(source, target) and same(whole, target) and exengine.verify(target).ok
        if kills < KILLS and backend in SUFFIXES:
            for file in target.parent.glob("result*"):
                file.unlink()
        elif kills < KILLS:
            shutil.rmtree(target)
    assert progress
    left = {path.name for path in target.parent.iterdir() if not path.name.startswith("warm-")}
    assert left - {f"{target.name}.exengine.json"} == {target.name}


def test_an_interrupt_stops_after_whole_frames_and_the_next_run_continues(source, target, small_batches):
    def interrupt(phase, done, total):
        if phase == "converted" and done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exengine.convert(source, target, backend="ome-zarr", on_progress=interrupt)
    assert [path.name for path in target.parent.iterdir()] == [".result.ome.zarr.converting"]
    report = exengine.convert(source, target, backend="ome-zarr")
    assert report.resumed_at >= 10 and same(source, target)


def interrupted(source, target, **settings):
    def stop(phase, done, total):
        if phase == "converted" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exengine.convert(source, target, backend="ome-zarr", on_progress=stop, **settings)


def test_a_path_with_an_unfinished_conversion_says_so(source, target, small_batches):
    interrupted(source, target)
    with pytest.raises(DatasetNotFoundError, match="a conversion to this path is unfinished"):
        exengine.open_dataset(target)


def test_a_full_disk_is_reported_and_the_next_run_starts_again(source, target, small_batches, monkeypatch):
    from exengine_ome_zarr.frame_writer import FrameWriter

    write_frames, written = FrameWriter.write, []

    def fill_the_disk(self, number, batch):
        if number > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(number)
        return write_frames(self, number, batch)

    with monkeypatch.context() as patch:
        patch.setattr(FrameWriter, "write", fill_the_disk)
        with pytest.raises(
            DatasetAccessError, match="writing the result failed after .* No space left"
        ) as failed:
            exengine.convert(source, target, backend="ome-zarr")
    assert failed.value.errno == errno.ENOSPC and written and not target.exists()
    assert exengine.convert(source, target, backend="ome-zarr").resumed_at == 0
    assert same(source, target) and list(target.parent.iterdir()) == [target]


def test_progress_of_other_settings_is_refused_or_discarded(source, target, small_batches):
    interrupted(source, target)
    with pytest.raises(
        DatasetExistsError, match=r"unfinished conversion with different settings: options \{\}"
    ):
        exengine.convert(source, target, backend="ome-zarr", options={"codec": "zstd"})
    with pytest.raises(DatasetExistsError, match='backend "ome-zarr"'):
        exengine.convert(source, target, backend="ndtiff")
    report = exengine.convert(source, target, backend="ndtiff", restart=True)
    assert report.resumed_at == 0 and same(source, target)


def test_progress_from_a_source_that_has_changed_is_refused(source, target, small_batches):
    interrupted(source, target)
    os.utime(source / "NDTiffStack.tif")
    with pytest.raises(DatasetExistsError, match="the source has changed since then"):
        exengine.convert(source, target, backend="ome-zarr")
    assert exengine.convert(source, target, backend="ome-zarr", restart=True).resumed_at == 0


def test_progress_that_power_loss_has_damaged_is_not_used(source, target, small_batches, monkeypatch):
    monkeypatch.setattr(copying, "_SYNC_S", 1e9)  # nothing is known to be on the disk
    interrupted(source, target)
    (shard,) = (target.parent / ".result.ome.zarr.converting").rglob("0/0/c/0/0/0/0/0")
    size = shard.stat().st_size
    os.truncate(shard, 0)
    os.truncate(shard, size)
    report = exengine.convert(source, target, backend="ome-zarr")
    assert report.resumed_at == 0 and same(source, target)


def test_something_else_in_the_folder_of_the_progress_is_kept(source, target, small_batches):
    interrupted(source, target)
    other = target.parent / ".result.ome.zarr.converting" / "thesis.doc"
    other.write_text("precious")
    with pytest.raises(DatasetExistsError, match=r"contains 'thesis\.doc'"):
        exengine.convert(source, target, backend="ome-zarr", restart=True)
    assert other.read_text() == "precious"


def test_a_kill_between_the_last_two_steps_leaves_nothing_behind(source, target, monkeypatch):
    from exengine.datasets.workshop import Workshop

    with monkeypatch.context() as patch:
        patch.setattr(Workshop, "leave", lambda self, keep=False: os.close(self._lock))
        exengine.convert(source, target, backend="ome-zarr")
    assert len(list(target.parent.iterdir())) == 2
    assert exengine.convert(source, target, backend="ome-zarr").outcome == "already converted"
    assert list(target.parent.iterdir()) == [target]


def test_two_conversions_to_one_path_do_not_meet(source, target):
    def again(phase, done, total):
        with pytest.raises(DatasetLockedError, match="another conversion is active"):
            exengine.convert(source, target, backend="ome-zarr")

    exengine.convert(source, target, backend="ome-zarr", on_progress=again)
    assert same(source, target)


# -- losses ----------------------------------------------------------------------------------------


def stored(path, dataset):
    """Write a dataset of the backend hdf5, which accepts any layout and any axes."""
    with exengine.open_storage("hdf5", path, summary_metadata=SUMMARY) as storage:
        for number, (axes, pixels) in enumerate(dataset):
            storage.put(axes, pixels, {"n": number})
        storage.annotate("ledger", LEDGER)
    return path


def small(dtype=np.uint16, width=6, value=1):
    return np.full((5, width), value, dtype)


LOSSES = {
    "a dtype that ndtiff does not have": (
        "ndtiff",
        [({"time": time}, small(np.float32 if time % 3 == 1 else np.uint16)) for time in range(6)],
        [0, 2, 3, 5],
        "2 of 6 frames, the first at {'time': 1}: NDTiffStorage accepts only dtype uint8 or uint16",
    ),
    "a dtype that ome-zarr does not have": (
        "ome-zarr",
        [({"time": time}, small(np.complex128 if time == 1 else np.uint16)) for time in range(3)],
        [0, 2],
        "1 of 3 frames, the first at {'time': 1}: OmeZarrStorage accepts only dtype",
    ),
    "other axes": (
        "ome-zarr",
        [({"time": time} if time != 2 else {"z": 2}, small()) for time in range(4)],
        [0, 1, 3],
        "1 of 4 frames, the first at {'z': 2}: OmeZarrStorage accepts only frames with the same axes",
    ),
    "names and numbers on one axis": (
        "ndtiff",
        [({"time": time if time < 3 else "end"}, small()) for time in range(4)],
        [0, 1, 2],
        "1 of 4 frames, the first at {'time': 'end'}: NDTiff needs positions of one type",
    ),
    "other shapes, of which the most frequent is kept": (
        "ome-zarr",
        [({"time": time}, small(width=6 if time < 2 else 7)) for time in range(5)],
        [2, 3, 4],
        "2 of 5 frames, the first at {'time': 0}: OmeZarrStorage requires all frames to have the same shape",
    ),
}


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_is_refused_unless_it_is_allowed_and_is_then_listed_and_recorded(case, tmp_path, capsys):
    backend, dataset, kept, message = LOSSES[case]
    source, target = stored(tmp_path / "source.h5", dataset), tmp_path / "out" / "result"
    code, out, err = run(capsys, "convert", source, target, "--backend", backend)
    assert (code, out) == (1, "") and f"{backend} cannot store" in err and "--allow-loss" in err
    assert message.rpartition("}: ")[2] in err and "Nothing was written" in err
    assert not target.parent.exists() or list(target.parent.iterdir()) == []
    command = ("convert", source, target, "--backend", backend, "--allow-loss")
    code, out, err = run(capsys, *command)
    assert (code, err) == (0, "") and f"lost     {message}" in out and f"{len(kept)} of {len(dataset)}" in out
    report = json.loads(run(capsys, *command, "--json")[1])  # the same command again
    assert report["outcome"] == "already converted" and report["frames"] == len(kept)
    assert [loss[: len(message)] for loss in report["losses"]] == [message]
    with exengine.open_dataset(target) as result:
        assert list(map(dict, result)) == [dataset[number][0] for number in kept]
        for number in kept:
            axes, pixels = dataset[number]
            assert result[axes].dtype == pixels.dtype and np.array_equal(result[axes], pixels)
            assert result.get_metadata(axes) == {"n": number}
        note = result.annotations["conversion"]
        assert [loss["frames"] for loss in note["losses"]] == [len(dataset) - len(kept)]
        assert note["ledger"] == LEDGER and "ledger" not in result.annotations
    assert exengine.verify(target).ok


def test_the_refusal_counts_the_frames_if_the_first_one_could_be_stored(tmp_path):
    source = stored(tmp_path / "source.h5", LOSSES["a dtype that ndtiff does not have"][1])
    with pytest.raises(
        UnsupportedDataError, match="ndtiff cannot store .*source.h5: 2 of 6 frames, .*float32"
    ):
        exengine.convert(source, tmp_path / "result", backend="ndtiff")


def test_losses_are_refused_if_no_frame_would_be_left(tmp_path):
    source = stored(tmp_path / "source.h5", [({"time": 0}, small(np.float32))])
    with pytest.raises(
        UnsupportedDataError, match="cannot store any frame of .*float32.*Nothing was written"
    ):
        exengine.convert(source, tmp_path / "result", backend="ndtiff", allow_loss=True)
    assert {path.name for path in tmp_path.iterdir()} == {"source.h5", "source.h5.exengine.json"}


def test_an_allowed_loss_that_does_not_occur_changes_nothing(source, target):
    report = exengine.convert(source, target, backend="ome-zarr", allow_loss=True)
    assert report.losses == [] and report.frames == report.total and same(source, target)


def test_a_conversion_with_losses_continues_after_an_interrupt(tmp_path, small_batches):
    dataset = [({"time": time}, small(np.float32 if time % 3 == 1 else np.uint16)) for time in range(40)]
    source, target = stored(tmp_path / "source.h5", dataset), tmp_path / "result"

    def stop(phase, done, total):
        if phase == "converted" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exengine.convert(source, target, backend="ndtiff", allow_loss=True, on_progress=stop)
    with pytest.raises(DatasetExistsError, match="different settings: allow_loss true"):
        exengine.convert(source, target, backend="ndtiff")
    report = exengine.convert(source, target, backend="ndtiff", allow_loss=True)
    assert report.resumed_at and report.verified and report.frames == 27
    assert report.losses[0].startswith("13 of 40 frames")


def test_metadata_that_the_backend_does_not_store_are_a_loss(source, tmp_path, monkeypatch):
    from exengine.datasets.conversion.losses import TargetLimits

    monkeypatch.setattr(TargetLimits, "stores_metadata", False)
    with pytest.raises(UnsupportedDataError, match="does not store metadata.*--allow-loss"):
        exengine.convert(source, tmp_path / "result", backend="ndtiff")
    report = exengine.convert(source, tmp_path / "result", backend="ndtiff", allow_loss=True)
    assert report.losses == [
        f"the metadata of {report.frames} of {report.total} frames: the backend does not store it"
    ]
    with exengine.open_dataset(tmp_path / "result") as result, exengine.open_dataset(source) as whole:
        assert all(np.array_equal(result[each], whole[each]) for each in whole)
        assert result.get_metadata(next(iter(result))) is None
        assert result.annotations["conversion"]["losses"][0]["what"] == "metadata"


# -- without verification --------------------------------------------------------------------------


def test_without_verification_each_frame_is_read_once(source, target, monkeypatch):
    from exengine_ndstorage.ndtiff.reader import NDTiffReader

    read_frame, count = NDTiffReader.read_frame, []
    monkeypatch.setattr(
        NDTiffReader, "read_frame", lambda self, number: count.append(number) or read_frame(self, number)
    )
    report = exengine.convert(source, target, backend="ome-zarr", verify=False)
    assert not report.verified and len(count) == report.frames + 1  # the layout of the first one
    assert report.pixel_bytes == report.frames * 11 * 13 * 2
    assert same(source, target) and exengine.verify(target).ok


def test_without_verification_a_damaged_frame_is_named_and_nothing_is_published(
    source, target, small_batches
):
    tiff = source / "NDTiffStack.tif"
    content = bytearray(tiff.read_bytes())
    axes, pixels, _ = list(frames())[40]
    content[content.find(pixels.tobytes())] ^= 1
    tiff.write_bytes(content)
    with pytest.raises(DatasetDamagedError) as refused:
        exengine.convert(source, target, backend="ome-zarr", verify=False)
    assert f"frames of {source} cannot be read, the first at {axes}" in str(refused.value)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
def test_without_verification_other_layouts_are_converted_or_refused(dtype, tmp_path, small_batches):
    dataset = [({"time": time}, small(dtype if time == 9 else np.uint16, 6 + time % 2)) for time in range(12)]
    source = stored(tmp_path / "source.h5", dataset)
    exengine.convert(source, tmp_path / "whole", backend="ndtiff", verify=False)
    assert same(source, tmp_path / "whole")
    with pytest.raises(UnsupportedDataError, match="[56] of 12 frames, the first at {'time': 1}"):
        exengine.convert(source, tmp_path / "out" / "result", backend="ome-zarr", verify=False)
    assert list((tmp_path / "out").iterdir()) == []
    report = exengine.convert(
        source, tmp_path / "out" / "result", backend="ome-zarr", verify=False, allow_loss=True
    )
    assert report.frames == 6 and report.losses


def test_without_verification_an_interrupted_conversion_continues(source, target, small_batches, monkeypatch):
    monkeypatch.setattr(copying, "_SYNC_S", 1e9)  # all frames are compared
    interrupted(source, target, verify=False)
    report = exengine.convert(source, target, backend="ome-zarr", verify=False)
    assert report.resumed_at and same(source, target)
    shutil.rmtree(target)
    interrupted(source, target, verify=False)
    (shard,) = (target.parent / ".result.ome.zarr.converting").rglob("0/0/c/0/0/0/0/0")
    size = shard.stat().st_size
    os.truncate(shard, 0)
    os.truncate(shard, size)
    report = exengine.convert(source, target, backend="ome-zarr")
    assert report.verified and report.resumed_at == 0 and same(source, target)


# -- the comparison --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "changed", "message"),
    [
        (30, lambda c, p, m: (c, p + 1, m), "the pixels at .* differ"),
        (
            30,
            lambda c, p, m: (c, p, {**m, "float": 1}),
            "the metadata at .* differ: float is 1 instead of 1.0",
        ),
        (62, lambda c, p, m: (c.replace(time=99), p, m), "cannot be compared"),
    ],
)
def test_a_result_that_differs_is_not_published(number, changed, message, source, target, monkeypatch):
    put_many = exengine.DataStorage.put_many
    from exengine_ome_zarr import OmeZarrStorage

    def put_wrongly(self, batch):
        batch = [changed(*each) if each[2]["n"] == number else each for each in batch]
        put_many(self, batch)

    if number == 62:
        number = len(list(frames())) - 1
    with monkeypatch.context() as patch:
        patch.setattr(OmeZarrStorage, "put_many", put_wrongly)
        with pytest.raises(DatasetDamagedError, match=f"so it was not published: {message}|{message}"):
            exengine.convert(source, target, backend="ome-zarr")
        assert list(target.parent.iterdir()) == []
        assert not exengine.convert(source, target, backend="ome-zarr", verify=False).verified
    shutil.rmtree(target)
    exengine.convert(source, target, backend="ome-zarr")
    assert same(source, target)


# -- memory ----------------------------------------------------------------------------------------

CONVERTER = """
import sys
import numpy as np
import exengine
from exengine.testing import forget_peak, peak_mib
source, target = sys.argv[1:]
with exengine.open_storage("ndtiff", source + "-small") as storage:
    storage.put({"time": 0}, np.zeros((1024, 1024), np.uint16), None)
exengine.convert(source + "-small", target + "-small", backend="ome-zarr")  # imports everything
before = forget_peak()
exengine.convert(source, target, backend="ome-zarr")
print(peak_mib() - before)
"""


def test_memory_is_bounded(tmp_path, run_python):
    with exengine.open_storage("ndtiff", tmp_path / "source") as storage:
        for time in range(256):
            storage.put({"time": time}, np.full((1024, 1024), time, np.uint16), None)
    used_mib = float(run_python(CONVERTER, tmp_path / "source", tmp_path / "target").stdout)
    assert used_mib < 200  # of 512


# -- the command -----------------------------------------------------------------------------------


def test_the_command_converts_and_says_what_it_did(source, target, capsys):
    code, out, err = run(capsys, "convert", source, target, "--backend", "ome-zarr", "--option", "codec=zstd")
    assert (code, err) == (0, "")
    for text in (f"converted: {target}", "ome-zarr (from ndtiff)", "equal to the source", "complete"):
        assert text in out
    code, out, err = run(
        capsys, "convert", target, source.with_name("back"), "--backend", "ndtiff", "--json",
        "--select", "channel=DAPI", "time=0:5", "--rename", "position=place",
    )  # fmt: skip
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["outcome"] == "converted" and report["verified"] and 0 < report["frames"] < report["total"]
    with exengine.open_dataset(source.with_name("back")) as back:
        assert set(back.axes) == {"place", "time", "channel", "z"} and back.axes["time"] == [0, 2, 4]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--backend", "ome-zar"], 2, "did you mean 'ome-zarr'"),
        (["--backend", "ome-zarr", "--option", "codex=zstd"], 2, "did you mean 'codec'"),
        (["--backend", "ome-zarr", "--option", "codec"], 2, "--option must have the form NAME=VALUE"),
        (["--backend", "ome-zarr", "--select", "z"], 2, "--select must have the form NAME=VALUE"),
        (["--backend", "ome-zarr", "--select", "z=3", "z=7"], 2, "contains the name 'z' twice"),
        (["--backend", "ome-zarr", "--select", "w=3"], 2, "no axis 'w'"),
        (["--backend", "ndram"], 1, "keeps frames in memory"),
        ([], 2, "--backend"),
    ],
)
def test_wrong_use_gives_2_and_writes_nothing(arguments, code, message, source, target, capsys):
    found, out, err = run(capsys, "convert", source, target, *arguments)
    assert (found, out) == (code, "") and message in err and "Traceback" not in err
    assert not target.parent.exists()


def test_large_frames_are_checked_and_compared_in_order_by_several_threads(tmp_path, monkeypatch):
    from exengine.datasets.conversion import source as checking

    monkeypatch.setattr(checking.os, "cpu_count", lambda: 4)
    with exengine.open_storage("ndtiff", tmp_path / "large") as storage:
        for time in range(30):
            storage.put({"time": time}, np.full((512, 512 + time % 3), time, np.uint16), {"n": time})
    seen = []
    report = exengine.convert(
        tmp_path / "large",
        tmp_path / "copy",
        backend="ndtiff",
        on_progress=lambda phase, done, total: seen.append((phase, done)),
    )
    assert report.verified and same(tmp_path / "large", tmp_path / "copy")
    for phase in ("checked", "compared"):
        assert [done for each, done in seen if each == phase] == list(range(1, 31))
    tiff = tmp_path / "large" / "NDTiffStack.tif"
    content = tiff.read_bytes()
    at = content.find(np.full(1000, 17, np.uint16).tobytes())
    tiff.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    with pytest.raises(DatasetDamagedError, match=r"1 of 30 frames .* the first at \{'time': 17\}"):
        exengine.convert(tmp_path / "large", tmp_path / "other", backend="ndtiff")


# -- several datasets ------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """Return a folder with three datasets, one of which ndtiff cannot store, and other files."""
    folder = tmp_path / "data"
    write(folder / "one", "ndtiff", {})
    write(folder / "two.ome.zarr", "ome-zarr", {})
    stored(folder / "three.h5", [({"time": 0}, small(np.float32))])
    (folder / "notes.txt").write_text("precious")
    (folder / "empty").mkdir()
    return folder


def test_all_datasets_of_a_folder_are_converted_with_one_line_each(data, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("convert", f"{data}/*", out, "--backend", "ome-zarr")
    code, text, err = run(capsys, *command)
    assert (code, err) == (0, "")
    names = [line.partition(" (")[0] for line in text.splitlines()]
    results = [out / f"{name}.ome.zarr" for name in ("one", "three", "two")]
    assert names == [*(f"converted: {path}" for path in results), text.splitlines()[-1]]
    assert names[-1].startswith("3 converted, 0 failed, 3 other paths skipped")
    assert same(data / "one", results[0]) and same(data / "two.ome.zarr", results[2])
    code, text, err = run(capsys, *command, "--json")
    again = json.loads(text)
    assert code == 0 and [each["outcome"] for each in again["done"]] == ["already converted"] * 3
    assert sorted(os.path.basename(path) for path in again["skipped"]) == [
        "empty", "notes.txt", "three.h5.exengine.json"
    ]  # fmt: skip


def test_one_dataset_that_fails_does_not_stop_the_others_and_gives_1(data, tmp_path, capsys):
    code, text, _ = run(capsys, "convert", f"{data}/*", tmp_path / "out", "--backend", "ndtiff")
    assert code == 1 and "2 converted, 1 failed" in text
    assert f"failed: {data}/three.h5: ndtiff cannot store the frames" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]
    assert same(data / "one", tmp_path / "out" / "one")


@pytest.mark.parametrize(
    ("pattern", "arguments", "message"),
    [
        ("x*", [], "no dataset matches"),
        ("o*", ["--option", "codex=zstd"], "did you mean 'codec'"),
        ("[ot]*", [], "would both be converted to"),
    ],
)
def test_a_pattern_that_cannot_be_converted_as_a_whole_is_refused(
    pattern, arguments, message, data, tmp_path, capsys
):
    write(data / "two", "ndtiff", {})
    out = tmp_path / "out"
    code, _, err = run(capsys, "convert", f"{data}/{pattern}", out, "--backend", "ome-zarr", *arguments)
    assert code in (1, 2) and message in err and not out.exists()


def test_a_path_with_the_characters_of_a_pattern_is_a_path_if_it_exists(data, tmp_path, capsys):
    os.rename(data / "one", data / "[one]")
    code, text, _ = run(capsys, "convert", data / "[one]", tmp_path / "out", "--backend", "ome-zarr")
    assert code == 0 and text.startswith(f"converted: {tmp_path}/out\n")


# -- job arrays ------------------------------------------------------------------------------------


@pytest.fixture
def seven(tmp_path):
    """Return a folder with seven small datasets of three backends."""
    for number in range(7):
        backend = ("ndtiff", "ome-zarr", "hdf5")[number % 3]
        path = place(tmp_path / "data", f"day{number}", backend)
        with exengine.open_storage(backend, path) as storage:
            for time in range(3):
                storage.put({"time": time}, small(value=10 * number + time), {"n": time})
    return tmp_path / "data"


def contents(folder):
    """Return all that the datasets in a folder contain."""
    found = {}
    for path in sorted(folder.iterdir()):
        with exengine.open_dataset(path) as dataset:
            frames = [(dict(axes), dataset[axes].tobytes(), dataset.get_metadata(axes)) for axes in dataset]
            found[path.name] = frames, dataset.annotations, dataset.status
    return found


@pytest.mark.parametrize("backend", ["ndtiff", "ome-zarr"])
def test_the_jobs_of_an_array_convert_each_dataset_once_in_any_order(backend, seven, tmp_path, capsys):
    command = ("convert", f"{seven}/*", tmp_path / "out", "--backend", backend)
    counts = []
    for units in ("3/3", "1/3", "1/3", "2/3"):
        code, text, err = run(capsys, *command, "--units", units)
        assert (code, err) == (0, "")
        lines = text.splitlines()
        counts.append((sum(line.startswith("converted: ") for line in lines), lines[-1].split(", ")[-1]))
    five, four = (f"{count} left to other jobs" for count in (5, 4))
    assert counts == [(2, five), (3, four), (0, four), (2, five)]
    assert run(capsys, "convert", f"{seven}/*", tmp_path / "alone", "--backend", backend)[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]
    _, text, _ = run(capsys, *command, "--json")
    assert [each["outcome"] for each in json.loads(text)["done"]] == ["already converted"] * 7


def test_a_job_without_datasets_has_nothing_to_do(seven, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("convert", f"{seven}/*", out, "--backend", "ndtiff", "--units", "8/9")
    code, text, err = run(capsys, *command)
    assert (code, err) == (0, "") and text.startswith("0 converted, 0 failed") and not out.exists()
    code, text, _ = run(capsys, *command, "--json")
    assert code == 0 and json.loads(text)["others"] == 7 and json.loads(text)["done"] == []


KILLED_JOB = """
import sys
from exengine.cli.main import main
from exengine.datasets.conversion import copy

copy._MOST_FRAMES = 1
sys.exit(main(sys.argv[1:]))
"""


def test_a_job_that_is_killed_and_started_again_comes_to_the_same_result(
    data, tmp_path, capsys, start_python
):
    os.remove(data / "three.h5")
    command = ("convert", f"{data}/*", tmp_path / "out", "--backend", "ndtiff")
    for units in ("1/2", "2/2"):
        job = start_python(KILLED_JOB, *command, "--units", units)
        while not list(tmp_path.glob("out/.*.converting")) and job.poll() is None:
            pass
        job.kill()
        job.wait()
    left = list(tmp_path.glob("out/.*.converting"))
    assert left
    for units in ("2/2", "1/2"):
        assert run(capsys, *command, "--units", units)[0] == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["one", "two"]
    assert same(data / "one", tmp_path / "out" / "one")
    assert same(data / "two.ome.zarr", tmp_path / "out" / "two")


@pytest.mark.parametrize("units", ["0/3", "4/3", "3", "1/0", "a/b", "1/2/3", "-1/2", "1.0/2", "\u0662/3"])
def test_units_of_another_form_are_refused(units, seven, tmp_path, capsys):
    out = tmp_path / "out"
    code, _, err = run(capsys, "convert", f"{seven}/*", out, "--backend", "ndtiff", f"--units={units}")
    assert code == 2 and "units must have the form i/n" in err and not out.exists()


def test_a_job_array_refuses_results_that_later_jobs_would_count_as_sources(seven, capsys):
    before = sorted(os.listdir(seven))
    for pattern, out in ((f"{seven}/*", seven), (f"{seven.parent}/*/*", seven.parent / "out")):
        code, _, err = run(capsys, "convert", pattern, out, "--backend", "ome-tiff", "--units", "1/2")
        assert code == 2 and "would match" in err and "choose another folder" in err
    assert sorted(os.listdir(seven)) == before and not (seven.parent / "out").exists()


# -- a job array for one dataset -------------------------------------------------------------------

SHARED = [BACKENDS["ome-zarr"][1], BACKENDS["ome-zarr compressed"][1]]


@pytest.fixture(params=SHARED, ids=["plain", "compressed"])
def shared(request, source, target):
    """Return a function that runs one job of several that convert the source together."""

    def convert_share(units, **settings):
        settings = {"backend": "ome-zarr", "options": request.param, **settings}
        return exengine.convert(source, target, units=units, **settings)

    convert_share.options = request.param
    return convert_share


def names_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def bytes_in(folder):
    """Return the bytes of all files of a dataset except its manifest, which contains times."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del found["exengine.json"]
    return found


@pytest.mark.parametrize("verify", [True, False])
def test_jobs_convert_one_dataset_together_in_any_order(verify, shared, source, target, tmp_path):
    whole = tmp_path / "alone" / target.name
    exengine.convert(source, whole, backend="ome-zarr", options=shared.options)
    reports = [shared(units, verify=verify) for units in ("3/4", "1/4", "3/4", "4/4")]
    assert [report.outcome for report in reports] == ["part converted"] * 4 and not target.exists()
    assert reports[0].notes == [
        "the result appears when all parts are complete; still waiting for jobs 1, 2, 4"
    ]
    assert reports[0].frames == reports[2].frames > 0 and reports[2].resumed_at == 0
    last = shared("2/4", verify=verify)
    assert (last.outcome, last.verified, last.frames) == ("converted", verify, last.total)
    assert 0 < sum(report.frames for report in (*reports[:2], reports[3])) < last.frames
    assert same(source, target) and same(whole, target, without=()) and exengine.verify(target).ok
    if "codec" not in shared.options:  # with compression, the journal contains the numbers of the parts
        assert bytes_in(target) == bytes_in(whole)
    assert names_in(target.parent) == [target.name]
    assert shared("1/4").outcome == "already converted" and names_in(target.parent) == [target.name]


def test_jobs_read_disjoint_frames(shared, source, monkeypatch):
    from exengine_ndstorage.ndtiff.reader import NDTiffReader

    read_frame, read = NDTiffReader.read_frame, []
    monkeypatch.setattr(
        NDTiffReader, "read_frame", lambda self, number: read.append(number) or read_frame(self, number)
    )
    each = []
    for units in ("1/3", "2/3", "3/3"):
        read.clear()
        shared(units, verify=False)
        each.append(set(read) - {0})  # the layout of the first frame
    assert all(each) and not each[0] & each[1] | each[1] & each[2] | each[0] & each[2]
    assert len(set().union(*each)) == len(list(frames())) - 1


def test_jobs_that_run_at_the_same_time_publish_the_result_once(source, target, start_python):
    program = """
import json, sys
import exengine

options, source, target, units = json.loads(sys.argv[1])
sys.stdin.readline()
print(exengine.convert(source, target, backend="ome-zarr", options=options, units=units).outcome)
"""
    jobs = [
        start_python(program, json.dumps([{"shard": 7}, str(source), str(target), f"{number}/3"]))
        for number in (1, 2, 3)
    ]
    for job in jobs:
        job.stdin.write("\n")
        job.stdin.flush()
    outcomes = sorted(job.stdout.readline().strip() for job in jobs)
    assert all(job.wait(60) == 0 for job in jobs)
    assert outcomes.count("converted") == 1 and set(outcomes) <= {
        "converted", "part converted", "already converted"
    }  # fmt: skip
    assert same(source, target) and names_in(target.parent) == [target.name]


def test_jobs_without_a_shard_have_nothing_to_do_and_say_so(source, target):
    settings, order = {"backend": "ome-zarr"}, (30, *range(1, 30))
    reports = [exengine.convert(source, target, units=f"{job}/30", **settings) for job in order]
    assert [each.outcome for each in reports] == ["part converted"] * 29 + ["converted"]
    counts, idle = (
        [each.frames for each in reports[:-1]],
        [job for job in reports if "had no frames" in str(job)],
    )
    assert counts[0] == 0 < counts[1] and sum(counts) == reports[0].total
    assert idle == [job for job, count in zip(reports, [*counts, 0], strict=True) if not count]
    assert same(source, target) and names_in(target.parent) == [target.name]


def test_a_selection_can_be_shared(shared, source, target, tmp_path):
    settings = {"select": {"time": "0:9"}, "rename": {"channel": "dye"}}
    shared("2/2", **settings)
    shared("1/2", **settings)
    exengine.convert(source, tmp_path / "alone", backend="ome-zarr", options=shared.options, **settings)
    assert same(tmp_path / "alone", target, without=())


KILLED_JOBS = """
import json, sys
import exengine
from exengine.datasets.conversion import convert, copy
from exengine.testing import killed_at_call

copy._MOST_FRAMES, copy._SYNC_S, copy._POLL_S = 3, 0.0, 0.001
options, source, target = json.loads(sys.argv[1])
exengine.convert(source, target + "-warm", backend="ome-zarr", options=options)
for line in sys.stdin:
    number, when, units = line.split()
    run = lambda: exengine.convert(source, target, backend="ome-zarr", options=options, units=units)
    print(json.dumps(killed_at_call(int(number), when, run)), flush=True)
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shared", SHARED if LONG else SHARED[:1], ids=str, indirect=True)
def test_jobs_that_are_killed_again_and_again_come_to_the_same_result(shared, source, target, start_python):
    target.parent.mkdir()
    jobs = start_python(KILLED_JOBS, json.dumps([shared.options, str(source), str(target)]))
    warm = f"{target.name}-warm"

    def is_killed(number, when, units):
        jobs.stdin.write(f"{number} {when} {units}\n")
        jobs.stdin.flush()
        return json.loads(jobs.stdout.readline())

    chance = random.Random(str(shared.options))
    kills = joins = 0
    while kills < KILLS or not joins:
        latest = 120
        ended = set()
        while not target.exists():
            number = chance.randrange(1, 4)
            joining = ended >= {1, 2, 3} - {number}
            if is_killed(chance.randrange(20, latest), chance.choice(("before", "after")), f"{number}/3"):
                kills += 1
                joins += joining
                latest += 40
            else:
                ended.add(number)
        for number in (1, 2, 3):
            is_killed(10**6, "before", f"{number}/3")
        assert same(source, target) and exengine.verify(target).ok
        assert names_in(target.parent) == [target.name, warm]
        shutil.rmtree(target)


def test_a_part_that_is_damaged_is_copied_again_by_the_last_job(shared, source, target):
    shared("1/2")
    part = target.parent / f".{target.name}.converting-1-of-2" / target.name
    for file in (part / ".exengine" / "open").iterdir():
        file.unlink()
    for file in part.rglob("c/*/*/*/*/*"):
        file.unlink()
    assert shared("2/2").outcome == "converted"
    assert same(source, target) and names_in(target.parent) == [target.name]


def test_a_damaged_frame_stops_only_its_job(shared, source, target):
    tiff = source / "NDTiffStack.tif"
    content = bytearray(tiff.read_bytes())
    axes, pixels, _ = list(frames())[40]
    content[content.find(pixels.tobytes())] ^= 1
    tiff.write_bytes(content)
    outcomes = []
    for units in ("1/3", "2/3", "3/3"):
        try:
            outcomes.append(shared(units).outcome)
        except DatasetDamagedError as error:
            outcomes.append(str(error))
    assert sorted(outcomes)[1:] == ["part converted"] * 2 and f"the first at {axes}" in sorted(outcomes)[0]
    assert not target.exists()


def test_one_process_can_convert_instead_of_the_jobs(shared, source, target):
    shared("1/2")
    assert exengine.convert(source, target, backend="ome-zarr", options=shared.options).outcome == "converted"
    assert names_in(target.parent) == [f".{target.name}.converting-1-of-2", target.name]
    assert shared("2/2").outcome == "already converted"
    assert same(source, target) and names_in(target.parent) == [target.name]


def test_a_joined_result_that_differs_is_not_published_and_the_jobs_start_again(
    shared, source, target, monkeypatch
):
    from exengine_ome_zarr.continued import joining

    shared("1/2")
    copy_lines = joining._copy_lines
    with monkeypatch.context() as patch:
        patch.setattr(
            joining,
            "_copy_lines",
            lambda *given: (line.replace(b'"text"', b'"texT"') for line in copy_lines(*given)),
        )
        with pytest.raises(DatasetDamagedError, match="the result differs"):
            shared("2/2")
    assert names_in(target.parent) == []
    for units, outcome in (("1/2", "part converted"), ("2/2", "converted")):
        assert shared(units).outcome == outcome
    assert same(source, target)


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (["--backend", "ndtiff"], 1, "only one process can write a dataset of the backend ndtiff"),
        (["--backend", "ome-tiff"], 1, "only one process can write a dataset of the backend ome-tiff"),
        (["--backend", "hdf5"], 1, r"'data/\*'.*--dask.*--select"),
        (
            ["--backend", "ome-zarr", "--if-exists", "number"],
            2,
            "if_exists: number cannot be combined with units",
        ),
        (["--backend", "ome-zarr", "--allow-loss"], 2, "allow_loss cannot be combined with units"),
    ],
)
def test_what_jobs_cannot_share_is_refused_in_one_line_before_anything_is_written(
    settings, code, message, source, tmp_path, capsys
):
    out = place(tmp_path / "out", "result", settings[1])
    found, text, err = run(capsys, "convert", source, out, *settings, "--units", "1/2")
    assert (found, text) == (code, "") and len(err.splitlines()) == 1 and re.search(message, err)
    assert not out.parent.exists()
    assert run(capsys, "convert", source, out, *settings, "--units", "1/1")[0] == 0


def test_axes_that_form_one_dimension_cannot_be_shared(tmp_path):
    with exengine.open_storage("ndtiff", tmp_path / "source") as storage:
        for angle in range(3):
            storage.put({"position": 0, "angle": angle, "channel": "DAPI"}, small(), None)
    for extra_axes in ("fold", "split"):
        with pytest.raises(UnsupportedOperationError, match="leave out extra_axes"):
            exengine.convert(
                tmp_path / "source",
                tmp_path / "out" / "result",
                backend="ome-zarr",
                options={"extra_axes": extra_axes},
                units="1/2",
            )
    assert not (tmp_path / "out").exists()


def test_a_job_says_which_part_it_has_converted(source, target, capsys):
    command = ("convert", source, target, "--backend", "ome-zarr", "--option", "shard=7", "--units")
    code, text, err = run(capsys, *command, "2/2")
    assert (code, err) == (0, "") and text.startswith(f"part converted: {target}\n")
    assert "all parts are complete; still waiting for job 1\n" in text and "compared" not in text
    code, text, _ = run(capsys, *command, "1/2")
    assert code == 0 and text.startswith(f"converted: {target}\n") and "compared equal to the source" in text
