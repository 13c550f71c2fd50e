"""Hooks: who is told what, on which thread, and that nobody who is told can harm an acquisition."""

import json
import logging
import sys
import threading
import time

import numpy as np
import pytest

import exengine
from exengine.acquisition import observers
from exengine.acquisition.observers import Observers
from exengine.acquisition.run import Acquisition
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.registry import hooks
from exengine.kernel.registry.hooks import HookManager

WATCHER = """
import threading

from exengine import hookimpl

told = []


def note(event, *what):
    told.append((event, threading.current_thread().name, *what))


@hookimpl
def exengine_storage_opened(storage, backend, path):
    note("opened", backend, path, type(storage).__name__)


@hookimpl
def exengine_frames_stored(coordinates):
    note("frames", coordinates)


@hookimpl
def exengine_acquisition_finished(ledger, status, path):
    note("finished", ledger.stored, status, path)
"""

RAISING = """
import exengine


class Raising:
    @exengine.hookimpl
    def exengine_storage_opened(self):
        raise SystemExit("I want to go")

    @exengine.hookimpl
    def exengine_frames_stored(self, coordinates):
        raise ValueError("no frames, please")

    @exengine.hookimpl
    def exengine_acquisition_finished(self, path):
        raise KeyboardInterrupt


observer = Raising()
"""


@pytest.fixture
def hook_plugin(make_distribution):
    """Return what installs a plugin of the group ``exengine.hooks``."""

    def make(name, source, target=None, entry="observer"):
        module = name.replace("-", "_")
        make_distribution(name, {entry: target or module}, source, group="exengine.hooks")
        return name

    return make


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """Put a manager of the hooks in ``tmp_path / 'site'`` in place of the installed ones."""
    found = HookManager([str(tmp_path / "site")])
    monkeypatch.setattr(observers, "hooks", found)
    return found


def plan(tmp_path=None, loops=3, backend="memory", **options):
    storage = {"backend": backend, "options": options}
    if tmp_path is not None:
        storage["path"] = str(tmp_path / "data")
    return {
        "storage": storage,
        "source": {"name": "simulated", "options": {"width": 32, "height": 32}},
        "sequence": {"time_plan": {"interval": 0, "loops": loops}},
    }


def told_to(module):
    return sys.modules[module].told


# -- what is told --------------------------------------------------------------------------------


def test_an_observer_is_told_the_opening_every_frame_in_order_and_the_end(
    installed, manager, hook_plugin, tmp_path
):
    hook_plugin("exengine-watch", WATCHER)
    with Acquisition(plan(tmp_path, loops=40, backend="disk")) as run:
        run.run()
    events = told_to("exengine_watch")
    assert events[0][2:] == ("disk", str(tmp_path / "data"), "DiskStorage")
    frames = [where for event in events[1:-1] for where in event[2]]
    assert frames == [{"time": number} for number in range(40)]
    assert events[-1][2:] == (40, "complete", str(tmp_path / "data"))
    assert [event[0] for event in events[:1] + events[-1:]] == ["opened", "finished"]
    assert run.observer_errors == []


def test_all_calls_of_an_observer_come_from_one_thread_that_stores_nothing(installed, manager, hook_plugin):
    hook_plugin("exengine-watch", WATCHER)
    exengine.acquire(plan())
    assert {event[1] for event in told_to("exengine_watch")} == {"exengine-observer-exengine-watch:observer"}


def test_the_end_is_told_of_an_acquisition_that_fails_too(installed, manager, hook_plugin, tmp_path):
    hook_plugin("exengine-watch", WATCHER)
    with pytest.raises(exengine.errors.AcquisitionError):
        exengine.acquire(plan(tmp_path, backend="disk", fail_at=2, loops=5))
    event, _, stored, status, _ = told_to("exengine_watch")[-1]
    assert (event, stored, status) == ("finished", 2, "failed")


def test_frames_come_in_batches_and_not_one_by_one(installed, manager, hook_plugin):
    hook_plugin("exengine-watch", WATCHER)
    begin = time.monotonic()
    exengine.acquire(plan(loops=300))
    most = (time.monotonic() - begin) / observers.INTERVAL_S + 1
    batches = [event for event in told_to("exengine_watch") if event[0] == "frames"]
    assert 1 <= len(batches) <= most
    assert sum(len(event[2]) for event in batches) == 300


def test_an_object_and_some_of_the_arguments_will_do(installed, manager, hook_plugin):
    source = (
        "import exengine\n"
        "class Observer:\n"
        "    def __init__(self): self.seen = []\n"
        "    @exengine.hookimpl\n"
        "    def exengine_acquisition_finished(self, status): self.seen.append(status)\n"
        "observer = Observer()\n"
    )
    hook_plugin("exengine-some", source, "exengine_some:observer")
    exengine.acquire(plan())
    assert sys.modules["exengine_some"].observer.seen == ["complete"]


def test_two_plugins_of_one_name_are_both_told(installed, manager, hook_plugin):
    hook_plugin("exengine-one", WATCHER)
    hook_plugin("exengine-two", WATCHER)
    assert [record.state for record in manager.load()] == ["valid", "valid"]
    exengine.acquire(plan())
    assert told_to("exengine_one")[-1][2] == told_to("exengine_two")[-1][2] == 3


def test_what_an_observer_does_to_its_list_and_ledger_is_seen_by_nobody_else(installed, manager, hook_plugin):
    spoiling = WATCHER.replace('note("frames", coordinates)', "coordinates.clear()").replace(
        'note("finished", ledger.stored, status, path)', "ledger.stored = -1"
    )
    hook_plugin("exengine-a-spoiler", spoiling)
    hook_plugin("exengine-watch", WATCHER)
    assert exengine.acquire(plan()).stored == 3
    events = told_to("exengine_watch")
    assert sum(len(event[2]) for event in events if event[0] == "frames") == 3
    assert events[-1][2] == 3


# -- observers that misbehave --------------------------------------------------------------------


def test_an_observer_that_raises_stops_neither_the_acquisition_nor_the_others(
    installed, manager, hook_plugin, caplog
):
    hook_plugin("exengine-raising", RAISING, "exengine_raising:observer")
    hook_plugin("exengine-watch", WATCHER)
    with Acquisition(plan()) as run, caplog.at_level(logging.ERROR, "exengine"):
        assert run.run().stored == 3
    assert told_to("exengine_watch")[-1][2] == 3
    assert run.observer_errors == [
        "exengine-raising:observer raised in exengine_storage_opened: SystemExit: I want to go",
        "exengine-raising:observer raised in exengine_frames_stored: ValueError: no frames, please",
        "exengine-raising:observer raised in exengine_acquisition_finished: KeyboardInterrupt",
    ]
    assert [record.getMessage() for record in caplog.records] == run.observer_errors


def test_the_same_error_again_is_counted_and_logged_once(manager, hook_plugin, monkeypatch, caplog):
    monkeypatch.setattr(observers, "INTERVAL_S", 0.001)
    hook_plugin("exengine-raising", RAISING, "exengine_raising:observer")
    watching = Observers(manager)
    watching.opened(None, "memory", None)
    (observer,) = watching._observers
    with caplog.at_level(logging.ERROR, "exengine"):
        for number in range(3):
            watching.frames_stored([exengine.DataCoordinates(time=number)])
            wait_until(lambda: not observer.waiting and sum(observer._errors.values()) == number + 2)  # noqa: B023
        problems = watching.finished(Ledger(), "complete", None)
    frames = [text for text in problems if "frames_stored" in text]
    assert frames == [
        "exengine-raising:observer raised in exengine_frames_stored: ValueError: no frames, please (3 times)"
    ]
    assert len([record for record in caplog.records if "frames_stored" in record.getMessage()]) == 1


def wait_until(condition, patience_s=10.0):
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_the_storing_goes_on_while_an_observer_is_stuck_and_its_batches_are_merged(manager, hook_plugin):
    source = WATCHER + "\nentered, released = threading.Event(), threading.Event()\n"
    source = source.replace('note("opened"', 'entered.set()\n    assert released.wait(30)\n    note("opened"')
    hook_plugin("exengine-slow", source)
    watching = Observers(manager)
    watching.opened(None, "memory", None)
    module = sys.modules["exengine_slow"]
    assert module.entered.wait(30)
    for number in range(5000):  # returns although the observer is stuck in its first call
        watching.frames_stored([number])
    assert module.told == []
    module.released.set()
    assert watching.finished(Ledger(), "complete", None) == []
    assert [event[0] for event in module.told] == ["opened", "frames", "finished"]
    assert module.told[1][2] == list(range(5000))


def test_an_observer_that_never_returns_is_left_behind_and_named(
    installed, manager, hook_plugin, monkeypatch
):
    monkeypatch.setattr(observers, "TIMEOUT_S", 0.05)
    source = "from exengine import hookimpl\nimport threading\nstop = threading.Event()\n"
    source += "@hookimpl\ndef exengine_acquisition_finished():\n    stop.wait()\n"
    hook_plugin("exengine-stuck", source)
    with Acquisition(plan()) as run:
        assert run.run().stored == 3
    sys.modules["exengine_stuck"].stop.set()
    assert run.observer_errors == ["exengine-stuck:observer did not return within 0.05 s and was abandoned"]


def test_of_more_frames_than_may_wait_an_observer_is_not_told_and_that_is_said(
    manager, hook_plugin, monkeypatch
):
    monkeypatch.setattr(observers, "MAX_WAITING", 10)
    hook_plugin("exengine-watch", WATCHER)
    watching = Observers(manager)
    for number in range(25):  # its thread has not started: nobody takes them
        watching.frames_stored([number])
    watching.opened(None, "memory", None)
    problems = watching.finished(Ledger(), "complete", None)
    assert problems == ["exengine-watch:observer was too slow; frames of which it was not notified: 15"]
    assert told_to("exengine_watch")[1][2] == list(range(10))


def test_errors_of_observers_are_in_the_summary_of_the_command_line(
    installed, manager, hook_plugin, tmp_path, capsys
):
    from exengine.cli.main import main

    hook_plugin("exengine-raising", RAISING, "exengine_raising:observer")
    config = tmp_path / "c.json.yaml"
    config.write_text(json.dumps(plan()))
    assert main(["acquire", str(config)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "  observer " in line]
    assert len(lines) == 3 and "ValueError: no frames, please" in lines[1]
    assert main(["acquire", str(config), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["observer_errors"]) == 3


# -- plugins that are refused --------------------------------------------------------------------

IMPL = "import exengine\n@exengine.hookimpl\n"
REFUSED = {
    "a misspelt hook": (
        IMPL + "def exengine_frame_stored(coordinates): ...",
        "invalid",
        "no hook is called 'exengine_frame_stored' (did you mean 'exengine_frames_stored'",
    ),
    "a misspelt hook beside a good one": (
        IMPL + "def exengine_storage_opened(): ...\n@exengine.hookimpl\ndef exengine_frame_stored(): ...",
        "invalid",
        "no hook is called 'exengine_frame_stored'",
    ),
    "a misspelt hook that is not marked": (
        "def exengine_frames_store(coordinates): ...",
        "invalid",
        "no hook is called 'exengine_frames_store' (did you mean 'exengine_frames_stored'",
    ),
    "a hook that is not marked": (
        IMPL + "def exengine_storage_opened(): ...\ndef exengine_frames_stored(coordinates): ...",
        "invalid",
        "exengine_frames_stored is not marked as a hook; write @exengine.hookimpl above it",
    ),
    "a marked function of any name": (IMPL + "def observe(coordinates): ...", "invalid", "no hook is called 'observe'"),
    "a misspelt specname": (
        "import exengine\n@exengine.hookimpl(specname='exengine_frames')\ndef f(coordinates): ...",
        "invalid",
        "no hook is called 'exengine_frames'",
    ),
    "an argument that the hook does not give": (
        IMPL + "def exengine_frames_stored(coordinate): ...",
        "invalid",
        "exengine_frames_stored has a parameter 'coordinate', which the hook does not pass (did you mean 'coordinates'?)",
    ),
    "an argument by keyword only": (
        IMPL + "def exengine_frames_stored(*, coordinates): ...",
        "invalid",
        "is keyword-only",
    ),
    "a coroutine": (IMPL + "async def exengine_frames_stored(coordinates): ...", "invalid", "coroutine"),
    "a generator": (IMPL + "def exengine_frames_stored(coordinates): yield 1", "invalid", "generator"),
    "a wrapper": (
        "import exengine\n@exengine.hookimpl(wrapper=True)\ndef exengine_frames_stored(): return (yield)",
        "invalid",
        "is a wrapper",
    ),
    "no hook at all": ("x = 1", "invalid", "does not implement any hook"),
    "ImportError": ("import nothing_of_that_name", "broken", "ModuleNotFoundError"),
    "SyntaxError": ("def", "broken", "SyntaxError"),
    "SystemExit": ("raise SystemExit(3)", "broken", "SystemExit: 3"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "broken", "KeyboardInterrupt"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_plugin_with_a_fault_is_refused_by_name_and_the_others_go_on(
    case, installed, manager, hook_plugin, caplog
):
    source, state, message = REFUSED[case]
    hook_plugin("exengine-faulty", source, entry="z-faulty")
    hook_plugin("exengine-watch", WATCHER)
    with Acquisition(plan()) as run:
        assert run.run().stored == 3
    watch, faulty = manager.records()
    assert (faulty.state, watch.state) == (state, "valid")
    assert message in faulty.error
    (told,) = run.observer_errors
    assert told.startswith("the hooks of exengine-faulty:z-faulty 1.0 cannot be used: ") and message in told
    assert told_to("exengine_watch")[-1][2] == 3


TARGETS = {
    "a class": ("exengine_faulty:Observer", "invalid", "the entry point names the class Observer"),
    "a property that raises": ("exengine_faulty:raising", "broken", "cannot be inspected"),
    "no such attribute": ("exengine_faulty:nothing", "broken", "AttributeError"),
    "None": ("exengine_faulty:none", "broken", "is None"),
    "code": ("json;import os:x", "broken", "not a valid target"),
}
OBJECTS = """
import exengine
class Observer:
    @exengine.hookimpl
    def exengine_frames_stored(self, coordinates): ...
class Raising(Observer):
    def __dir__(self): raise RuntimeError("do not look")
raising, none = Raising(), None
"""


@pytest.mark.parametrize("case", TARGETS)
def test_an_object_that_cannot_be_used_is_refused(case, manager, hook_plugin):
    target, state, message = TARGETS[case]
    hook_plugin("exengine-faulty", OBJECTS, target)
    (record,) = manager.load()
    assert record.state == state and message in record.error
    assert manager.implementations() == ()


def test_one_object_under_two_names_is_refused_the_second_time(manager, make_distribution):
    source = OBJECTS + "observer = Observer()\n"
    entries = {"one": "exengine_twice:observer", "two": "exengine_twice:observer"}
    make_distribution("exengine-twice", entries, source, group="exengine.hooks")
    assert sorted(record.state for record in manager.load()) == ["invalid", "valid"]
    assert len(manager.implementations("exengine_frames_stored")) == 1


def test_what_a_plugin_prints_at_import_stays_off_stdout(manager, hook_plugin, capsys):
    hook_plugin("exengine-watch", "print('hello')\n" + WATCHER)
    (record,) = manager.load()
    out, err = capsys.readouterr()
    assert (record.state, record.output, out) == ("valid", "hello\n", "") and "hello" in err


def test_plugins_that_end_or_hold_up_the_process_are_found_broken_by_a_probe(hook_plugin, monkeypatch):
    hook_plugin("exengine-a-good", WATCHER)
    hook_plugin("exengine-exiting", "import os; os._exit(7)", entry="exiting")
    monkeypatch.setattr("exengine.kernel.registry.probing.TIME_LIMIT_S", 3.0)
    hook_plugin("exengine-hanging", "import time; time.sleep(60)", entry="hanging")
    monkeypatch.setattr(hooks, "hooks", HookManager())
    found = {record["distribution"]: record for record in hooks.probe()}
    assert found["exengine-a-good"]["state"] == "valid"
    assert found["exengine-exiting"]["state"] == "broken"
    assert "exit code 7" in found["exengine-exiting"]["error"]
    assert "did not end within 3 s" in found["exengine-hanging"]["error"]


# -- no hooks, no cost ---------------------------------------------------------------------------


def test_without_a_plugin_pluggy_is_not_imported_and_no_thread_starts(run_python, installed):
    # Other distributions of this environment may have hooks: only the folder of the test is scanned.
    program = """
import sys, threading
from exengine.acquisition import observers
from exengine.kernel.registry import discovery
from exengine.kernel.registry.hooks import HookManager
observers.hooks = HookManager([sys.argv[1]])
import exengine
config = {"storage": {"backend": "memory"}, "source": {"name": "simulated"},
          "sequence": {"time_plan": {"interval": 0, "loops": 3}}}
started = []
start = threading.Thread.start
threading.Thread.start = lambda self: (started.append(self.name), start(self))[1]
assert exengine.acquire(config).stored == 3
print([name for name in started if "observer" in name], "pluggy" in sys.modules)
"""
    folder = installed._path[0]
    assert run_python(program, folder).stdout.split("\n")[0] == "[] False"


@pytest.mark.parametrize("hook", ["exengine_acquisition_finished", "exengine_frames_stored"])
def test_the_storing_thread_does_something_per_frame_only_when_somebody_watches_frames(
    hook, installed, manager, hook_plugin, monkeypatch
):
    executors = []

    def make(*arguments, **more):
        executors.append(more["on_stored"])
        return exengine.DataHandler(*arguments, **more)

    monkeypatch.setattr("exengine.acquisition.recorder.DataHandler", make)
    hook_plugin("exengine-some", IMPL + f"def {hook}(): ...")
    exengine.acquire(plan())
    assert [executor is not None for executor in executors] == [hook == "exengine_frames_stored"]


def test_the_hooks_are_found_again_after_a_refresh(manager, hook_plugin):
    assert manager.load() == ()
    hook_plugin("exengine-watch", WATCHER)
    assert manager.load() == ()
    manager.refresh()
    assert [record.state for record in manager.load()] == ["valid"]


def test_no_observer_thread_is_left_when_an_acquisition_has_ended(installed, manager, hook_plugin):
    hook_plugin("exengine-watch", WATCHER)
    exengine.acquire(plan())
    assert not [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("exengine-observer-exengine-watch")
    ]


# -- sections of the docs ------------------------------------------------------------------------


def test_sections_of_pages_come_in_the_order_of_names_and_faults_are_said(manager, hook_plugin):
    source = IMPL + "def exengine_docs_sections(name, cls): return {}\n"
    hook_plugin("exengine-b", source.format('[("B of " + name, cls.__name__)]'), entry="b")
    hook_plugin("exengine-a", source.format('[("A", "text")]'), entry="a")
    hook_plugin("exengine-c", source.format('"text"'), entry="c")
    hook_plugin("exengine-d", source.format("1 / 0"), entry="d")
    hook_plugin("exengine-e", source.format("None"), entry="e")
    sections, problems = manager.docs_sections("disk", np.ndarray)
    assert [(one.title, one.text) for one in sections] == [("A", "text"), ("B of disk", "ndarray")]
    assert [one.record.distribution for one in sections] == ["exengine-a", "exengine-b"]
    assert len(problems) == 2
    assert "the implementation must return a list of (title, text), but its list contains 't'" in problems[0]
    assert "exengine-d:d raised in exengine_docs_sections: ZeroDivisionError" in problems[1]


def test_a_section_stands_on_the_page_of_a_plugin_and_unsound_markup_as_it_is(
    installed, manager, hook_plugin, monkeypatch
):
    pytest.importorskip("sphinx", reason="pages are written with the extra 'docs'")
    from exengine.checks.report import PluginReport
    from exengine.sphinxext.kinds import BACKENDS, Setup
    from exengine.sphinxext.pages import plugin_page

    monkeypatch.setattr(hooks, "hooks", manager)
    source = IMPL + (
        "def exengine_docs_sections(name, cls):\n"
        "    return [('Sizes *of* ' + name, 'Some **bold** words.'), ('Bad', '.. include:: /etc/passwd')]\n"
    )
    hook_plugin("exengine-a", source, entry="a")
    hook_plugin("exengine-b", IMPL + "def exengine_docs_sections(): 1 / 0\n", entry="b")
    installed.load("memory")
    page = plugin_page(PluginReport(installed.find("memory")), BACKENDS, Setup())
    assert "Sizes \\*of\\* memory\n====" in page
    assert "\nSome **bold** words.\n" in page
    assert ".. code-block:: text\n\n   .. include:: /etc/passwd" in page
    assert "A section is missing here: exengine-b:b raised in exengine_docs_sections" in page.replace(
        "\\", ""
    )
    assert page.index("Sizes") < page.index("API reference")
