"""The main job, end to end: a real Micro-Manager acquisition into the backend that the config names."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import exengine

DEMO = Path(__file__).parents[2] / "examples" / "demo.yaml"


def command(*arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None):
    return subprocess.run(
        [sys.executable, "-m", "exengine", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )


@pytest.fixture(scope="module")
def acquired(tmp_path_factory):
    path = tmp_path_factory.mktemp("job") / "demo"
    done = command("acquire", DEMO, "--path", path, "--json")
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout)


def test_every_frame_of_the_demo_camera_is_stored(acquired):
    path, summary = acquired
    assert summary["path"] == str(path)
    assert summary["status"] == "complete"
    ledger = summary["ledger"]
    assert (ledger["offered"], ledger["stored"], ledger["dropped"], ledger["failed"]) == (100, 100, 0, 0)
    assert ledger["stored_bytes"] == 100 * 512 * 512 * 2


def test_ndstorage_reads_the_same_frames_coordinates_and_metadata(acquired):
    ndstorage = pytest.importorskip("ndstorage", reason="the oracle comes with exengine-ndstorage")
    path, _ = acquired
    ours = exengine.open_dataset(path)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = ndstorage.Dataset(str(path))
    expected = {(time, channel, z) for time in range(10) for channel in ("DAPI", "FITC") for z in range(5)}
    assert {(c["time"], c["channel"], c["z"]) for c in ours} == expected
    assert {(k["time"], k["channel"], k["z"]) for k in theirs.get_image_coordinates_list()} == expected
    for coordinates in ours:
        np.testing.assert_array_equal(ours[coordinates], theirs.read_image(**coordinates))
        assert ours.get_metadata(coordinates) == theirs.read_metadata(**coordinates)
    assert ours.summary_metadata == theirs.summary_metadata
    metadata = ours.get_metadata({"time": 3, "channel": "FITC", "z": 2})
    assert metadata["exposure_ms"] == 10
    assert metadata["pixel_size_um"] == 1
    theirs.close()
    ours.close()


def test_the_dataset_keeps_its_config_and_its_ledger(acquired):
    dataset = exengine.open_dataset(acquired[0])
    assert dataset.annotations["config"]["sequence"]["channels"] == ["DAPI", "FITC"]
    assert dataset.annotations["ledger"]["stored"] == 100
    dataset.close()


def test_the_preview_is_a_picture_of_both_channels(acquired, tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="the picture needs the extra 'preview'")
    done = command("preview", acquired[0], "-o", tmp_path / "p.png")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "p.png") in done.stdout
    picture = np.asarray(image_module.open(tmp_path / "p.png").convert("L"))
    top, bottom = np.split(picture[: len(picture) // 2 * 2], 2)
    assert top.std() > 20
    assert bottom.std() > 20


@pytest.mark.parametrize("how", ["file", "option", "environment"])
def test_the_backend_can_be_named_in_three_ways(how, tmp_path):
    text = DEMO.read_text()
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("backend: ndtiff", "backend: ndram") if how == "file" else text)
    more = ["--backend", "ndram"] if how == "option" else []
    env = {"EXENGINE_STORAGE__BACKEND": "ndram"} if how == "environment" else {}
    done = command("acquire", config, *more, "--json", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["backend"], summary["path"], summary["ledger"]["stored"]) == ("ndram", None, 100)
    assert "storage.path" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml"]
    explained = json.loads(command("config", "explain", config, *more, "--json", env=env).stdout)
    rows = {row["key"]: row for row in explained["settings"]}
    layers = {"file": "file", "option": "command line", "environment": "environment"}
    assert rows["storage.backend"]["value"] == "ndram"
    assert rows["storage.backend"]["origin"]["layer"] == layers[how]
    assert rows["handler.when_full"]["origin"]["layer"] == "default"
    assert [item["key"] for item in explained["set_aside"]] == ["storage.path"]


SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_ctrl_c_or_the_end_of_the_session_finishes_what_is_stored_as_aborted(tmp_path, number):
    config = tmp_path / "slow.yaml"
    config.write_text(
        f"storage: {{backend: ndtiff, path: {tmp_path / 'slow'}}}\n"
        "source: {name: simulated, options: {rate_hz: 50, width: 64, height: 64}}\n"
        "sequence: {time_plan: {interval: 0, loops: 3500}}\n"  # for 70 s
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "exengine", "acquire", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()  # the first line of progress: frames are being stored
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "aborted" in out
    assert "interrupted" in err
    assert "Traceback" not in err
    dataset = exengine.open_dataset(tmp_path / "slow")
    assert dataset.status == "aborted"
    assert 0 < len(dataset) < 3500
    ledger = dataset.annotations["ledger"]
    assert ledger["balanced"]
    assert ledger["stored"] == len(dataset)
    dataset.close()


def test_a_source_that_fails_leaves_what_came_before(tmp_path):
    config = {
        "storage": {"backend": "ndtiff", "path": str(tmp_path / "d")},
        "source": {"name": "simulated", "options": {"fail_after": 7}},
        "sequence": {"time_plan": {"interval": 0, "loops": 20}},
    }
    with pytest.raises(exengine.errors.AcquisitionError) as caught:
        exengine.acquire(config)
    assert caught.value.ledger.stored == 7
    dataset = exengine.open_dataset(tmp_path / "d")
    assert len(dataset) == 7
    assert dataset.status in ("aborted", "failed")
    dataset.close()


@pytest.mark.skipif(shutil.which("nohup") is None, reason="no nohup on this system")
def test_a_run_under_nohup_outlives_the_session(tmp_path):
    config = tmp_path / "slow.yaml"
    config.write_text(
        f"storage: {{backend: ndtiff, path: {tmp_path / 'slow'}}}\n"
        "source: {name: simulated, options: {rate_hz: 50, width: 64, height: 64}}\n"
        "sequence: {time_plan: {interval: 0, loops: 300}}\n"
    )
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "exengine", "acquire", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()  # frames are being stored
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "complete" in out and "300 stored" in out
