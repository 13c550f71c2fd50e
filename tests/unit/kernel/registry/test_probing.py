"""What no ``try`` can hold back is met in a process of its own, and becomes a record like any other fault."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exengine.kernel.errors import ContractError, PluginBrokenError
from exengine.kernel.registry import probe_child, probing

pytestmark = pytest.mark.once

GOOD = (Path(__file__).parents[3] / "backends" / "good.py").read_text(encoding="utf-8")
GOOD_LINE = GOOD.splitlines().index("class Good(DataStorage):") + 1
SEGFAULT = "import ctypes\nctypes.string_at(0)"
ENDLESS = "import time\nwhile True: time.sleep(0.01)"


@pytest.fixture
def probe(make_distribution, backends_of, monkeypatch):
    """Return a function that probes one plugin beside a good one, and returns its record and the registry."""
    make_distribution("exengine-good", {"good": "exengine_good:Good"}, GOOD)

    def run(source, target="exengine_faulty:Good", time_limit_s=10.0):
        make_distribution("exengine-faulty", {"faulty": target}, source, "0.7", module="exengine_faulty")
        backends = backends_of()
        with monkeypatch.context() as patch:
            patch.setattr(probing, "TIME_LIMIT_S", time_limit_s)
            faulty = backends.probe(isolated=True)["faulty"]
        backends.examine([backends.find("good")])  # a busy machine may be too slow for a short limit
        assert backends.find("good").state == "valid"
        return faulty, backends

    return run


@pytest.fixture(params=["in a fork", "in a new Python process"])
def either_way(request, monkeypatch):
    """Run children in both of the ways in which they can start."""
    if request.param == "in a new Python process":
        monkeypatch.setattr(probing, "fork", lambda *_, **__: None)
    elif not sys.platform.startswith("linux"):
        pytest.skip("processes are forked only on Linux")


DEADLY = {
    "os._exit": ("import os; os._exit(3)", "exit code 3"),
    "os._exit with 0": ("import os; os._exit(0)", "exit code 0"),
    "abort": ("import os; os.abort()", "signal SIGABRT"),
    "a segmentation fault": (SEGFAULT, "signal SIGSEGV"),
    "a kill": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal SIGKILL"),
    "a fork whose child goes on": (
        "import os\nif os.fork(): os._exit(4)\nimport time; time.sleep(60)",
        "exit code 4",
    ),
}


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("fault", DEADLY)
def test_what_ends_the_process_becomes_a_broken_record(probe, fault):
    source, ending = DEADLY[fault]
    record, backends = probe(source)
    assert (record.state, record.stage) == ("broken", "import")
    assert record.error == f"importing exengine_faulty:Good ended the process with {ending}"
    with pytest.raises(PluginBrokenError, match="ended the process"):
        backends.load("faulty")
    assert "exengine_faulty" not in sys.modules
    assert backends.load("good").__name__ == "Good"


@pytest.mark.usefixtures("either_way")
def test_a_crash_tells_where_it_was(probe):
    record, _ = probe(SEGFAULT)
    assert "Segmentation fault" in record.traceback
    assert 'exengine_faulty.py", line 2' in record.traceback


@pytest.mark.parametrize(("started_s", "later_s"), [(0.0, 2.7), (1.5, 1.2), (5.0, 0.1)])
def test_the_position_is_printed_before_the_limit_however_long_the_process_took_to_start(
    monkeypatch, started_s, later_s
):
    printed = []
    monkeypatch.setattr(probe_child.faulthandler, "enable", lambda file: None)
    monkeypatch.setattr(
        probe_child.faulthandler, "dump_traceback_later", lambda later, file: printed.append(later)
    )
    probe_child.report_position({"time_limit_s": 3.0, "begin_s": time.monotonic() - started_s})
    assert printed == [pytest.approx(later_s, abs=0.05)]


@pytest.mark.usefixtures("either_way")
def test_an_import_that_never_ends_is_stopped_and_tells_where_it_was(probe):
    start = time.monotonic()
    record, _ = probe(ENDLESS, time_limit_s=3.0)
    assert time.monotonic() - start < 9
    assert record.error == "importing exengine_faulty:Good did not end within 3 s"
    assert 'exengine_faulty.py", line 2' in record.traceback


@pytest.mark.usefixtures("either_way")
def test_a_thread_that_never_ends_does_not_hold_up_a_good_plugin(probe):
    source = f"import threading, time\nthreading.Thread(target=lambda: time.sleep(60)).start()\n{GOOD}"
    record, _ = probe(source)
    assert record.state == "valid"


@pytest.mark.usefixtures("either_way")
def test_what_is_printed_below_python_is_kept_too_and_bounded(probe, capfd):
    source = "import os, sys\nos.write(1, b'to stdout ')\nos.write(2, b'to stderr ')\nprint('x' * 10**6)\n"
    record, _ = probe(source + GOOD)
    assert record.state == "valid"
    assert record.output.startswith("to stdout to stderr ")
    assert 5_000 < len(record.output) <= probing.OUTPUT_LIMIT
    assert capfd.readouterr() == ("", "")


def test_a_plugin_that_prints_without_end_is_stopped_and_a_little_is_kept(probe):
    record, _ = probe("while True: print('again', flush=True)", time_limit_s=4.0)
    assert "did not end within 4 s" in record.error
    assert len(record.output) <= probing.OUTPUT_LIMIT


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked only on Linux")
def test_one_process_forks_every_child_and_has_imported_no_plugin(probe, monkeypatch):
    look = "import sys\nprint([name for name in sys.modules if 'exengine_' in name])\n"
    record, backends = probe(look + GOOD)
    assert (record.state, record.output) == ("valid", "['exengine_faulty']\n")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a Python process was started"))
    record, good = probing.probe([backends.find("faulty"), backends.find("good")])
    assert (record.state, record.output, good.state) == ("valid", "['exengine_faulty']\n", "valid")


def test_what_can_be_caught_is_recorded_as_when_it_is_loaded_here(probe):
    record, _ = probe("import a_module_that_does_not_exist")
    assert (record.state, record.stage) == ("broken", "import")
    assert "ModuleNotFoundError" in record.error and "Traceback" in record.traceback


@pytest.mark.usefixtures("either_way")
def test_a_class_that_is_not_valid_has_its_codes_and_its_place(probe):
    source = GOOD.replace('"""A valid backend."""', "")
    record, backends = probe(source)
    assert (record.state, [finding.code for finding in record.findings]) == ("invalid", ["EX201"])
    assert record.source[0].endswith("exengine_faulty.py") and record.source[1] == GOOD_LINE
    with pytest.raises(ContractError, match="EX201"):
        backends.load("faulty")
    assert "exengine_faulty" not in sys.modules


def test_a_valid_plugin_is_not_imported_here_until_it_is_loaded(probe):
    record, backends = probe(GOOD)
    assert (record.state, record.loaded) == ("valid", None)
    assert "exengine_faulty" not in sys.modules
    assert backends.find("faulty").state == "found"
    assert backends.load("faulty") is backends.find("faulty").loaded is sys.modules["exengine_faulty"].Good


def test_a_plugin_that_is_valid_only_elsewhere_is_broken_when_it_is_loaded_here(probe):
    _, backends = probe(f"import os\nif os.getpid() == {os.getpid()}: raise ImportError('not here')\n{GOOD}")
    with pytest.raises(PluginBrokenError, match="not here"):
        backends.load("faulty")
    assert backends.find("faulty").state == "broken"


def test_to_examine_a_plugin_is_to_probe_it_and_to_load_it_here_if_it_is_valid(
    make_distribution, backends_of
):
    make_distribution("exengine-good", {"good": "exengine_good:Good"}, GOOD)
    make_distribution("exengine-dead", {"dead": "exengine_dead:Good"}, "import os; os._exit(1)")
    only_elsewhere = f"import os\nif os.getpid() == {os.getpid()}: raise ImportError('not here')\n{GOOD}"
    make_distribution("exengine-shy", {"shy": "exengine_shy:Good"}, only_elsewhere)
    backends = backends_of()
    dead, good, shy = backends.records().values()
    backends.examine([dead, good, shy])
    assert (dead.state, dead.error) == (
        "broken",
        "importing exengine_dead:Good ended the process with exit code 1",
    )
    assert good.loaded is sys.modules["exengine_good"].Good and good.source[1] == GOOD_LINE
    assert shy.state == "broken" and shy.error.startswith(
        "the plugin can be imported only in a separate process: "
    )
    before = good.outcome
    backends.examine([good])
    assert good.outcome is before


def test_the_registry_probes_isolated_and_leaves_alone_what_is_known(make_distribution, backends_of):
    make_distribution("exengine-good", {"good": "exengine_good:Good", "Bad Name": "exengine_good:Good"}, GOOD)
    make_distribution("exengine-dead", {"dead": "exengine_dead:Good"}, "import os; os._exit(1)")
    make_distribution("exengine-other", {"dead": "exengine_other:Good"}, GOOD)
    backends = backends_of()
    records = backends.probe(isolated=True)
    assert {name: record.state for name, record in records.items()} == {
        "Bad Name": "broken", "dead": "conflict", "good": "valid",
    }  # fmt: skip
    assert {claim.distribution: claim.state for claim in records["dead"].candidates} == {
        "exengine-dead": "broken", "exengine-other": "valid",
    }  # fmt: skip
    assert not [
        name for name in sys.modules if name.startswith(("exengine_good", "exengine_other", "exengine_dead"))
    ]


@pytest.mark.usefixtures("either_way")
def test_the_child_does_not_import_what_lies_in_the_current_folder(probe, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path / "here")
    assert probe(GOOD)[0].state == "valid"


@pytest.mark.parametrize("whole_group", [False, True], ids=["a signal", "Ctrl-C in a terminal"])
def test_an_interrupt_by_the_user_stops_probing_and_leaves_no_child(make_distribution, tmp_path, whole_group):
    mark = tmp_path / "pid"
    source = f"import os, pathlib\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n{ENDLESS}"
    make_distribution("exengine-faulty", {"faulty": "exengine_faulty:Good"}, source)
    program = (
        "from exengine.kernel.registry.plugins import BACKENDS as backends\n"
        "try: backends.probe(isolated=True)\n"
        "except KeyboardInterrupt: print('interrupted', backends.find('faulty').state)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        start_new_session=True,
    )
    wait_for(lambda: mark.is_file() and mark.read_text())
    if whole_group:  # also the process that forks the children
        os.killpg(child.pid, signal.SIGINT)
    else:
        child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=8)[0].startswith("interrupted")
    wait_for(lambda: not alive(int(mark.read_text())))


# -- Ctrl-C and KeyboardInterrupt ----------------------------------------------------------------

CTRL_C = """
import json, signal, sys
from exengine.kernel.registry.plugins import BACKENDS as backends
from exengine.kernel.errors import PluginError
try:
    backends.load("faulty")
    outcome = "loaded"
except KeyboardInterrupt:
    outcome = "interrupted"
except PluginError as error:
    outcome = str(error)
handler = signal.getsignal(signal.SIGINT)
print(json.dumps([outcome, backends.find("faulty").state, handler is signal.default_int_handler]))
"""
PRESS = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time; time.sleep(5)\n"


def load_in_a_process(run_python, make_distribution, source):
    make_distribution("exengine-faulty", {"faulty": "exengine_faulty:Good"}, source)
    return json.loads(run_python(CTRL_C).stdout)


def test_a_keyboard_interrupt_that_a_plugin_raises_is_its_fault(run_python, make_distribution):
    outcome, state, restored = load_in_a_process(run_python, make_distribution, "raise KeyboardInterrupt")
    assert "raised KeyboardInterrupt" in outcome
    assert (state, restored) == ("broken", True)


CATCHING = {
    "not at all": PRESS,
    "as another error": f"try:\n    {PRESS.replace(chr(10), chr(10) + '    ')}\nexcept BaseException: raise ImportError",
    "and goes on": f"try:\n    {PRESS.replace(chr(10), chr(10) + '    ')}\nexcept BaseException: pass\n{GOOD}",
}


@pytest.mark.parametrize("how", CATCHING)
def test_ctrl_c_while_a_plugin_is_imported_reaches_the_user_however_the_plugin_catches_it(
    run_python, make_distribution, how
):
    assert load_in_a_process(run_python, make_distribution, CATCHING[how]) == ["interrupted", "found", True]


def test_a_handler_of_signals_that_a_plugin_sets_stays(run_python, make_distribution):
    source = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n" + GOOD
    assert load_in_a_process(run_python, make_distribution, source) == ["loaded", "valid", False]


# -- helpers -------------------------------------------------------------------------------------


def wait_for(condition, timeout_s=8.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
