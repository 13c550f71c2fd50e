"""What the runner of pymmcore-plus does with errors, and what it does with a sink of ours.

The first half pins the behaviour that ``user_core/runner.py`` describes. If a test of it fails with a newer
pymmcore-plus, that module must be read again.
"""

import dis
import inspect
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import useq
from demo_lab import snaps, timelapse
from pymmcore_plus.mda import MDARunner
from user_core import FailingWrites, new_core

import exengine
from exengine.errors import AcquisitionError, SourceError
from exengine_micromanager import ExEngineSink
from exengine_micromanager.user_core import runner as runner_module


@pytest.fixture
def core():
    with new_core() as made:
        yield made


@pytest.fixture
def quiet(caplog):
    """Accept the error records of pymmcore-plus."""
    caplog.set_level(logging.CRITICAL, logger="pymmcore-plus")


class Output:
    """An output of a user that raises at a frame, or at the end."""

    def __init__(self, *, at=None, finish=False):
        self.frames, self.finished, self._at, self._finish = 0, False, at, finish

    def frameReady(self, image, event, meta):
        self.frames += 1
        if self.frames == self._at:
            raise OSError("disk full")

    def sequenceFinished(self, sequence):
        self.finished = True
        if self._finish:
            raise OSError("cannot finish")


# -- what pymmcore-plus does by itself -------------------------------------------------------------------


@pytest.mark.parametrize(("at", "frames", "finished"), [(3, 3, False), (None, 5, True)])
def test_an_output_that_raises_loses_later_frames_and_the_run_is_completed(
    core, monkeypatch, at, frames, finished
):
    hooked = []
    monkeypatch.setattr(threading, "excepthook", hooked.append)
    output = Output(at=at, finish=True)
    core.mda.run(timelapse(5), output=output)
    assert (output.frames, output.finished) == (frames, finished)
    assert str(core.mda.status.finish_reason) == "completed" and len(hooked) == 1


def test_a_slot_that_raises_hides_the_frame_from_later_slots(core, quiet):
    seen = []

    def raising(*_):
        raise ValueError("viewer")

    core.mda.events.frameReady.connect(raising)
    core.mda.events.frameReady.connect(lambda *frame: seen.append(frame))
    core.mda.run(timelapse(3))
    assert seen == [] and str(core.mda.status.finish_reason) == "completed"


def test_the_runner_raises_errors_of_its_data_sink_but_not_those_of_its_close(core, monkeypatch, quiet):
    class DataSink:
        def __init__(self, raising):
            self.raising, self.calls = raising, []

        def _do(self, name):
            self.calls.append(name)
            if name == self.raising:
                raise OSError(name)

        def setup(self, sequence, meta):
            self._do("setup")

        def append(self, image, event, meta):
            self._do("append")

        def skip(self, *, frames=1):
            self._do("skip")

        def close(self):
            self._do("close")

    for raising, raised, calls in (
        ("setup", True, ["setup", "close"]),
        ("append", True, ["setup", "append", "close"]),
        ("close", False, ["setup", "append", "append", "close"]),
    ):
        sink = DataSink(raising)
        monkeypatch.setattr(MDARunner, "_coerce_outputs", staticmethod(lambda *_, s=sink, **__: ([], s)))
        if raised:
            with pytest.raises(OSError, match=raising):
                core.mda.run(timelapse(2))
        else:
            core.mda.run(timelapse(2))
        assert sink.calls == calls


def test_an_interrupt_leaves_the_runner_running(core):
    def interrupt(event):
        raise KeyboardInterrupt

    core.mda.events.eventStarted.connect(interrupt)
    with pytest.raises(KeyboardInterrupt):
        core.mda.run(timelapse(2))
    assert core.mda.is_running()


def test_only_two_functions_of_the_runner_are_wrapped_and_only_once(core):
    ExEngineSink(backend="ndram")
    first = MDARunner.run, MDARunner._coerce_outputs
    ExEngineSink(backend="ndram")
    assert (MDARunner.run, MDARunner._coerce_outputs) == first
    original = getattr(MDARunner.run, runner_module._WRAPPED)
    assert inspect.signature(MDARunner.run) == inspect.signature(original)
    wrapped = [name for name, value in vars(MDARunner).items() if hasattr(value, "__wrapped__")]
    assert {"run", "_coerce_outputs"} == {*wrapped} - {"toggle_pause", "get_output_handlers"}


@pytest.mark.parametrize(
    ("first", "name", "says"),
    [
        ("from exengine_micromanager import ExEngineSink", "ExEngineSink", "complete"),
        ("import exengine_micromanager", "exengine_micromanager.ExEngineSink", "looked up before"),
    ],
)
def test_the_first_sink_of_a_process_may_be_created_in_the_call(first, name, says):
    program = f"""
import useq
{first}
from pymmcore_plus import CMMCorePlus
from user_core import new_core

made = []
def keep(sink):
    made.append(sink)
    return sink

with new_core() as core:
    try:
        core.mda.run(useq.MDASequence(channels=["DAPI"]), output=keep({name}(backend="ndram")))
        print(made[0].status)
    except RuntimeError as error:
        print(error, made[0].status)
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_RUNNING": "1"},
    )  # fmt: skip
    assert says in done.stdout


# -- with a sink -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["ndram", "ndtiff"])
@pytest.mark.parametrize("at", [1, 3, 5])
@pytest.mark.parametrize("sequence", [timelapse(5), snaps(5)], ids=["burst", "snaps"])
def test_the_run_raises_the_error_of_a_frame_even_of_the_last(
    core, tmp_path, monkeypatch, backend, at, sequence
):
    sink = ExEngineSink(tmp_path / "data", backend=backend)
    FailingWrites(monkeypatch, sink._recorder._storage_plan.cls, at=at)
    with pytest.raises(AcquisitionError, match="No space left on device") as raised:
        core.mda.run(sequence, output=sink)
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.ledger is sink.ledger and sink.ledger.stored == at - 1 and sink.ledger.balanced
    assert sink.status == "failed" and not core.mda.is_running()
    with pytest.raises(AcquisitionError) as again:
        sink.result(1)
    assert again.value is raised.value


def test_an_error_of_the_storage_ends_a_run_that_waits_for_its_next_time_point(core, monkeypatch):
    sink = ExEngineSink(backend="ndram")
    FailingWrites(monkeypatch, sink._recorder._storage_plan.cls, at=1)
    with pytest.raises(AcquisitionError, match="No space left on device"):
        core.mda.run(timelapse(2, interval=3600), output=sink)
    assert sink.ledger.stored == 0 and sink.ledger.offered == 1


def test_the_run_raises_an_error_of_finish(core, monkeypatch):
    sink = ExEngineSink(backend="ndram")
    FailingWrites(monkeypatch, sink._recorder._storage_plan.cls, finish=True)
    with pytest.raises(AcquisitionError, match="Input/output error"):
        core.mda.run(timelapse(3), output=sink)
    assert sink.ledger.stored == 3


def test_on_a_thread_the_error_reaches_the_result_and_the_excepthook(core, monkeypatch):
    hooked = []
    monkeypatch.setattr(threading, "excepthook", hooked.append)
    sink = ExEngineSink(backend="ndram")
    FailingWrites(monkeypatch, sink._recorder._storage_plan.cls, at=2)
    thread = core.run_mda(timelapse(5), output=sink)
    with pytest.raises(AcquisitionError, match="No space left on device") as raised:
        sink.result(30)
    thread.join(30)
    assert [one.exc_value for one in hooked] == [raised.value]


def test_an_error_of_the_engine_is_raised_itself_and_the_frames_before_are_stored(core, tmp_path):
    sink = ExEngineSink(tmp_path / "data", backend="ndtiff")
    error = RuntimeError("the stage is stuck")
    setup = core.mda.engine.setup_event

    def stuck(event):
        if event.index["p"] == 2:
            raise error
        setup(event)

    core.mda.engine.setup_event = stuck
    with pytest.raises(RuntimeError) as raised:
        core.mda.run(snaps(4), output=sink)
    assert raised.value is error
    assert "2 frames were stored" in error.__notes__[0] and "{'position': 2}" in error.__notes__[0]
    sink.close()
    dataset = exengine.open_dataset(tmp_path / "data")
    assert (len(dataset), dataset.status, dataset.status_reason) == (
        2,
        "aborted",
        "RuntimeError: the stage is stuck",
    )


def test_slots_that_raise_do_not_hide_a_frame_from_the_sink(core, quiet):
    def raising(*_):
        raise ValueError("viewer")

    core.mda.events.frameReady.connect(raising)
    core.mda.events.sequenceFinished.connect(raising)
    sink = ExEngineSink(backend="ndram")
    core.mda.run(timelapse(4), output=sink)
    assert sink.result(1).stored == 4 and sink.status == "complete"


def test_an_interrupt_ends_the_run_the_dataset_and_the_runner(core, tmp_path):
    seen = []

    def interrupt(event):
        seen.append(event)
        if len(seen) == 3:
            raise KeyboardInterrupt

    core.mda.events.eventStarted.connect(interrupt)
    sink = ExEngineSink(tmp_path / "data", backend="ndtiff")
    with pytest.raises(KeyboardInterrupt):
        core.mda.run(snaps(5), output=sink)
    core.mda.events.eventStarted.disconnect(interrupt)
    assert not core.mda.is_running() and sink.status == "aborted" and sink.ledger.stored == 2
    with pytest.raises(KeyboardInterrupt):
        sink.result(1)
    core.mda.run(snaps(2))  # the runner works again


@pytest.mark.parametrize("on_thread", [False, True])
def test_a_run_can_be_paused_resumed_and_cancelled_from_another_thread(core, tmp_path, on_thread):
    sink = ExEngineSink(tmp_path / "data", backend="ndtiff")
    paused, resumed = threading.Event(), threading.Event()

    def control():
        assert paused.wait(20)
        core.mda.set_paused(True)
        while not core.mda.is_paused():
            pass
        at = sink.ledger.offered
        core.mda.set_paused(False)
        while sink.ledger.offered < at + 2:
            pass
        resumed.set()
        core.mda.cancel()

    core.mda.events.frameReady.connect(lambda *_: paused.set())
    controller = threading.Thread(target=control)
    controller.start()
    sequence = snaps(2000)
    if on_thread:
        core.run_mda(sequence, output=sink)
    else:
        core.mda.run(sequence, output=sink)
    ledger = sink.result(30)
    controller.join(30)
    assert resumed.is_set() and sink.status == "aborted"
    assert 3 <= ledger.stored < 2000 and ledger.complete
    sink.close()
    dataset = exengine.open_dataset(tmp_path / "data")
    assert dataset.status_reason == "cancelled"
    assert sorted(where["position"] for where in dataset) == list(range(ledger.stored))


def test_other_outputs_of_the_run_receive_their_frames_as_well(core, tmp_path):
    sink, other, second = ExEngineSink(backend="ndram"), Output(), ExEngineSink(backend="ndram")
    core.mda.run(timelapse(3), output=[sink, other, tmp_path / "their.ome.zarr", second])
    assert (sink.ledger.stored, other.frames, second.ledger.stored) == (3, 3, 3)
    assert (tmp_path / "their.ome.zarr").is_dir() and core.mda.get_view() is not None


def test_a_run_without_a_sink_is_not_changed(core):
    output = Output()
    core.mda.run(timelapse(3), output=output)
    assert output.frames == 3 and output.finished


def test_a_sink_that_cannot_start_prevents_the_run_and_the_other_sinks_know(core, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("mine")
    started = []
    core.mda.events.sequenceStarted.connect(lambda *_: started.append(1))
    first, last = ExEngineSink(backend="ndram"), ExEngineSink(backend="ndram")
    refused = ExEngineSink(tmp_path / "data", backend="ndtiff")
    with pytest.raises(exengine.errors.DatasetExistsError):
        core.mda.run(timelapse(3), output=[first, refused, last])
    for sink in (first, refused, last):
        with pytest.raises(exengine.errors.DatasetExistsError):
            sink.result(1)
    assert started == [] and first.status != "complete"


def test_a_sink_cannot_be_connected_to_signals():
    with pytest.raises(SourceError, match="output of core.mda.run"):
        ExEngineSink(backend="ndram").frameReady(None, None, None)


def test_a_sink_records_one_run(core):
    sink = ExEngineSink(backend="ndram")
    core.mda.run(timelapse(2), output=sink)
    with pytest.raises(AcquisitionError, match="records only one run"):
        core.mda.run(timelapse(2), output=sink)
    assert sink.result(1).stored == 2


def test_the_result_of_a_run_that_does_not_start_can_time_out(core):
    with pytest.raises(TimeoutError):
        ExEngineSink(backend="ndram").result(0.01)


def test_useq_sequences_are_not_changed_by_the_sink(core):
    sequence = useq.MDASequence(channels=["DAPI"], grid_plan={"rows": 1, "columns": 2})
    before = sequence.model_dump_json()
    from exengine_micromanager.user_core.run_plan import plan_of_run

    plan, _ = plan_of_run(core.mda.engine, sequence)
    assert plan.frames == 2 and sequence.model_dump_json() == before


# -- an interrupt while a run begins or ends ---------------------------------------------------------------


def places_of_interrupts(function):
    """Return the bytecodes before which CPython raises KeyboardInterrupt: at the begin, after calls and jumps back."""
    instructions = list(dis.get_instructions(function))
    back = {
        each.argval
        for each in instructions
        if "BACKWARD" in each.opname and not each.opname.endswith("NO_INTERRUPT")
    }
    before = "RESUME"
    for instruction in instructions:
        if before.startswith(("RESUME", "CALL", "PRECALL")) or instruction.offset in back:
            yield instruction.offset
        if instruction.opname != "CACHE":
            before = instruction.opname


def test_an_interrupt_at_any_moment_leaves_the_runner_free():
    """Ctrl-C wherever a run with a sink can meet it, as it occupies or releases the runner."""
    functions = [runner_module._occupy, runner_module._release, runner_module._is_occupied_by]

    class Runner:
        _sequence = None

        def is_running(self):
            return False

    class Recorded:
        def end(self, error):
            return error

    class Sink(runner_module.RunSink):
        def _start(self, runner, events):
            return Recorded()

        def _refuse(self, error):
            pass

    inner = []
    run = runner_module._wrapped_run(lambda self, events, *, output=None: inner.append(output))
    places = {each.__code__: set(places_of_interrupts(each)) for each in (run, *functions)}
    interrupts, raised = 0, True
    while raised:
        left, raised, runner = interrupts, False, Runner()

        def trace(frame, event, argument):
            nonlocal left, raised
            if frame.f_code not in places:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode" and not raised and frame.f_lasti in places[frame.f_code]:
                left -= 1
                if left < 0:
                    raised = True
                    raise KeyboardInterrupt
            return trace

        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for it when the tracing begins
        sys.settrace(trace)
        try:
            run(runner, "events", output=Sink())
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert vars(runner) == {}, f"interrupt {interrupts} left the runner occupied"
        interrupts += 1
    assert interrupts > 25 and inner
