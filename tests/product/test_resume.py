"""``exengine acquire --resume`` and Ctrl-Z, as a user meets them: in processes of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

import exengine

FRAMES = 40
PATIENCE_S = 60.0


@pytest.fixture
def config(tmp_path):
    """Return what writes a config of 40 frames, and returns its path."""

    def config(name="config.yaml", **changes):
        tree = {
            "storage": {"backend": "ndtiff", "path": str(tmp_path / "elsewhere")},
            "source": {"name": "simulated", "options": {"width": 64, "height": 48, "rate_hz": 40}},
            "sequence": {"channels": ["DAPI", "FITC"], "time_plan": {"interval": 0.05, "loops": FRAMES // 2}},
        }
        for section, values in changes.items():
            tree[section].update(values)
        (tmp_path / name).write_text(yaml.safe_dump(tree))
        return tmp_path / name

    return config


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "exengine", "acquire", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # in the session of the tests: otherwise, the system ignores SIGTSTP
    )


def ended(process):
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, json.loads(out) if out else None, err


def wait_for_frames(path, count):
    until = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < until, f"there were no {count} frames in time"
        if path.exists():
            dataset = exengine.open_dataset(path)
            found = len(dataset)
            dataset.close()
            if found >= count:
                return found
        time.sleep(0.01)


def test_an_acquisition_that_was_killed_is_continued_by_the_same_command(config, tmp_path):
    path, file = tmp_path / "data", config()
    process = start(file, "--resume", path)
    wait_for_frames(path, 5)
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    left = len(exengine.open_dataset(path))
    code, summary, err = ended(start(file, "--resume", path))
    assert code == 0, err
    assert (summary["path"], summary["status"]) == (str(path), "complete")
    ledger = summary["ledger"]
    assert (ledger["stored_before"], ledger["stored"]) == (left, FRAMES - left) and left >= 5
    assert exengine.verify(path).ok and not (tmp_path / "elsewhere").exists()

    before = {each: each.stat().st_mtime_ns for each in path.rglob("*")}
    code, summary, err = ended(start(file, "--resume", path))
    assert (code, summary["ledger"]["stored"], summary["ledger"]["stored_before"]) == (0, 0, FRAMES), err
    assert {each: each.stat().st_mtime_ns for each in path.rglob("*")} == before


def test_another_config_is_refused_with_the_difference_and_changes_nothing(config, tmp_path):
    path = tmp_path / "data"
    assert ended(start(config(), "--resume", path))[0] == 0
    other = config("other.yaml", sequence={"channels": ["DAPI"]})
    code, answer, err = ended(start(other, "--resume", path))
    assert code == 2 and "sequence.channels" in err and "Traceback" not in err
    assert answer["error"]["type"] == "ConfigError"
    assert exengine.verify(path).ok


@pytest.mark.parametrize("backend", ["ndtiff", "ome-zarr"])
def test_a_real_microscope_takes_only_the_missing_frames(tmp_path, backend):
    tree = {
        "storage": {"backend": backend, "path": "unused"},
        "source": {"name": "micromanager", "options": {"exposure_ms": 20}},
        "sequence": {
            "channels": ["DAPI", "FITC"],
            "time_plan": {"interval": 0, "loops": 5},
            "z_plan": {"range": 2, "step": 1},
        },
    }
    path = tmp_path / "data"
    run = exengine.Acquisition(tree, resume=path)
    with run, pytest.raises(KeyboardInterrupt):
        run.run(lambda ledger: _interrupt_at(ledger, 8), interval_s=0.001)
    left = exengine.open_dataset(path)
    count, before = len(left), {at: left[at] for at in left}
    left.close()
    assert left.status == "aborted" and 8 <= count < 30
    with exengine.Acquisition(tree, resume=path) as run:
        ledger = run.run()
    assert (ledger.stored, ledger.stored_before) == (30 - count, count)
    dataset = exengine.open_dataset(path)
    assert len(set(dataset)) == len(dataset) == 30 and dataset.status == "complete"
    assert all((dataset[at] == pixels).all() for at, pixels in before.items())
    assert exengine.verify(path).ok
    dataset.close()


def _interrupt_at(ledger, count):
    if ledger.stored >= count:
        raise KeyboardInterrupt


@pytest.mark.skipif(not hasattr(signal, "SIGTSTP"), reason="this system has no Ctrl-Z")
def test_ctrl_z_loses_no_frame_and_names_what_came_late(config, tmp_path):
    path = tmp_path / "data"
    process = start(config(), "--path", path)
    wait_for_frames(path, 4)
    os.kill(process.pid, signal.SIGTSTP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    stopped = len(exengine.open_dataset(path))
    time.sleep(0.7)  # the time in which the program is stopped
    assert len(exengine.open_dataset(path)) == stopped < FRAMES
    os.kill(process.pid, signal.SIGCONT)
    code, summary, err = ended(process)
    assert code == 0, err
    assert (summary["status"], summary["ledger"]["stored"]) == ("complete", FRAMES)
    late = summary["ledger"]["late"]
    assert late and 0.3 < late[0]["delay_s"] < 30, late
    assert exengine.verify(path).ok
    shutil.rmtree(path)
