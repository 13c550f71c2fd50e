"""TIFF files of other programs: their pixels, axes, channels and sizes; and damage, which is always reported."""

import contextlib
import json
import logging
import os
import pickle
import random
import struct
import subprocess
import sys

import numpy as np
import pytest
import tifffile

import exengine
from exengine.errors import DatasetDamagedError, ExEngineError, UnsupportedOperationError

LONG = bool(os.environ.get("EXENGINE_LONG"))
FRAMES = np.arange(2 * 3 * 5 * 6 * 7, dtype=np.uint16).reshape(2, 3, 5, 6, 7)
AXES = {"axes": "TCZYX"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "other.ome.tif"


def in_order(dataset):
    return np.array([dataset[axes] for axes in dataset])


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib", "predictor": True}, {"byteorder": ">"}, {"tile": (16, 16)}]
)
def test_an_ome_tiff_file_of_tifffile_is_read_with_axes_channels_and_sizes(options, path):
    facts = {
        "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 200, "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 0.001, "PhysicalSizeZUnit": "mm", "TimeIncrement": 2, "TimeIncrementUnit": "min",
        "Channel": {"Name": ["DAPI", "FITC", "Cy5"], "Color": [65535, -16776961, 16711935]},
        "Plane": {"ExposureTime": [0.5] * 30, "PositionX": [3.0] * 30, "PositionXUnit": ["µm"] * 30},
    }  # fmt: skip
    tifffile.imwrite(path, FRAMES, ome=True, metadata={**AXES, **facts}, **options)
    with exengine.open_dataset(path) as dataset:
        assert (dataset.status, dataset.backend_name) == ("complete", "ome-tiff")
        assert dataset.axes == {"time": [0, 1], "channel": ["DAPI", "FITC", "Cy5"], "z": [*range(5)]}
        assert np.array_equal(in_order(dataset).reshape(FRAMES.shape), FRAMES)
        assert dataset[{"time": 1, "channel": "Cy5", "z": 4}].tolist() == FRAMES[1, 2, 4].tolist()
        assert dataset.get_metadata({"time": 0, "channel": "DAPI", "z": 0}) == {
            "exposure_ms": 500.0, "position_um": {"x": 3.0},
        }  # fmt: skip
        plan = dataset.recorded_plan
        assert plan.pixel_size_um == pytest.approx((0.2, 0.1)) and plan.z_step_um == pytest.approx(1.0)
        assert plan.interval_s == 120
        assert [channel.color for channel in plan.channels] == ["0000FF", "FF0000", "00FF00"]
        assert np.array_equal(in_order(pickle.loads(pickle.dumps(dataset))), in_order(dataset))
    assert exengine.verify(path).ok


def test_several_images_are_positions_by_name_or_by_number(path):
    for names in (["left", "right"], ["same", "same"]):
        with tifffile.TiffWriter(path, ome=True) as file:
            file.write(FRAMES, metadata={**AXES, "Name": names[0]})
            file.write(FRAMES[::-1], metadata={**AXES, "Name": names[1]})
        with exengine.open_dataset(path) as dataset:
            positions = names if names[0] == "left" else [0, 1]
            assert dataset.axes["position"] == positions
            axes = {"position": positions[1], "time": 0, "channel": 1, "z": 2}
            assert np.array_equal(dataset[axes], FRAMES[1, 1, 2])


def test_planes_without_a_page_are_missing_and_not_black(path):
    tifffile.imwrite(path, FRAMES, ome=True, metadata=AXES)
    xml = tifffile.tiffcomment(path)
    one = '<TiffData IFD="{0}" FirstT="{1}" FirstC="{2}" PlaneCount="3"/>'
    some = one.format(7, 0, 1) + one.format(20, 1, 1)
    begin, end = (
        xml.index("<TiffData"),
        xml.index("</TiffData>") + len("</TiffData>") if "</TiffData>" in xml else 0,
    )
    end = end or xml.index("/>", begin) + 2
    tifffile.tiffcomment(path, xml[:begin] + some + xml[end:])
    with exengine.open_dataset(path) as dataset:
        assert len(dataset) == 6 and {"time": 0, "channel": 0, "z": 0} not in dataset
        planes = FRAMES.reshape(30, 6, 7)
        for number, axes in enumerate([(0, 1, 0), (0, 1, 1), (0, 1, 2), (1, 1, 0), (1, 1, 1), (1, 1, 2)]):
            t, c, z = axes
            found = dataset[{"time": t, "channel": c, "z": z}]
            assert np.array_equal(found, planes[7 + number if t == 0 else 17 + number])


@pytest.mark.parametrize(
    ("options", "axes"),
    [
        ({"imagej": True, "metadata": {"axes": "TZCYX"}}, ["time", "z", "channel"]),
        ({"metadata": {"axes": "TZCYX"}}, ["time", "z", "channel"]),
        ({"metadata": {"axes": "TZCYX"}, "byteorder": ">", "truncate": True}, ["time", "z", "channel"]),
        ({"metadata": None}, ["sequence"]),
        ({"bigtiff": True, "compression": "zlib"}, ["axis_0", "axis_1", "axis_2"]),
    ],
)
def test_other_tiff_files_are_read_by_the_axes_that_tifffile_finds(options, axes, tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, FRAMES, **options)
    with exengine.open_dataset(path) as dataset:
        assert [*dataset.axes] == axes
        assert np.array_equal(in_order(dataset).reshape(FRAMES.shape), FRAMES)


def test_the_sizes_that_imagej_writes_are_known_and_those_of_a_print_are_not(tmp_path):
    path = tmp_path / "stack.tif"
    about = {"axes": "TZYX", "unit": "micron", "spacing": 0.5, "finterval": 3}
    tifffile.imwrite(path, FRAMES[0], imagej=True, resolution=(10, 5), metadata=about)
    with exengine.open_dataset(path) as dataset:
        plan = dataset.recorded_plan
        assert (plan.pixel_size_um, plan.z_step_um, plan.interval_s) == ((0.2, 0.1), 0.5, 3.0)
    tifffile.imwrite(path, FRAMES[0], resolution=(300, 300), resolutionunit="inch")
    with exengine.open_dataset(path) as dataset:
        assert dataset.recorded_plan.pixel_size_um is None


@pytest.mark.parametrize(
    "options", [{}, {"ome": True}, {"planarconfig": "separate"}, {"ome": True, "planarconfig": "separate"}]
)
def test_color_images_have_their_samples_last(options, tmp_path):
    path = tmp_path / "color.tif"
    colors = FRAMES[0, :2, :3].astype(np.uint8)
    written = colors if options.get("planarconfig") else np.moveaxis(colors, 1, 3)
    tifffile.imwrite(path, written, photometric="rgb", **options)
    with exengine.open_dataset(path) as dataset:
        assert np.array_equal(in_order(dataset), np.moveaxis(colors, 1, 3))


def test_images_of_a_dataset_in_several_files_are_read_and_a_missing_file_is_reported(tmp_path):
    blocks = []
    for number in range(2):
        tifffile.imwrite(tmp_path / f"{number}.ome.tif", FRAMES[number], metadata=None)
        uuid = f'<UUID FileName="{number}.ome.tif">urn:uuid:{number}</UUID>'
        blocks.append(f'<TiffData IFD="0" FirstT="{number}" PlaneCount="15">{uuid}</TiffData>')
    pixels = '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="7" SizeY="6" SizeZ="5" SizeC="3" SizeT="2">'
    xml = f'<OME xmlns="x" UUID="urn:uuid:0"><Image ID="Image:0">{pixels}{"".join(blocks)}</Pixels></Image></OME>'
    tifffile.tiffcomment(tmp_path / "0.ome.tif", xml)
    with exengine.open_dataset(tmp_path / "0.ome.tif") as dataset:
        assert np.array_equal(in_order(dataset).reshape(FRAMES.shape), FRAMES)
    (tmp_path / "1.ome.tif").unlink()
    with exengine.open_dataset(tmp_path / "0.ome.tif") as dataset:
        assert dataset.status == "damaged" and "1.ome.tif" in dataset.status_reason
        assert np.array_equal(in_order(dataset).reshape(FRAMES[0].shape), FRAMES[0])
    tifffile.tiffcomment(tmp_path / "0.ome.tif", xml.replace('"1.ome.tif"', '"../1.ome.tif"'))
    with pytest.raises(DatasetDamagedError, match="another folder"):
        exengine.open_dataset(tmp_path / "0.ome.tif")


@pytest.mark.parametrize("ome", [True, False])
def test_a_file_that_was_cut_off_is_damaged_and_its_whole_frames_are_read(ome, path):
    tifffile.imwrite(path, FRAMES, ome=ome, metadata=AXES if ome else None, compression="zlib")
    with tifffile.TiffFile(path) as file:
        last = file.pages[29]
        places = [page.dataoffsets[0] for page in file.pages]
    content = path.read_bytes()
    assert last.offset < places[29] and (not ome or max(places) == places[29])
    path.write_bytes(content[: places[29] + 10])
    with exengine.open_dataset(path) as dataset:
        *whole, torn = dataset
        assert len(whole) == 29 and np.array_equal(dataset[whole[-1]], FRAMES[1, 2, 3])
        with pytest.raises(DatasetDamagedError, match="beyond the end of the file"):
            dataset[torn]
        assert dataset.status == "damaged"
    assert not exengine.verify(path).ok
    path.write_bytes(content[: last.offset + 50])  # the last directory is torn, and the description of OME
    with contextlib.suppress(DatasetDamagedError), exengine.open_dataset(path) as dataset:
        assert dataset.status == "damaged" and 0 < len(dataset) < 30
        assert np.array_equal(in_order(dataset), FRAMES.reshape(30, 6, 7)[: len(dataset)])


def hostile():
    """Yield files that would take for ever, or all memory, if their content were believed."""

    def page(following, *, width=4):
        values = {256: width, 257: 4, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: 16}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
        return struct.pack("<H", len(values)) + entries + struct.pack("<I", following)

    size = len(page(0))
    begin = struct.pack("<2sHI", b"II", 42, 24) + bytes(16)
    chain = b"".join(page(24 + size * (number + 1)) for number in range(299))
    yield "a loop behind 200 pages", begin + chain + page(24 + size * 200)
    yield "a directory behind the end", begin + page(10**9)
    yield "more pixels than bytes", begin + page(0, width=2**31 - 1)
    yield "no page", struct.pack("<2sHI", b"II", 42, 0) + bytes(16)
    yield "only a header", b"II*\0"


@pytest.mark.parametrize(
    ("what", "content"), [*hostile()], ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.timeout(20)
def test_hostile_files_end_in_an_error(what, content, tmp_path):
    path = tmp_path / "hostile.tif"
    path.write_bytes(content)

    def read():
        with exengine.open_dataset(path) as dataset:
            frames = in_order(dataset)
            return frames if dataset.status == "complete" else None

    with contextlib.suppress(DatasetDamagedError, UnsupportedOperationError):
        assert read() is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('SizeT="2"', 'SizeT="2000000000"'),
        ('SizeT="2"', 'SizeT="-2"'),
        ('SizeT="2"', 'SizeT="x"'),
        ('PlaneCount="30"', 'PlaneCount="999999999999"'),
        ('IFD="0"', 'IFD="-1"'),
        ('FirstT="0"', 'FirstT="9"'),
        ("<OME", '<!DOCTYPE x [<!ENTITY a "b">]><OME'),
        ("</OME>", ""),
        ('DimensionOrder="XYZCT"', 'DimensionOrder="XYZC"'),
    ],
)
@pytest.mark.timeout(20)
def test_hostile_ome_xml_ends_in_an_error(old, new, path):
    tifffile.imwrite(path, FRAMES, ome=True, metadata=AXES)
    xml = tifffile.tiffcomment(path)
    if old.startswith(("FirstT", "PlaneCount", "IFD")) and old not in xml:
        xml = xml.replace("<TiffData ", f"<TiffData {old} ", 1)
    assert old in xml
    tifffile.tiffcomment(path, xml.replace(old, new, 1))
    with pytest.raises(DatasetDamagedError, match="OME-XML"):
        exengine.open_dataset(path)


READ = """
import sys, time, json
import exengine, exengine_ome_tiff.foreign.reader
from exengine.errors import ExEngineError
for line in sys.stdin:
    began, foreign = time.monotonic(), ""
    try:
        with exengine.open_dataset(line.strip()) as dataset:
            for axes in dataset:
                try:
                    dataset.get_data(axes), dataset.get_metadata(axes)
                except ExEngineError:
                    pass
            dataset.check_structure()
    except ExEngineError:
        pass
    except BaseException as error:
        foreign = repr(error)
    print(json.dumps([foreign, time.monotonic() - began]), flush=True)
"""


@pytest.mark.once
@pytest.mark.parametrize(
    "options",
    [{"ome": True, "metadata": AXES, "compression": "zlib"}, {"imagej": True, "metadata": {"axes": "TZCYX"}}],
)
def test_damaged_bytes_never_hang_or_crash_or_raise_errors_of_libraries(options, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, FRAMES, **options)
    original, rng = path.read_bytes(), random.Random(str(options))
    with tifffile.TiffFile(path) as file:
        places = [(page.offset, page.offset + 200) for page in file.pages]
    with subprocess.Popen(
        [sys.executable, "-c", READ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        for number in range(1000 if LONG else 15):
            content = bytearray(original)
            for _ in range(rng.choice((1, 3, 20))):
                content[rng.randrange(*rng.choice([*places, (0, 16), (0, len(content))])) % len(content)] = (
                    rng.randrange(256)
                )
            if rng.random() < 0.2:
                del content[rng.randrange(len(content)) :]
            path.write_bytes(content)
            child.stdin.write(f"{path}\n")
            child.stdin.flush()
            line = child.stdout.readline()
            assert line, f"the interpreter ended at case {number}"
            foreign, seconds = json.loads(line)
            assert not foreign and seconds < 20, (number, foreign, seconds)
        child.stdin.close()
        assert child.stderr.read() == ""


def test_opening_a_file_leaves_the_log_of_tifffile_as_it_was(path):
    tifffile.imwrite(path, FRAMES, ome=True, metadata=AXES)
    before = [*logging.getLogger("tifffile").handlers]
    with exengine.open_dataset(path) as dataset:
        in_order(dataset)
    assert logging.getLogger("tifffile").handlers == before
    with pytest.raises(ExEngineError):
        dataset[{"time": 0, "channel": 0, "z": 0}]
