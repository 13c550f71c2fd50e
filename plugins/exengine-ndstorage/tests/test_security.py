"""NDTiff datasets of strangers: no file outside is opened, nothing runs, and memory is bounded by what is there.

``EXENGINE_LONG=1`` tests larger datasets.
"""

import json
import os
import shutil
import struct

import numpy as np
import pytest

import exengine
from exengine.errors import DatasetDamagedError, MetadataError
from exengine_ndstorage.ndtiff import sizes
from exengine_ndstorage.ndtiff.format import header

pytestmark = pytest.mark.once

LONG = bool(os.environ.get("EXENGINE_LONG"))

PROGRAM = """
import json, os, sys
import exengine
from exengine.testing import Watch

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))

def do(path):
    with exengine.open_dataset(path) as dataset:
        dataset.summary_metadata
        read = 0
        for axes in list(dataset)[:200]:
            for get in (dataset.get_data, dataset.get_metadata):
                try:
                    get(axes)
                    read += 1
                except exengine.ExEngineError:
                    pass
        getattr(dataset, "resolution_levels", None)
        status = str(dataset.status)
    exengine.verify(path)
    return f"{status}, {read} read"

good, paths = json.load(open(sys.argv[1]))
empty = sys.argv[1] + ".empty"
os.mkdir(empty)
try:
    exengine.open_dataset(empty)  # asks every installed backend, so that all of them are imported
except exengine.ExEngineError:
    pass
for path in good:
    do(path)
watch = Watch()
before = peak()
for path in paths:
    watch.look_at(path)
    try:
        outcome = do(path)
    except exengine.ExEngineError as error:
        outcome = type(error).__name__
    except Exception as error:
        outcome = f"foreign: {error!r}"
    watch.rest()
    print(json.dumps([path, outcome, watch.reached, peak() - before]), flush=True)
"""


def write(path, frames=4):
    with exengine.open_storage("ndtiff", path) as storage:
        for number in range(frames):
            storage.put({"time": number}, np.full((16, 16), number, np.uint16), {"number": number})
    return path


@pytest.fixture
def dataset(tmp_path):
    """Return what makes a dataset; ``ours=False`` as another program would have written it."""
    numbers = iter(range(1000))

    def make(*, ours=True):
        path = write(tmp_path / f"data-{next(numbers)}" / "set")
        if not ours:
            (path / "exengine.json").unlink()
        return path

    return make


@pytest.fixture
def watched(dataset, run_python, tmp_path):
    """Return what opens and verifies datasets in a process that is listened to: path -> what came of it."""

    def run(paths, *more_good):
        spec = tmp_path / "jobs.json"
        good = [str(dataset()), str(dataset(ours=False)), *map(str, more_good)]
        spec.write_text(json.dumps([good, [str(path) for path in paths]]))
        told = [json.loads(line) for line in run_python(PROGRAM, spec).splitlines()]
        assert [path for path, *_ in told] == [str(path) for path in paths]
        return told

    return run


def entry(axes=b'{"time":0}', name=b"NDTiffStack.tif", numbers=(0, 16, 16, 1, 0, 0, 2, 0)):
    lengths = struct.pack("<I", len(axes)), struct.pack("<I", len(name))
    return lengths[0] + axes + lengths[1] + name + struct.pack("<8I", *numbers)


def index_of(path, *entries):
    (path / "NDTiff.index").write_bytes(b"".join(entries))
    return path


NAMES = [
    b"../outside.tif", b"/etc/passwd", b"..", b".", b"", b"a/../../outside.tif", b"link.tif", b"link/NDTiffStack.tif",
    b"NDTiffStack.tif\0.png", b"\xff\xfe", b"x" * 60_000, b"/dev/zero", b"//etc/passwd", b"pipe.tif", b"folder.tif",
    b"NDTiff.index", b"exengine.json", b"exengine.lock", b"~root/x", b"$HOME", b"C:\\x", b"device.tif",
]  # fmt: skip


@pytest.mark.parametrize("ours", [True, False])
def test_the_index_names_no_file_outside(ours, dataset, watched):
    paths = []
    for name in NAMES:
        path = dataset(ours=ours)
        shutil.copy(path / "NDTiffStack.tif", path.parent / "outside.tif")
        (path / "link.tif").symlink_to("../outside.tif")
        (path / "link").symlink_to("..")
        (path / "folder.tif").mkdir()
        os.mkfifo(path / "pipe.tif")
        (path / "device.tif").symlink_to("/dev/zero")
        paths.append(index_of(path, entry(name=name)))
    for path, outcome, reached, _ in watched(paths):
        assert not ours or outcome == "damaged, 0 read", path
        assert reached == [] and not outcome.startswith("foreign")


@pytest.mark.parametrize("kind", ["link", "good link", "zero", "nothing", "loop", "pipe", "folder", "device"])
@pytest.mark.parametrize("name", ["NDTiffStack.tif", "NDTiff.index"])
def test_what_is_no_regular_file_is_not_opened_and_the_dataset_is_damaged(kind, name, dataset, watched):
    paths = []
    for ours in (True, False):
        path = dataset(ours=ours)
        place = path / name
        place.unlink()
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "folder":
            place.mkdir()
        elif kind == "device":
            if os.geteuid():
                pytest.skip("only root makes devices")
            os.mknod(place, 0o20666, os.makedev(1, 5))
        else:
            good = dataset() / name
            targets = {
                "link": "/etc/passwd",
                "good link": good,
                "zero": "/dev/zero",
                "nothing": "no",
                "loop": place,
            }
            place.symlink_to(targets[kind])
        paths.append(path)
    for _, outcome, reached, _ in watched(paths):
        assert reached == []
        assert outcome in ("damaged, 0 read", "DatasetDamagedError", "DatasetNotFoundError")


def test_sizes_that_are_lies_take_no_memory(dataset, watched):
    most = 2**32 - 1
    lies = {
        "4 GiB frames": [entry(numbers=(0, 65535, 65535, 0, 0, 0, 2, 0))],
        "2^31 x 2^31": [entry(numbers=(0, 2**31, 2**31, 1, 0, 0, 2, 0))],
        "2^32 x 2^32 RGB": [entry(numbers=(most, most, most, 2, 0, most, most, 0))],
        "4 GiB metadata": [entry(numbers=(0, 16, 16, 1, 0, 0, most, 0))],
        "no size": [entry(numbers=(0, 0, 0, 1, 0, 0, 0, 0))],
        "unknown type": [entry(numbers=(0, 16, 16, most, most, 0, 2, most))],
        "a length of 4 GiB": [struct.pack("<I", most), b"{}"],
        "a name of 4 GiB": [struct.pack("<I", 2), b"{}", struct.pack("<I", most), b"x" * 64],
        "axes of 65,535 bytes": [entry(axes=b'{"' + b"a" * 65_528 + b'":0}')],
        "1,000 axes": [entry(axes=json.dumps({f"a{n}": 0 for n in range(1000)}).encode())],
        "nested axes": [entry(axes=b"[" * 60_000 + b"]" * 5000)],
        "a number of 60,000 digits": [entry(axes=b'{"time":' + b"9" * 60_000 + b"}")],
    }
    paths = [index_of(dataset(ours=ours), *lie) for lie in lies.values() for ours in (True, False)]
    good = index_of(dataset(ours=False), entry(numbers=(0, 16, 16, 1, 0, 200, 0, 0)))
    assert len(exengine.open_dataset(good)) == 1  # what is made here is understood
    for path, outcome, reached, more_mib in watched(paths):
        assert reached == [] and not outcome.startswith("foreign"), (path, outcome)
        assert more_mib < 100, (path, outcome)


def test_many_entries_that_name_one_frame_take_what_the_index_has_in_bytes_times_eight(dataset, watched):
    path = dataset(ours=False)
    size = (
        index_of(path, *[entry()] * (1_000_000 if LONG else 200_000)).joinpath("NDTiff.index").stat().st_size
    )
    assert exengine.open_dataset(path).axes == {"time": [0]}
    ((_, outcome, reached, more_mib),) = watched([path])
    assert reached == [] and not outcome.startswith("foreign")
    assert more_mib < 8 * size / 2**20


def test_summary_metadata_of_any_content_take_less_than_512_mib(dataset, watched):
    paths = []
    texts = [
        b"[" + b"[]," * 5_000_000 + b"0]", b"[" + b"{}," * 5_000_000 + b"0]", b"[" * 1_000_000, b"9" * 1_000_000,
        b"!!python/object/apply:os.system ['true']", b"cos\nsystem\n(S'true'\ntR.", b'{"__class__": "os.system"}',
    ]  # fmt: skip
    for text in texts:
        path = dataset()
        (path / "NDTiffStack.tif").write_bytes(header(text) + bytes(1000))
        paths.append(path)
    sparse = dataset()
    with open(sparse / "NDTiffStack.tif", "r+b") as file:
        file.seek(24)
        file.write(struct.pack("<I", 2**32 - 100))
        file.truncate(2**32)
    for path, outcome, reached, more_mib in watched([*paths, sparse]):
        assert reached == [] and not outcome.startswith("foreign"), (path, outcome)
        assert more_mib < 512, (path, outcome)


def test_metadata_of_a_sparse_file_are_not_read_beyond_the_limit(dataset, watched):
    path = dataset(ours=False)
    index_of(path, entry(numbers=(0, 16, 16, 1, 0, 2**20, 2**32 - 2**21, 0)))
    os.truncate(path / "NDTiffStack.tif", 2**32)
    ((_, outcome, reached, more_mib),) = watched([path])
    assert reached == [] and outcome == "complete, 1 read"
    assert more_mib < 100
    with (
        exengine.open_dataset(path) as opened,
        pytest.raises(DatasetDamagedError, match="the limit is 67108864"),
    ):
        opened.get_metadata({"time": 0})


def test_what_a_reader_does_not_take_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "MAX_METADATA_BYTES", 1000)
    with exengine.open_storage("ndtiff", tmp_path / "data") as storage:
        with pytest.raises(MetadataError, match="takes up 2007 bytes as JSON, but .* at most 1000"):
            storage.put({"time": 0}, np.zeros((4, 4), np.uint16), {"x": "y" * 1999})
        assert {"time": 0} not in storage
    with pytest.raises(MetadataError, match="readers accept at most"):
        exengine.open_storage(
            "ndtiff", tmp_path / "other", summary_metadata={"x": "y" * sizes.MAX_SUMMARY_BYTES}
        )
    assert not (tmp_path / "other").exists()


def test_folders_of_a_pyramid_lead_nowhere_else(tmp_path, dataset, watched):
    def pyramid(name):
        write(tmp_path / name / "Full resolution")
        (tmp_path / name / "Full resolution" / "exengine.json").unlink()
        shutil.copytree(tmp_path / name / "Full resolution", tmp_path / name / "Downsampled_x2")
        return tmp_path / name

    good = pyramid("good")
    full, half = pyramid("full"), pyramid("half")
    for path, folder in ((full, "Full resolution"), (half, "Downsampled_x2")):
        shutil.rmtree(path / folder)
        (path / folder).symlink_to(good / folder)
    assert exengine.open_dataset(good).resolution_levels == (0, 1)
    told = watched([full, half], good)
    assert [(outcome, reached) for _, outcome, reached, _ in told] == [("DatasetDamagedError", [])] * 2


@pytest.mark.parametrize("kind", ["link", "pipe", "zero", "stray"])
def test_a_dataset_of_version_2_is_looked_at_before_the_library_opens_it(
    kind, example_data, tmp_path, watched
):
    (original, *_) = sorted(
        path.parent.parent for path in (example_data / "v2").rglob("Full resolution/NDTiff.index")
    )
    good = shutil.copytree(original, tmp_path / "good")
    path = shutil.copytree(original, tmp_path / "hostile")
    folder = path / "Full resolution"
    place = folder / "stray.tif" if kind == "stray" else next(folder.glob("*.tif"))
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero" if kind == "zero" else next((good / "Full resolution").glob("*.tif")))
    ((_, outcome, reached, _),) = watched([path], good)
    assert (outcome, reached) == ("DatasetDamagedError", [])
