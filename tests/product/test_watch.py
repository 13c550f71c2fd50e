"""``exengine acquire --watch`` on a terminal: what it shows, and that no terminal holds up an acquisition."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import exengine

if os.name != "posix":
    pytest.skip("pseudo-terminals exist on POSIX systems", allow_module_level=True)

EXAMPLES = Path(__file__).parents[2] / "examples"
LEAVE = b"\x1b[?1049l"


@pytest.fixture
def terminal():
    """Return a function that runs ``exengine`` on a terminal."""
    terminals, made = runpy.run_path(str(Path(__file__).with_name("terminals.py"))), []

    def run(*arguments, **more):
        made.append(terminals["Terminal"](*arguments, **more))
        return made[-1]

    yield run
    for one in made:
        one.close()


@pytest.fixture
def steps(tmp_path):
    """Store frames with a dark and a bright half, and return the config of their replay."""
    with exengine.open_storage("ndtiff", tmp_path / "steps") as storage:
        for number in range(60):
            frame = np.zeros((64, 64), np.uint16)
            frame[:, 32:] = 1000
            storage.put({"time": number}, frame, {})
    config = tmp_path / "replay.yaml"
    config.write_text(
        json.dumps(
            {
                "storage": {"backend": "ndtiff", "path": str(tmp_path / "played")},
                "source": {"name": "replay", "options": {"path": str(tmp_path / "steps"), "rate": 40}},
            }
        )
    )
    return config


def simulated(tmp_path, frames=60, rate=100):
    return [
        "acquire", EXAMPLES / "simulated.yaml", "--path", tmp_path / "data", "--set", f"source.options.rate_hz={rate}",
        "--set", f"sequence.time_plan.loops={frames // 10}",
    ]  # fmt: skip


def labels(screen):
    return [line.split()[0] for line in screen[1:] if line[:2] == "  " and "▀" not in line]


def test_the_demo_with_micromanager_is_shown_while_it_runs(terminal, tmp_path):
    shown = terminal(
        "acquire", EXAMPLES / "demo.yaml", "--path", tmp_path / "demo", "--watch", "--set",
        "sequence.time_plan.interval=0.2",
    )  # fmt: skip
    shown.read(until="newest")
    screen, _ = shown.screen()
    assert labels(screen) == ["frames", "rate", "queue", "disk", "ledger", "newest"]
    assert screen[0].startswith(f"{tmp_path}/demo (ndtiff)"[:90])
    assert " of 100" in screen[1] and "512 x 512 uint16" in screen[6] and "channel=" in screen[6]
    assert sum(line.count("▀") for line in screen) > 500
    shown.read()
    assert shown.process.returncode == 0 and shown.raw.count(LEAVE) == 1
    summary = shown.raw.partition(LEAVE)[2].decode()
    assert "100 offered, 100 stored, 0 dropped" in summary and "\x1b" not in summary


def test_the_newest_frame_of_a_replay_is_drawn_with_half_blocks(terminal, steps):
    shown = terminal("acquire", steps, "--watch")
    shown.read(until="newest")
    lines, colors = shown.screen()
    picture = [(line, color) for line, color in zip(lines, colors, strict=True) if "▀" in line]
    assert len(picture) == 30 - 7
    for line, color in picture:
        width = len(line)
        assert set(color[: width // 2 - 1]) == {(0, 0, 0)}
        assert set(color[width // 2 + 1 : width]) == {(255, 255, 255)}
    shown.read()
    assert shown.process.returncode == 0


def wait_for_status(path, status, timeout_s=60):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if os.path.exists(path):
            with exengine.open_dataset(path) as dataset:
                if dataset.status == status:
                    return len(dataset), dataset.annotations.get("ledger")
        time.sleep(0.05)
    raise AssertionError(f"the dataset did not become {status}")


def test_a_terminal_that_accepts_nothing_does_not_hold_up_the_run(terminal, tmp_path):
    shown = terminal(*simulated(tmp_path), "--watch", columns=200, lines=60)
    frames, ledger = wait_for_status(tmp_path / "data", "complete")
    assert frames == 60 and ledger["stalled"]["frames"] == 0
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for the terminal, with the summary
        shown.process.wait(0.3)
    shown.read()
    assert shown.process.returncode == 0
    assert "60 offered, 60 stored" in shown.raw.partition(LEAVE)[2].decode()


@pytest.mark.parametrize("frames", [60, 3000], ids=["after the run", "during the run"])
def test_an_interrupt_ends_the_program_while_its_terminal_accepts_nothing(terminal, tmp_path, frames):
    shown = terminal(*simulated(tmp_path, frames), "--watch", columns=200, lines=60)
    if frames == 60:
        wait_for_status(tmp_path / "data", "complete")
        with pytest.raises(subprocess.TimeoutExpired):
            shown.process.wait(0.3)
    else:
        wait_for_status(tmp_path / "data", "incomplete")
        with exengine.open_dataset(tmp_path / "data") as dataset:
            while len(dataset) < 60:
                dataset.await_new_data(10)
    shown.process.send_signal(signal.SIGINT)
    assert shown.process.wait(20) == 130
    status = "complete" if frames == 60 else "aborted"
    assert exengine.open_dataset(tmp_path / "data").status == status


def test_ctrl_c_gives_the_screen_back_and_finishes_the_dataset(terminal, tmp_path):
    shown = terminal(*simulated(tmp_path, 3000), "--watch")
    shown.read(until="newest")
    shown.type(b"\x03")
    shown.read()
    after = shown.raw.partition(LEAVE)[2].decode()
    assert shown.process.returncode == 130 and "interrupted; the dataset was finished as aborted" in after
    assert exengine.open_dataset(tmp_path / "data").status == "aborted"


SHELL = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen([sys.executable, "-m", "exengine", *sys.argv[1:]], process_group=0)
os.tcsetpgrp(0, job.pid)
_, status = os.waitpid(job.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpgrp())
print("stopped", os.WIFSTOPPED(status), flush=True)
input()
os.tcsetpgrp(0, job.pid)
os.kill(job.pid, signal.SIGCONT)
sys.exit(job.wait())
"""


def test_ctrl_z_gives_the_screen_back_until_the_program_continues(terminal, tmp_path):
    shown = terminal(*simulated(tmp_path, 300), "--watch", program=("-c", SHELL))
    shown.read(until="newest")
    shown.type(b"\x1a")
    shown.read(until="stopped True")
    assert shown.raw.partition(LEAVE)[2].strip().endswith(b"stopped True")
    shown.type(b"\n")
    shown.read()
    assert shown.process.returncode == 0 and shown.raw.count(LEAVE) == 2
    assert b"300 offered, 300 stored" in shown.raw.rpartition(LEAVE)[2]


@pytest.mark.parametrize("why", ["a pipe", "json", "a dumb terminal"])
def test_without_a_terminal_there_is_plain_progress(terminal, tmp_path, why):
    frames = 240 if why == "a pipe" else 60
    arguments = [*simulated(tmp_path, frames), "--watch", *(["--json"] if why == "json" else [])]
    if why == "a pipe":  # where a line is printed every two seconds
        done = subprocess.run(
            [sys.executable, "-m", "exengine", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=True,
        )
        out, progress = done.stdout, done.stderr
    else:
        shown = terminal(*arguments, **({"TERM": "dumb"} if why == "a dumb terminal" else {}))
        shown.read()
        assert shown.process.returncode == 0
        out = progress = shown.raw.decode()
    assert "\x1b" not in out + progress and f"of {frames} frames, " in progress
    assert f"{frames}" in out and (f'"stored": {frames}' in out) == (why == "json")
