"""One acquisition from its config to its ledger: with the simulated source, and with sources that fail."""

import dataclasses
import datetime
import os
import shutil
import signal
import threading
import time
from collections import namedtuple

import pytest

from exengine.acquisition.run import Acquisition, acquire
from exengine.config.layers import resolve
from exengine.datasets.opening import open_dataset
from exengine.frame_sources.simulated import decode
from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import (
    AcquisitionError,
    ConfigError,
    ContractError,
    CoordinatesError,
    DatasetAccessError,
    DatasetExistsError,
    ExEngineError,
    OptionError,
    PluginBrokenError,
    PluginNotFoundError,
    SourceError,
    StorageFailedError,
    UnsupportedDataError,
)
from exengine.kernel.registry import plugins
from exengine.kernel.registry.plugins import SOURCES_GROUP, PluginRegistry
from exengine.kernel.storage import manifest

SEQUENCE = {
    "channels": ["DAPI", "FITC"],
    "time_plan": {"interval": 0, "loops": 3},
    "z_plan": {"range": 2, "step": 1},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def config(installed, path):
    """Return what makes a config: 18 small frames into the backend ``disk``, with changes."""

    def config(**changes):
        tree = {
            "storage": {"backend": "disk", "path": str(path)},
            "source": {"name": "simulated", "options": {"width": 32, "height": 24}},
            "sequence": dict(SEQUENCE),
        }
        for key, value in changes.items():
            section, _, rest = key.partition("__")
            if not rest:
                tree[section] = value
            elif rest.startswith("options__"):
                tree[section].setdefault("options", {})[rest.removeprefix("options__")] = value
            else:
                tree.setdefault(section, {})[rest] = value
        return tree

    return config


# -- a run ---------------------------------------------------------------------------------------


def test_every_frame_of_the_sequence_is_stored_at_its_coordinates(config, path):
    with Acquisition(config()) as run:
        assert (run.plan.frames, run.plan.shape, run.plan.dtype) == (18, (24, 32), "uint16")
        assert not path.exists() and run.storage is None
        ledger = run.run()
        assert ledger is run.ledger and run.path == os.path.realpath(path)
        assert run.status == "complete" and run.duration_s > 0
    assert (ledger.offered, ledger.stored, ledger.complete) == (18, 18, True)
    assert ledger.stored_bytes == 18 * 24 * 32 * 2
    dataset = open_dataset(path)
    assert dataset.status is DatasetStatus.COMPLETE and len(dataset) == 18
    assert dataset.axes == {"time": [0, 1, 2], "channel": ["DAPI", "FITC"], "z": [0, 1, 2]}
    for coordinates in dataset:
        assert decode(dataset[coordinates]) == coordinates
        assert dataset.get_metadata(coordinates)["channel"] == coordinates["channel"]


def test_the_resolved_config_and_the_ledger_are_kept_with_the_dataset(config, path, monkeypatch):
    monkeypatch.setenv("EXENGINE_SOURCE__OPTIONS__WIDTH", "48")
    acquire(config())
    kept = open_dataset(path).annotations
    assert kept["config"]["source"]["options"] == {"width": "48", "height": 24}
    assert kept["config"]["sequence"] == SEQUENCE
    assert kept["ledger"]["stored"] == 18
    assert open_dataset(path)[{"time": 0, "channel": "DAPI", "z": 0}].shape == (24, 48)


def test_a_config_may_hold_python_paths(config, path):
    assert acquire(config(storage__path=path)).stored == 18
    assert open_dataset(path).annotations["config"]["storage"]["path"] == str(path)


def test_the_config_may_be_a_file_or_be_resolved(config, tmp_path, path):
    import yaml

    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config(storage__if_exists="number")))
    assert acquire(file).stored == 18
    assert acquire(str(file)).stored == 18
    assert acquire(resolve(file)).stored == 18
    assert sorted(os.listdir(tmp_path))[-4:-1] == ["data", "data_1", "data_2"]


def test_the_path_that_was_chosen_is_reported(config, path):
    acquire(config())
    with Acquisition(config(storage__if_exists="number")) as run:
        run.run()
        assert run.path == os.path.realpath(f"{path}_1")


def test_frames_may_be_kept_in_memory_and_the_path_is_set_aside(config, path):
    with Acquisition(config(storage__backend="memory")) as run:
        assert run.run().stored == 18
        assert run.path is None and len(run.storage.frames) == 18
        assert run.storage.ended == ["finish"] and run.status == "complete"
        assert [aside.key for aside in run.config.set_aside] == ["storage.path"]
    assert run.storage.ended == ["finish", "close"] and not path.exists()


def test_progress_is_told_on_the_callers_thread_with_a_growing_ledger(config):
    seen = []

    def on_progress(ledger):
        seen.append((threading.current_thread() is threading.main_thread(), ledger.stored))

    with Acquisition(config(source__options__rate_hz=200.0)) as run:
        run.run(on_progress, interval_s=0.01)
    assert len(seen) > 2 and all(main for main, _ in seen)
    assert [stored for _, stored in seen] == sorted(stored for _, stored in seen)


def test_an_acquisition_runs_once(config):
    with Acquisition(config()) as run:
        run.run()
        with pytest.raises(AcquisitionError, match="an acquisition can be run only once"):
            run.run()


def test_closing_twice_does_no_harm(config):
    run = Acquisition(config())
    run.close()
    run.close()


def test_no_thread_is_left(config):
    before = set(threading.enumerate())
    acquire(config())
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert set(threading.enumerate()) <= before


# -- what is wrong is told before anything is written --------------------------------------------

WRONG = {
    "a misspelt backend": ({"storage__backend": "dsk"}, PluginNotFoundError, "did you mean 'disk'"),
    "no backend": ({"storage": {}}, ConfigError, "no backend is selected"),
    "no path": ({"storage__path": None}, ConfigError, "set storage.path"),
    "a misspelt source": ({"source__name": "simulatd"}, PluginNotFoundError, "no source .* did you mean 'simulated'"),
    "no source": ({"source": {}}, ConfigError, r"no frame source is selected; set source\.name .* Installed: .*simulated"),
    "a misspelt key": ({"storage__pth": "x"}, ConfigError, "did you mean 'storage.path'"),
    "a wrong option of the source": ({"source__options__width": "wide"}, OptionError, "'width' of source 'simulated'"),
    "an unknown option of the source": ({"source__options__wdth": 5}, OptionError, "did you mean 'width'"),
    "an unknown option of the backend": ({"storage__options__fail": 5}, OptionError, "has no option 'fail'"),
    "no sequence": ({"sequence": {}}, ConfigError, "the config has no sequence; add one, such as"),
    "a misspelt field": ({"sequence__chanels": ["DAPI"]}, ConfigError, "did you mean 'channels'"),
    "a bad plan": ({"sequence__time_plan": {"interval": 0, "loops": "many"}}, ConfigError, "sequence.time_plan"),
    "two frames in one place": (
        {"sequence": {"stage_positions": [{"x": 0, "name": "A"}, {"x": 1, "name": "A"}]}},
        SourceError,
        "position",
    ),
    "a frame too small": ({"source__options__width": 16, "source__options__height": 16, "sequence__metadata": {},
                           "sequence__channels": ["c" * 300]}, SourceError, "too small"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_before_anything_is_written(config, path, name):
    changes, error, says = WRONG[name]
    with pytest.raises(error, match=says) as info:
        acquire(config(**changes))
    assert isinstance(info.value, ExEngineError)
    assert not path.exists()


def test_without_a_sequence_section_it_is_missing(config, path):
    tree = config()
    del tree["sequence"]
    with pytest.raises(ConfigError, match="the config has no sequence"):
        acquire(tree)
    assert not path.exists()


def test_a_dataset_that_exists_stops_the_run_and_stays(config, path):
    acquire(config())
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(DatasetExistsError):
        acquire(config())
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_a_folder_that_cannot_be_used_stops_the_run(config, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DatasetAccessError):
        acquire(config(storage__path=str(tmp_path / "file" / "data")))
    assert (tmp_path / "file").read_text() == "mine"


# -- space on the disk ---------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


def test_a_run_that_the_disk_has_no_room_for_does_not_start(config, path, monkeypatch):
    asked = []

    def disk_usage(folder):
        asked.append(str(folder))
        return Usage(10**9, 0, 20_000)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    tree = config(storage__path=str(path / "not" / "there" / "yet"))
    with pytest.raises(
        DatasetAccessError, match=r"needs [\d.]+ [kM]B, but .* has only 20.0 kB free; choose another disk"
    ):
        Acquisition(tree)
    assert asked == [str(path.parent)] and not path.exists()
    with Acquisition(tree, check_space=False) as run:
        assert run.run().stored == 18


def test_a_run_that_keeps_its_frames_in_memory_asks_no_disk(config, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 0))
    assert acquire(config(storage__backend="memory")).stored == 18


# -- when the storage fails ----------------------------------------------------------------------


def test_an_error_of_the_storage_cancels_the_run_and_is_raised_with_the_ledger(config, path):
    tree = config(storage__options__fail_at=3, source__options__rate_hz=1000.0)
    tree["sequence"] = {"time_plan": {"interval": 0, "loops": 5000}}
    with Acquisition(tree) as run:
        with pytest.raises(
            AcquisitionError, match=r"No space left.*\n3 frames were stored in .*data, status failed"
        ) as info:
            run.run()
        assert info.value.ledger is run.ledger
        assert isinstance(info.value.__cause__, StorageFailedError)
    ledger = info.value.ledger
    assert ledger.stored == 3 and ledger.offered < 5000 and ledger.balanced and not ledger.complete
    dataset = open_dataset(path)
    assert dataset.status is DatasetStatus.FAILED and [c["time"] for c in dataset] == [0, 1, 2]
    assert dataset.annotations["ledger"]["stored"] == 3


# -- when the source fails -----------------------------------------------------------------------

SOURCE = '''
import threading
import numpy as np
from exengine.base_classes import FrameSource, SourcePlan

class Source(FrameSource):
    """Give frames, or fail.

    Parameters
    ----------
    frames : int
        How many it gives.
    planned : int, optional
        How many it says it will give.
    """

    def __init__(self, frames: int = 3, planned: int | None = None):
        self.frames, self.planned = frames, planned
        self.closed = 0
        self.cancelled = threading.Event()
        %(init)s

    def prepare(self, sequence):
        %(prepare)s
        return SourcePlan(frames=self.planned, shape=(2, 2), dtype="uint8")

    def run(self, sink):
        for number in range(self.frames):
            sink({"time": number}, np.full((2, 2), number, np.uint8), {})
        %(run)s

    def cancel(self):
        self.cancelled.set()

    def close(self):
        self.closed += 1
'''


@pytest.fixture
def with_source(config, make_distribution, monkeypatch, tmp_path):
    """Return what makes a config with a source that does something odd."""

    def with_source(init="pass", prepare="pass", run="pass", **options):
        text = SOURCE % {"init": init, "prepare": prepare, "run": run}
        make_distribution("a-source", {"odd": "a_source:Source"}, text, group=SOURCES_GROUP)
        monkeypatch.setattr(
            plugins, "SOURCES", PluginRegistry(SOURCES_GROUP, "source", [str(tmp_path / "site")])
        )
        return config(
            source={"name": "odd", "options": options}, sequence={"time_plan": {"interval": 0, "loops": 3}}
        )

    return with_source


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("raise RuntimeError('the lamp is out')", "RuntimeError: the lamp is out"),
        ("from exengine.errors import SourceError; raise SourceError('the lamp is out')", "^the lamp is out"),
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_an_error_of_the_source_is_raised_and_what_was_stored_is_finished_as_aborted(
    with_source, path, fault, says
):
    with Acquisition(with_source(run=fault)) as run:
        with pytest.raises(AcquisitionError, match=says) as info:
            run.run()
        assert run.source.closed == 1
    assert info.value.ledger.stored == 3 and "3 frames were stored in" in str(info.value)
    dataset = open_dataset(path)
    assert dataset.status is DatasetStatus.ABORTED and len(dataset) == 3
    assert says.strip("^") in dataset.status_reason


def test_a_source_that_cannot_be_closed_is_an_error_and_the_storage_is_released(
    with_source, path, monkeypatch
):
    run = Acquisition(with_source())

    def close():
        raise RuntimeError("the shutter is stuck")

    monkeypatch.setattr(run.source, "close", close)
    with pytest.raises(
        AcquisitionError, match=r"the shutter is stuck\n3 frames were stored in .* status complete"
    ):
        run.run()
    with pytest.raises(RuntimeError):
        run.close()
    assert not manifest.has_writer(str(path))
    assert (len(open_dataset(path)), open_dataset(path).status) == (3, DatasetStatus.COMPLETE)


def test_what_only_python_can_say_in_a_config_is_kept_as_text(config, path):
    sequence = {"time_plan": {"interval": datetime.timedelta(0), "loops": 2}}
    assert acquire(config(sequence=sequence)).stored == 2
    assert open_dataset(path).annotations["config"]["sequence"]["time_plan"] == {
        "interval": "0:00:00",
        "loops": 2,
    }


def test_frames_that_the_backend_does_not_take_are_refused_before_anything_is_written(
    config, path, installed, monkeypatch
):
    cls = installed.load("disk")
    for limits, says in (
        (
            {"dtypes": ("uint8",)},
            "the source delivers frames with dtype uint16, but backend 'disk' accepts only uint8",
        ),
        ({"dtypes": None, "ndim": (3,)}, "dimensions of the frames is 2, but backend 'disk' accepts only 3"),
    ):
        monkeypatch.setattr(cls, "capabilities", dataclasses.replace(cls.capabilities, **limits))
        with pytest.raises(UnsupportedDataError, match=says):
            Acquisition(config())
        assert not path.exists()


def test_a_source_that_gives_fewer_frames_than_it_said_is_an_error(with_source, path):
    with pytest.raises(AcquisitionError, match="the number of delivered frames is 3 instead of 5"):
        acquire(with_source(frames=3, planned=5))
    assert open_dataset(path).status is DatasetStatus.ABORTED


def test_a_source_need_not_know_how_many_frames_it_gives(with_source, path):
    assert acquire(with_source(frames=4)).stored == 4
    assert open_dataset(path).status is DatasetStatus.COMPLETE


@pytest.mark.parametrize(
    ("place", "error", "says"),
    [
        ("init", SourceError, "the source 'odd' could not start: OSError: no camera"),
        ("prepare", SourceError, "the source 'odd' could not prepare the acquisition: OSError: no camera"),
    ],
)
def test_a_source_that_fails_before_the_run_is_an_error_of_ours_and_nothing_is_written(
    with_source, path, place, error, says
):
    with pytest.raises(error, match=says) as info:
        acquire(with_source(**{place: "raise OSError('no camera')"}))
    assert isinstance(info.value.__cause__, OSError) and not path.exists()


def test_a_source_is_closed_when_something_else_is_wrong(with_source, monkeypatch):
    closed = []
    tree = with_source()

    def close(self):
        closed.append(self)

    monkeypatch.setattr(plugins.SOURCES.load("odd"), "close", close)
    del tree["sequence"]
    with pytest.raises(ConfigError):
        acquire(tree)
    assert len(closed) == 1


@pytest.mark.parametrize(
    ("source", "error"), [("raise SystemExit", PluginBrokenError), ("class Source: ...", ContractError)]
)
def test_a_broken_source_is_refused_by_name(
    config, make_distribution, monkeypatch, tmp_path, path, source, error
):
    make_distribution("a-source", {"odd": "a_source:Source"}, source, group=SOURCES_GROUP)
    monkeypatch.setattr(plugins, "SOURCES", PluginRegistry(SOURCES_GROUP, "source", [str(tmp_path / "site")]))
    with pytest.raises(error, match="the source 'odd' of a-source 1.0 is"):
        acquire(config(source={"name": "odd"}))
    assert not path.exists()


@pytest.mark.parametrize("how", ["interrupt", "source"])
def test_what_could_not_be_restored_is_reported_with_every_error(config, monkeypatch, how):
    from exengine.frame_sources.simulated import SimulatedSource

    monkeypatch.setattr(
        SimulatedSource, "unrestored", ("the shutter 'Laser' could not be closed",), raising=False
    )

    def interrupt(ledger):
        raise KeyboardInterrupt

    tree = config(source__options__fail_after=1) if how == "source" else config(source__options__rate_hz=5.0)
    tree["sequence"] = {"time_plan": {"interval": 0, "loops": 100}}
    with Acquisition(tree) as acquisition, pytest.raises((AcquisitionError, KeyboardInterrupt)) as ended:
        acquisition.run(interrupt if how == "interrupt" else None, interval_s=0.01)
    said = str(ended.value) + "".join(getattr(ended.value, "__notes__", ()))
    assert "the shutter 'Laser' could not be closed" in said


# -- ending it early -----------------------------------------------------------------------------


def test_an_interrupt_ends_the_run_cleanly_as_aborted(config, path):
    tree = config(source__options__rate_hz=500.0)
    tree["sequence"] = {"time_plan": {"interval": 0, "loops": 3000}}

    def interrupt(ledger):
        if ledger.stored > 3:
            raise KeyboardInterrupt

    with Acquisition(tree) as run:
        with pytest.raises(KeyboardInterrupt):
            run.run(interrupt, interval_s=0.005)
        assert run.ledger.balanced and 3 < run.ledger.stored < 3000
        assert run.status == "aborted"
    dataset = open_dataset(path)
    assert (dataset.status, dataset.status_reason) == (DatasetStatus.ABORTED, "interrupted")
    assert len(dataset) == run.ledger.stored == dataset.annotations["ledger"]["stored"]
    for coordinates in dataset:
        assert decode(dataset[coordinates]) == coordinates


def test_after_ctrl_c_the_source_is_closed_only_when_its_run_has_ended(with_source, monkeypatch):
    restoring = "self.cancelled.wait(30); threading.Event().wait(0.5); self.has_ended = True"
    ended = []
    with Acquisition(with_source(run=restoring, init="self.has_ended = False")) as run:
        source, close = run.source, run.source.close
        monkeypatch.setattr(source, "close", lambda: (ended.append(source.has_ended), close()))
        interrupt = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            run.run(interval_s=5)  # the interrupt comes while the main thread waits
        interrupt.join()
    assert ended[0] is True and run.status == "aborted"


def test_an_observer_that_raises_ends_the_run_as_aborted(config, path):
    def observe(ledger):
        raise ZeroDivisionError("a fault of the observer")

    tree = config(source__options__rate_hz=500.0)
    tree["sequence"] = {"time_plan": {"interval": 0, "loops": 3000}}  # not over before the observer is called
    with pytest.raises(ZeroDivisionError), Acquisition(tree) as run:
        run.run(observe, interval_s=0.005)
    assert open_dataset(path).status is DatasetStatus.ABORTED


def test_a_run_can_be_cancelled_from_another_thread(config, path):
    tree = config(source__options__rate_hz=500.0)
    tree["sequence"] = {"time_plan": {"interval": 0, "loops": 3000}}
    with Acquisition(tree) as run:

        def cancel():
            while run.ledger.stored < 3:
                time.sleep(0.001)
            run.cancel("enough")
            run.cancel("more than enough")

        thread = threading.Thread(target=cancel)
        thread.start()
        ledger = run.run()
        thread.join()
    assert 3 <= ledger.stored < 3000 and ledger.complete
    dataset = open_dataset(path)
    assert (dataset.status, dataset.status_reason) == (DatasetStatus.ABORTED, "enough")
    assert len(dataset) == ledger.stored


def test_frames_that_a_source_pushes_after_it_was_cancelled_are_not_stored(with_source, path):
    with Acquisition(with_source(frames=5)) as run:
        run.cancel("too early")
        assert run.run().stored == 0
    assert open_dataset(path).status is DatasetStatus.ABORTED


def test_a_failed_acquisition_says_whom_the_frames_are_lost_to(with_source, memory_storage, monkeypatch):
    def put(self, coordinates, data, metadata):
        raise ValueError("this backend takes no zeros")

    monkeypatch.setattr(memory_storage, "put", put)
    tree = with_source()
    tree["storage"] = {"backend": "memory"}
    with (
        Acquisition(tree) as run,
        pytest.raises(AcquisitionError, match="ValueError: this backend takes no zeros") as info,
    ):
        run.run()
    assert info.value.ledger.stored == 0 and info.value.ledger.failed == info.value.ledger.offered > 0
    assert run.storage.ended == ["failed: this backend takes no zeros", "close"]
    assert all(reason for _, reason in info.value.ledger.not_stored)


# -- the plan --------------------------------------------------------------------------------------


@pytest.fixture
def with_expect(config, monkeypatch):
    """Return what makes a run whose storage receives the plan with a function."""

    def with_expect(expect):
        monkeypatch.setattr(plugins.BACKENDS.load("disk"), "prepare_frames", expect)
        return Acquisition(config())

    return with_expect


def test_the_storage_receives_the_plan_before_the_first_frame(with_expect):
    seen = []
    with with_expect(lambda storage, plan: seen.append((len(storage), plan))) as run:
        run.run()
        assert seen == [(0, run.plan)] and run.plan.axes


@pytest.mark.parametrize(
    ("error", "cause"),
    [(CoordinatesError("six axes"), CoordinatesError), (OSError(28, "No space left"), StorageFailedError)],
)
def test_a_storage_that_refuses_the_plan_ends_the_run_as_failed(with_expect, error, cause):
    def refuse(storage, plan):
        raise error

    with with_expect(refuse) as run:
        with pytest.raises(
            AcquisitionError, match=r"(six axes|No space left).*\n0 frames (were )?stored.*status failed"
        ) as info:
            run.run()
        assert isinstance(info.value.__cause__, cause)
        assert info.value.ledger.offered == 0 and run.status == "failed"
        path = run.path
    dataset = open_dataset(path)
    assert dataset.status is DatasetStatus.FAILED and len(dataset) == 0


def test_an_interrupt_while_the_storage_prepares_ends_the_run(with_expect):
    def interrupt(storage, plan):
        raise KeyboardInterrupt

    with with_expect(interrupt) as run, pytest.raises(KeyboardInterrupt):
        run.run()
    assert run.ledger.offered == 0
