"""The source ``replay`` plays what a dataset contains, and leaves the dataset as it is."""

import contextlib
import os
import threading
import time

import numpy as np
import pytest
import useq

import exengine
from exengine.acquisition.run import Acquisition, acquire
from exengine.config.layers import resolve
from exengine.datasets.creation import open_storage
from exengine.datasets.opening import open_dataset
from exengine.frame_sources.replay import ReplaySource
from exengine.kernel.errors import (
    AcquisitionError,
    ConfigError,
    DatasetNotFoundError,
    ExEngineError,
    OptionError,
    SourceError,
    StorageClosedError,
)
from exengine.kernel.registry import plugins
from exengine.testing import SourceConformance
from exengine.testing.promises import PromiseBrokenError
from exengine.testing.recorded import replay_options
from exengine.testing.source_conformance import Subject

EMPTY = useq.MDASequence()
FRAMES = [
    ({"time": t, "channel": c, "z": z}, {"elapsed_ms": 30.0 * number, "note": [c, None]})
    for number, (t, c, z) in enumerate((t, c, z) for t in range(2) for c in ("DAPI", "FITC") for z in (2, -1))
]


def pixels(coordinates):
    return np.frombuffer(repr(coordinates).ljust(96).encode()[:96], np.uint16).reshape(6, 8).copy()


@pytest.fixture
def recorded(installed, tmp_path):
    """Store eight frames, and return the path."""
    path = str(tmp_path / "recorded")
    with open_storage("disk", path) as storage:
        for coordinates, metadata in FRAMES:
            storage.put(coordinates, pixels(coordinates), metadata)
        storage.annotate("plan", {"pixel_size_um": [0.5, 0.25], "z_step_um": 3.0, "interval_s": 0.05})
    return path


def played(path, **options):
    """Return the plan and the frames of a replay, each with the time at which it came."""
    frames, begin = [], time.monotonic()
    source = ReplaySource(path, **options)
    try:
        plan = source.prepare(EMPTY)
        assert [dict(where) for where in plan.coordinates()] == [dict(where) for where in open_dataset(path)]
        source.run(lambda *frame: frames.append((*frame, time.monotonic() - begin)))
    finally:
        source.close()
    return plan, frames


def config(path, target, **more):
    return {
        "storage": {"backend": "disk", "path": str(target), **more.pop("storage", {})},
        "source": {"name": "replay", "options": {"path": str(path), **more.pop("options", {})}},
        **more,
    }


def test_frames_coordinates_and_metadata_are_those_of_the_dataset_in_its_order(recorded):
    plan, frames = played(recorded)
    assert plan.frames == len(frames) == len(FRAMES)
    for (where, data, metadata, _), (coordinates, stored) in zip(frames, FRAMES, strict=True):
        assert dict(where) == coordinates and metadata == stored
        assert data.dtype == np.uint16 and np.array_equal(data, pixels(coordinates))


def test_the_plan_has_the_facts_of_the_dataset(recorded):
    plan, _ = played(recorded)
    assert [(axis.name, axis.positions) for axis in plan.axes] == [
        ("time", (0, 1)), ("channel", ("DAPI", "FITC")), ("z", (2, -1))
    ]  # fmt: skip
    assert (plan.pixel_size_um, plan.z_step_um, plan.interval_s) == ((0.5, 0.25), 3.0, 0.05)
    assert [channel.name for channel in plan.channels] == ["DAPI", "FITC"]
    assert plan.layouts == ()  # the backend accepts frames of any shape and does not record them


def test_an_acquisition_stores_the_same_frames_and_facts(recorded, tmp_path):
    ledger = acquire(config(recorded, tmp_path / "new"))
    assert (ledger.offered, ledger.stored, ledger.complete) == (8, 8, True)
    old, new = open_dataset(recorded), open_dataset(tmp_path / "new")
    assert list(old) == list(new)
    for where in old:
        assert np.array_equal(old[where], new[where]) and old.get_metadata(where) == new.get_metadata(where)
    again, _ = played(str(tmp_path / "new"))
    assert (again.pixel_size_um, again.z_step_um, again.interval_s) == ((0.5, 0.25), 3.0, 0.05)
    old.close()
    new.close()


# -- rates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "interval_s"), [("recorded", 0.03), (50, 0.02), (40.0, 0.025)])
def test_no_frame_comes_before_its_time(recorded, rate, interval_s):
    _, frames = played(recorded, rate=rate)
    came = [frame[-1] for frame in frames]
    assert all(at >= number * interval_s for number, at in enumerate(came))
    assert came[-1] < 20


def test_without_times_in_the_metadata_time_points_keep_their_interval(recorded, monkeypatch):
    monkeypatch.setattr("exengine.frame_sources.replay._TIME_KEYS", ("absent",))
    _, frames = played(recorded, rate="recorded")
    assert frames[-1][-1] >= 0.05 and len(frames) == 8


@pytest.mark.parametrize("metadata", [{}, {"elapsed_ms": None}, {"elapsed_ms": "nan"}, [1]])
def test_recorded_is_refused_if_the_dataset_has_no_times(installed, tmp_path, metadata):
    with open_storage("disk", str(tmp_path / "new")) as storage:
        storage.put({"time": 0}, np.zeros((2, 2), np.uint8), metadata)
    with pytest.raises(SourceError, match="has no times: .* set rate to max"):
        played(str(tmp_path / "new"), rate="recorded")
    assert len(played(str(tmp_path / "new"))[1]) == 1


@pytest.mark.parametrize("rate", ["fast", 0, -1, None])
def test_other_rates_are_refused(recorded, rate):
    with pytest.raises(OptionError, match="rate"):
        ReplaySource(recorded, rate=rate)


# -- what is refused -----------------------------------------------------------------------------


def test_a_sequence_is_refused_and_named(recorded, tmp_path):
    with pytest.raises(SourceError, match=r"takes no sequence.*remove sequence\.channels"):
        acquire(config(recorded, tmp_path / "new", sequence={"channels": ["DAPI"]}))
    assert not (tmp_path / "new").exists()


def test_a_sequence_for_the_source_of_a_lower_layer_is_set_aside(recorded, tmp_path):
    tree = config(
        recorded, tmp_path / "new", sequence={"channels": ["DAPI"], "z_plan": {"range": 2, "step": 1}}
    )
    tree["source"] = {"name": "simulated", "options": {"width": 32}}
    with Acquisition(
        resolve(tree, command_line={"source.name": "replay", "source.options.path": recorded})
    ) as run:
        assert run.run().stored == 8
    assert [(one.key, one.reason) for one in run.config.set_aside if one.key.startswith("sequence")] == [
        (f"sequence.{name}", "command line selects 'replay', which needs no sequence")
        for name in ("channels", "z_plan")
    ]


def test_a_source_that_needs_a_sequence_still_does(installed, tmp_path):
    tree = {**config("", tmp_path / "new"), "source": {"name": "simulated"}}
    with pytest.raises(ConfigError, match="has no sequence"):
        acquire(tree)


def test_a_dataset_without_frames_or_none_is_refused(installed, tmp_path):
    open_storage("disk", str(tmp_path / "empty")).finish()
    with pytest.raises(SourceError, match="has no frames"):
        played(str(tmp_path / "empty"))
    with pytest.raises(DatasetNotFoundError):
        played(str(tmp_path / "none"))
    with pytest.raises(SourceError, match="prepare"):
        ReplaySource(str(tmp_path / "none")).run(print)


@pytest.mark.parametrize("through_link", [False, True])
def test_the_dataset_that_is_played_is_not_overwritten(recorded, tmp_path, through_link):
    target = tmp_path / "link"
    target.symlink_to(recorded)
    with pytest.raises(ConfigError, match="if_exists is overwrite, which would delete"):
        acquire(config(recorded, target if through_link else recorded, storage={"if_exists": "overwrite"}))
    assert len(played(recorded)[1]) == 8


# -- ends ----------------------------------------------------------------------------------------


def content(folder):
    return {entry.name: (entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(folder)}


@pytest.mark.parametrize("end", ["complete", "cancel", "close", "sink"])
def test_every_end_leaves_the_dataset_and_the_process_as_they_were(recorded, end, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "exengine.frame_sources.replay.open_dataset",
        lambda path: opened.append(open_dataset(path)) or opened[-1],
    )
    before, threads = content(recorded), threading.active_count()
    source, came = ReplaySource(recorded, rate="max" if end == "complete" else 10), []
    source.prepare(EMPTY)
    timers = []

    def sink(*frame):
        came.append(frame)
        if end == "sink":
            raise OSError("disk full")
        if end in ("cancel", "close"):
            timers.append(threading.Timer(0.01, getattr(source, end)))
            timers[-1].start()

    begin = time.monotonic()
    expected = {"sink": pytest.raises(OSError, match="full"), "close": contextlib.suppress(ExEngineError)}
    with expected.get(end, contextlib.nullcontext()):
        source.run(sink)
    assert len(came) == {"complete": 8, "sink": 1}.get(end, len(came)) and came
    assert time.monotonic() - begin < 10
    source.close()
    source.close()
    for timer in timers:
        timer.join()
    assert content(recorded) == before and threading.active_count() == threads
    (dataset,) = opened
    with pytest.raises(StorageClosedError):
        len(dataset)


def test_a_wait_for_a_frame_ends_when_the_acquisition_is_cancelled(recorded, tmp_path):
    run = Acquisition(config(recorded, tmp_path / "new", options={"rate": 0.001}))
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run.run(lambda ledger: (_ for _ in ()).throw(KeyboardInterrupt) if ledger.stored else None)
    run.close()
    assert time.monotonic() - begin < 10
    assert run.status == "aborted" and len(open_dataset(tmp_path / "new")) == 1


def test_a_frame_that_cannot_be_read_ends_the_run_with_its_name(recorded, tmp_path):
    os.truncate(os.path.join(recorded, "3.npy"), 10)
    with pytest.raises(AcquisitionError) as raised:
        acquire(config(recorded, tmp_path / "new"))
    assert raised.value.ledger.stored == 3
    assert exengine.open_dataset(tmp_path / "new").status == "aborted"


# -- the kit of sources --------------------------------------------------------------------------


class TestReplay(SourceConformance):
    source = "replay"

    @pytest.fixture(autouse=True)
    def _backends(self, installed):
        """The kit stores its dataset with an installed backend."""


class Forgetful(ReplaySource):
    """Leaves out the second frame."""

    def run(self, sink, /):
        super().run(lambda where, *rest: None if where["time"] == 1 else sink(where, *rest))


class Obliging(ReplaySource):
    """Accepts a sequence, and ignores it."""

    def prepare(self, sequence, /):
        return super().prepare(EMPTY)


@pytest.mark.parametrize(
    ("cls", "test", "arguments"),
    [
        (Forgetful, "test_every_planned_frame_comes_once_at_its_coordinates", {}),
        (Forgetful, "test_the_coordinates_of_the_plan_are_those_of_the_frames", {}),
        (
            Obliging,
            "test_what_is_impossible_is_refused_by_prepare",
            {"what": "a setup", "fields": {"setup": {"exposure": 7}}},
        ),
    ],
)
def test_the_kit_finds_a_source_without_a_sequence_that_breaks_its_promise(
    installed, tmp_path, cls, test, arguments
):
    subject = Subject(lambda: cls(**replay_options(str(tmp_path))), needs_sequence=False)
    with pytest.raises(PromiseBrokenError):
        getattr(TestReplay(), test)(subject, **arguments)


@pytest.mark.parametrize(
    ("test", "arguments", "reason"),
    [
        ("test_what_is_impossible_is_refused_by_prepare", {"what": "", "fields": {}}, "needs no sequence"),
        ("test_a_setup_is_carried_out_or_refused", {}, "needs no sequence"),
        ("test_settings_are_as_before_after_every_end", {"end": "storage"}, "reports no settings"),
    ],
)
def test_the_kit_names_promises_that_do_not_apply(installed, tmp_path, test, arguments, reason):
    subject = Subject(lambda: ReplaySource(**replay_options(str(tmp_path))), needs_sequence=False)
    getattr(TestReplay(), test)(subject, **arguments)
    assert reason in subject.not_promised_by


def test_the_kit_needs_a_backend_that_opens_its_datasets(monkeypatch, tmp_path, backends_of):
    (tmp_path / "site").mkdir()
    monkeypatch.setattr(plugins, "BACKENDS", backends_of())
    with pytest.raises(ExEngineError, match="install one"):
        replay_options(str(tmp_path))


def test_only_the_missing_frames_are_played_at_the_same_rate(recorded):
    """A continued acquisition does not wait for the frames that exist."""
    existing = [exengine.DataCoordinates(where) for where, _ in FRAMES[:5]]
    frames, begin = [], time.monotonic()
    with contextlib.closing(ReplaySource(recorded, rate=20.0)) as source:
        with pytest.raises(SourceError, match="no sequence was prepared"):
            source.skip(existing)
        source.prepare(EMPTY)
        source.skip(existing)
        source.run(lambda coordinates, *_: frames.append((dict(coordinates), time.monotonic() - begin)))
    assert [where for where, _ in frames] == [where for where, _ in FRAMES[5:]]
    assert 0.09 < frames[-1][1] < 0.33  # two intervals of 0.05 s, and not seven


def test_a_replay_that_ended_early_is_continued_in_its_dataset(recorded, tmp_path, monkeypatch):
    whole = ReplaySource.run

    def run(self, sink):
        def first_three(*frame):
            if len(delivered) == 3:
                raise SourceError("the cable was pulled")
            delivered.append(frame)
            sink(*frame)

        delivered = []
        whole(self, first_three)

    target = tmp_path / "target"
    with monkeypatch.context() as patch:
        patch.setattr(ReplaySource, "run", run)
        with pytest.raises(AcquisitionError, match="the cable was pulled"):
            acquire(resolve(config(recorded, target)))
    assert len(open_dataset(target)) == 3
    ledger = acquire(resolve(config(recorded, target)), resume=target)
    assert ledger.stored == 5
    dataset = open_dataset(target)
    assert dataset.status == "complete"
    for where, metadata in FRAMES:
        np.testing.assert_array_equal(dataset.get_data(where), pixels(where))
        assert dataset.get_metadata(where) == metadata
