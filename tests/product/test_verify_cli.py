"""``exengine verify`` and ``exengine recover``: what they print, where, and with which exit code."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import exengine
from exengine.cli.main import main
from exengine.testing.own_nodes import make_device, make_socket

_NAMED = os.environ.get("EXENGINE_TEST_DATA")
_BESIDE = Path(__file__).parents[3] / "shared" / "data"
DATA = Path(_NAMED) if _NAMED else _BESIDE if _BESIDE.is_dir() else None


@pytest.fixture
def example_data():
    """Return the folder of the datasets that Micro-Manager and Pycro-Manager wrote."""
    if DATA is None:
        pytest.skip("no example datasets: EXENGINE_TEST_DATA is not set, and none are beside the checkout")
    return DATA / "ndtiff"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "my data"


@pytest.fixture
def make(path):
    """Return what makes a dataset of three frames, by default without an end."""

    def make(finish=False):
        storage = exengine.open_storage("ndtiff", path)
        for time in range(3):
            storage.put({"time": time}, np.full((8, 8), time, np.uint16), {"time": time})
        if finish:
            storage.finish()
        storage.close()

    return make


@pytest.fixture
def damaged(make, path):
    """Make a finished dataset whose frame 1 is damaged."""
    make(finish=True)
    content = (path / "NDTiffStack.tif").read_bytes()
    pixels = np.full((8, 8), 1, np.uint16).tobytes()
    assert content.count(pixels) == 1
    (path / "NDTiffStack.tif").write_bytes(content.replace(pixels, b"\xff" + pixels[1:]))
    return path


def run(capsys, *arguments):
    """Run the command; return its exit code, and what it printed on stdout and stderr."""
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


# -- verify --------------------------------------------------------------------------------------


def test_a_good_dataset_gives_0_and_says_so(make, path, capsys):
    make(finish=True)
    code, out, err = run(capsys, "verify", path)
    assert (code, err) == (0, "")
    assert "3 of 3 are intact" in out and out.endswith("All is well.\n")
    assert "checksums" not in out and "recover" not in out


def test_a_damaged_dataset_gives_1_and_the_coordinates(damaged, capsys):
    code, out, err = run(capsys, "verify", damaged)
    assert (code, err) == (1, "")
    assert "damaged  {'time': 1}: the pixels or coordinates" in out
    assert "2 of 3 are intact" in out and "The dataset has problems." in out
    assert f"exengine recover '{damaged}'" in out


def test_json_is_one_document_with_the_same(damaged, capsys):
    code, out, err = run(capsys, "verify", damaged, "--json")
    assert (code, err) == (1, "")
    report = json.loads(out)
    assert [frame["coordinates"] for frame in report["damaged"]] == [{"time": 1}]
    assert (report["ok"], report["frames"], report["checked"]) == (False, 3, 2)


def test_a_dataset_that_is_being_written_is_verified_and_not_to_be_recovered(path, capsys):
    with exengine.open_storage("ndtiff", path) as storage:
        storage.put({"time": 0}, np.zeros((8, 8), np.uint16), None)
        code, out, _ = run(capsys, "verify", path)
        assert code == 0 and "incomplete (the writer is still active)" in out
        assert out.endswith("Every frame in the dataset is intact.\n")
        assert "exengine recover" not in out
        _, out, _ = run(capsys, "info", path)
        assert "exengine recover" not in out


def test_info_of_a_dataset_without_an_end_points_at_recover(make, path, capsys):
    make()
    code, out, _ = run(capsys, "info", path)
    assert code == 0 and f"exengine recover '{path}'" in out


@pytest.mark.parametrize("verb", ["verify", "recover"])
def test_where_no_dataset_is_the_code_is_1_and_without_a_path_2(verb, tmp_path, capsys):
    code, out, err = run(capsys, verb, tmp_path / "nothing")
    assert (code, out) == (1, "") and "does not exist" in err
    code, out, err = run(capsys, verb)
    assert (code, out) == (2, "") and "usage" in err
    code, out, err = run(capsys, "verify", tmp_path, "--backend", "ndtif")
    assert (code, out) == (2, "") and "did you mean 'ndtiff'" in err


REAL = {
    "v3/12_bit_pycromanager_mda": (8, True),
    "v3/ndtiff3.2_monochrome": (128, True),
    "v3/ndtiffv3.0_test": (10, True),
    "v3/ndtiffv3.0_stitched_test": (6, True),
    "v3/ndtiff3.2_magellan_explore_rgb": (12, True),
    "v2/ndtiffv2.0_test": (10, True),
    "v3/mm_mda_tcz_15": (0, False),
}


@pytest.mark.parametrize("name", REAL)
def test_the_datasets_of_micro_manager_are_verified(name, example_data, capsys):
    checked, good = REAL[name]
    code, out, _ = run(capsys, "verify", example_data / name, "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["checked"]) == (0 if good else 1, good, checked)
    assert not report["has_checksums"]
    code, out, _ = run(capsys, "verify", example_data / name)
    assert "the dataset has no checksums" in out


def test_the_damaged_dataset_of_micro_manager_names_all_that_is_missing(example_data, capsys):
    code, out, _ = run(capsys, "verify", example_data / "v3/mm_mda_tcz_15")
    assert code == 1
    assert out.count("missing  {") == 112
    assert "the index refers to the file 'mm_mda_tcz_15_NDTiffStack.tif', which does not exist" in out


def test_of_very_many_frames_that_are_lost_the_first_are_named(path, capsys, tmp_path):
    with exengine.open_storage("ndtiff", path) as storage:
        for time in range(500):
            storage.put({"time": time}, np.zeros((8, 8), np.uint16), None)
    os.truncate(path / "NDTiffStack.tif", 1_000)
    code, out, _ = run(capsys, "verify", path)
    lines = [line for line in out.splitlines() if line.startswith(("  missing", "  damaged"))]
    assert code == 1 and len(lines) < 410 and "more; --json lists all" in lines[-1]
    code, out, _ = run(capsys, "recover", path, "-o", tmp_path / "new")
    assert len(out.splitlines()) < 410 and "more; --json lists all" in out


# -- recover -------------------------------------------------------------------------------------


def test_recover_makes_a_finished_dataset_and_says_where(make, path, capsys):
    make()
    code, out, err = run(capsys, "recover", path)
    assert (code, err) == (0, "")
    assert out.startswith(f"recovered: {path}-recovered\n") and "3 of 3" in out
    code, out, _ = run(capsys, "verify", f"{path}-recovered")
    assert code == 0 and "aborted (recovered from" in out
    code, out, _ = run(capsys, "recover", path)
    assert code == 0 and out.startswith("already recovered: ")
    code, out, _ = run(capsys, "recover", f"{path}-recovered")
    assert code == 0 and out.startswith("nothing to recover: ")


def test_recover_to_a_place_that_has_nothing_to_recover_says_that_it_made_nothing(
    make, path, tmp_path, capsys
):
    make()
    run(capsys, "recover", path)
    code, _, err = run(capsys, "recover", f"{path}-recovered", "-o", tmp_path / "copy")
    assert code == 1 and not (tmp_path / "copy").exists()
    assert "copy was not created" in err


def test_recover_tells_what_did_not_survive(damaged, tmp_path, capsys):
    code, out, _ = run(capsys, "recover", damaged, "-o", tmp_path / "other", "--json")
    report = json.loads(out)
    assert code == 0 and not report["ok"]
    assert (report["frames"], report["total"], report["path"]) == (2, 3, str(tmp_path / "other"))
    code, out, _ = run(capsys, "recover", damaged, "--output", tmp_path / "other")
    assert code == 0 and "lost     {'time': 1}: " in out
    code, out, _ = run(capsys, "verify", tmp_path / "other")
    assert code == 1 and "missing  {'time': 1}: lost in the recovery" in out


def test_a_dry_run_writes_nothing(make, path, capsys):
    make()
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()}
    for more in ([], ["--in-place"]):
        code, out, _ = run(capsys, "recover", path, "--dry-run", *more)
        assert code == 0 and out.startswith("would be recovered: ")
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()} == before
    assert list(path.parent.iterdir()) == [path]


def test_in_place_finishes_the_dataset_itself(damaged, capsys):
    code, out, _ = run(capsys, "recover", damaged, "--in-place")
    assert code == 0 and out.startswith(f"recovered: {damaged}\n")
    assert list(damaged.parent.iterdir()) == [damaged]
    _, out, _ = run(capsys, "info", damaged)
    assert "aborted" in out and "frames   2" in out


def test_in_place_with_an_output_is_wrong_use(make, path, tmp_path, capsys):
    make()
    code, out, err = run(capsys, "recover", path, "--in-place", "-o", tmp_path / "x")
    assert (code, out) == (2, "") and "either in_place or output" in err


def test_what_is_at_the_output_is_left_alone(make, path, tmp_path, capsys):
    make()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").touch()
    code, out, err = run(capsys, "recover", path, "-o", tmp_path / "x")
    assert (code, out) == (1, "") and "choose another output" in err


def test_a_dataset_of_micro_manager_with_a_torn_index_is_recovered(example_data, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(example_data / "v3/ndtiff3.2_monochrome", copy)
    os.truncate(copy / "NDTiff.index", os.path.getsize(copy / "NDTiff.index") - 1)
    code, out, _ = run(capsys, "recover", copy, "--json")
    assert code == 0 and json.loads(out)["frames"] == 127
    code, out, _ = run(capsys, "recover", copy, "--in-place")
    assert code == 1


# -- progress ------------------------------------------------------------------------------------


def test_progress_is_shown_on_a_terminal_and_taken_away_again(monkeypatch, capsys):
    import sys

    from exengine.cli import progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "_TERMINAL_S", 0)
    with progress.FrameProgress("verified") as shown:
        shown(1, 4)
        shown(2, 4)
    err = capsys.readouterr().err
    assert "\r2 of 4 frames verified" in err
    assert err.endswith("\r") and err.rsplit("\r", 2)[1].strip() == ""


def test_recover_of_which_nothing_came_has_the_code_1(make, path, capsys):
    make(finish=True)
    (path / "NDTiff.index").unlink()
    code, out, _ = run(capsys, "recover", path)
    assert code == 1 and "frames   0 of 3" in out and "there is no NDTiff.index" in out


@pytest.mark.parametrize(("where", "status"), [("nowhere/deep/x.png", 1), (".", 2)])
def test_a_picture_that_cannot_be_written_is_a_plain_message(make, path, tmp_path, capsys, where, status):
    make(finish=True)
    code, out, err = run(capsys, "preview", path, "-o", tmp_path / where)
    assert (code, out) == (status, "") and err.startswith("exengine: the picture cannot be written to ")


def test_a_picture_replaces_an_older_one_and_nothing_else(make, path, tmp_path, capsys):
    image_module = pytest.importorskip("PIL.Image", reason="the picture needs the extra 'preview'")
    make(finish=True)
    for _ in range(2):
        assert run(capsys, "preview", path)[0] == 0
    with image_module.open(f"{path}.png") as picture:
        assert picture.size[0] > 100
    assert run(capsys, "preview", path, "-o", tmp_path / "sheet.png")[0] == 0
    (tmp_path / "text.png").write_text("mine")
    image_module.new("RGB", (4, 4)).save(tmp_path / "figure.png")
    image_module.new("RGB", (4, 4)).save(tmp_path / "photo.jpg")
    (tmp_path / "link.png").symlink_to("sheet.png")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "folder.png").mkdir()
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe.png")
        make_socket(tmp_path / "socket.png")
        if os.geteuid() == 0:
            make_device(tmp_path / "device.png")
    names = sorted(set(os.listdir(tmp_path)) - {path.name, f"{path.name}.png", "sheet.png"})
    names = [name for name in names if name.endswith((".png", ".jpg"))]
    assert len(names) >= 6
    before = {name: (tmp_path / name).lstat() for name in os.listdir(tmp_path)}
    for name in names:
        code, out, err = run(capsys, "preview", path, "-o", tmp_path / name)
        assert (code, out) == (1, "") and "is not a picture made by exengine preview" in err, name
    after = {name: (tmp_path / name).lstat() for name in os.listdir(tmp_path)}
    assert {name: (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns) for name, s in before.items()} == {
        name: (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns) for name, s in after.items()
    }
    assert (tmp_path / "text.png").read_text() == "mine"


def test_a_picture_that_cannot_be_written_leaves_the_older_one(make, path, capsys, monkeypatch):
    image_module = pytest.importorskip("PIL.Image", reason="the picture needs the extra 'preview'")
    make(finish=True)
    run(capsys, "preview", path)
    before = Path(f"{path}.png").read_bytes()

    def save(self, file, *_, **__):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_module.Image, "save", save)
    code, _, err = run(capsys, "preview", path)
    assert code == 1 and "No space left on device" in err
    assert Path(f"{path}.png").read_bytes() == before
    assert [name for name in os.listdir(path.parent) if name.startswith(".")] == []


def test_an_empty_path_is_no_dataset_also_in_the_folder_of_one(make, path, monkeypatch, capsys):
    make()
    before = (path / "exengine.json").read_bytes()
    monkeypatch.chdir(path)
    code, _, err = run(capsys, "recover", "", "--in-place")
    assert code == 1 and "does not exist" in err
    assert (path / "exengine.json").read_bytes() == before


def test_a_dataset_of_a_very_long_name_is_recovered(tmp_path, capsys):
    path = tmp_path / ("a" * 238)
    storage = exengine.open_storage("ndtiff", path)
    storage.put({"time": 0}, np.zeros((8, 8), np.uint16), None)
    storage.close()
    code, *_ = run(capsys, "recover", path, "-o", tmp_path / ("b" * 250))
    assert code == 0 and len(exengine.open_dataset(tmp_path / ("b" * 250))) == 1


@pytest.mark.parametrize("ledger", [{"stored": 1}, "all of them", {}])
def test_a_ledger_of_somebody_else_is_shown_as_far_as_it_goes(ledger, path, capsys):
    with exengine.open_storage("ndtiff", path) as storage:
        storage.put({"time": 0}, np.zeros((8, 8), np.uint16), None)
        storage.annotate("ledger", ledger)
    code, out, _ = run(capsys, "info", path)
    assert code == 0 and ("ledger   1 stored" in out) == (ledger == {"stored": 1})
