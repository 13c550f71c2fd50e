"""Two interrupts in one acquisition, the second where it hurts: the shutter is closed, settings are restored (S2).

The acquisition runs in a process of its own. It presses Ctrl-C itself, and writes down the state of the
devices right before they are released.
"""

import json
import subprocess
import sys

import pytest

import exengine

CHILD = """
import json, os, signal, sys, threading
import exengine, exengine_micromanager
from exengine_micromanager import engine, restoring, source

config, state, how, moment = sys.argv[1:]
press = lambda: os.kill(os.getpid(), signal.SIGINT)
pressed = []

def before(owner, name, action):
    original = getattr(owner, name)
    def method(*args, **options):
        action(*args)
        return original(*args, **options)
    setattr(owner, name, method)

def first(handler, *frame):
    if handler.ledger.stored >= 2 and not pressed:
        pressed.append("first")
        microscope = careful[0]
        held = microscope.getShutterOpen() and not microscope.getAutoShutter()
        print(json.dumps(["running", held]), flush=True)
        press()
        if moment not in moments:
            threading.Timer(float(moment), second).start()

def second(*_):
    if pressed == ["first"]:
        pressed.append("second")
        press()

class Core(engine.CarefulCore):
    def unloadAllDevices(self):
        shutters = self.getLoadedDevicesOfType(3)
        if shutters:
            opened = [label for label in shutters if self.getShutterOpen(label)]
            with open(state, "a") as file:
                file.write(json.dumps([opened, self.getAutoShutter(), self.getExposure()]) + "\\n")
            if moment == "as the devices are released":
                second()
        super().unloadAllDevices()

careful = []
engine.CarefulCore = Core
before(exengine.DataHandler, "put", first)
before(restoring.Before, "__init__", lambda _, core, *__: careful.append(core))
moments = {
    "as the handler finishes": (exengine.DataHandler, "finish"),
    "as the last frames are stored": (exengine.DataHandler, "await_completion"),
    "as the run is cancelled": (source.MicroManagerSource, "cancel"),
    "as the source closes": (source.MicroManagerSource, "close"),
    "as the settings are restored": (restoring.Before, "_restore"),
    "as the shutter closes": (restoring, "_set_shutter"),
    "as the devices are released": (),
}
if moments.get(moment):
    before(*moments[moment], second)
code = 0
try:
    if how == "command":
        from exengine.cli.main import main
        code = main(["acquire", config])
    elif how == "function":
        exengine.acquire(config)
    else:
        with exengine.Acquisition(config) as acquisition:
            acquisition.run(interval_s=0.005)
except BaseException as error:
    code = type(error).__name__
print(json.dumps([code, pressed]), flush=True)
"""

CONFIG = """\
storage: {{backend: ndtiff, path: {path}}}
source: {{name: micromanager}}
sequence:
  channels: [{{config: DAPI, exposure: 20}}]
  z_plan: {{range: 200, step: 1}}
  keep_shutter_open_across: [z]
"""

MOMENTS = [
    "as the handler finishes",
    "as the last frames are stored",
    "as the run is cancelled",
    "as the source closes",
    "as the settings are restored",
    "as the shutter closes",
    "as the devices are released",
]
DELAYS_S = ["0", "0.02"]
CASES = [
    *((moment, "class") for moment in (*MOMENTS, DELAYS_S[0])),
    *((moment, "command") for moment in (MOMENTS[2], MOMENTS[4], DELAYS_S[1])),
    (MOMENTS[3], "function"),
]


@pytest.mark.parametrize(("moment", "how"), CASES)
def test_after_two_interrupts_the_shutter_is_closed_and_settings_are_restored(tmp_path, moment, how):
    config, state = tmp_path / "config.yaml", tmp_path / "state"
    config.write_text(CONFIG.format(path=tmp_path / "data"))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, config, state, how, moment],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert lines[0] == ["running", True], done.stderr  # the shutter is held open, or the test proves nothing
    assert lines[-1][0] in (130, "KeyboardInterrupt"), (done.stdout, done.stderr)
    assert lines[-1][1] == ["first", "second"] or moment in DELAYS_S  # the run may end before
    seen = [json.loads(line) for line in state.read_text().splitlines()]
    assert seen == [[[], True, 10.0]]
    with exengine.open_dataset(tmp_path / "data") as dataset:
        assert dataset.status in ("aborted", "failed")  # failed: the second came while a frame was on its way
        assert 2 <= len(dataset) < 201
