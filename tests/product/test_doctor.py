"""``exengine doctor``: what is wrong with an installation or a disk, how to mend it, and exit code 1."""

import json
import os
import tempfile
from types import SimpleNamespace

import pytest
import useq

from exengine.cli import disk, doctor
from exengine.cli.disk import DiskSpeed, Needs, compare, measure_disk
from exengine.cli.main import main
from exengine.errors import DatasetAccessError
from exengine.kernel.registry import hooks, plugins
from exengine.kernel.registry.hooks import HookManager

BACKEND = """
from exengine.kernel.data_storage_base import DataStorage

class Shelf(DataStorage):
    '''Put frames on a shelf.'''
    def put(self, data_coordinates, data, metadata): ...
    def get_data(self, data_coordinates): ...
    def get_metadata(self, data_coordinates): ...
    def __contains__(self, data_coordinates): return False
    def finish(self): ...
    def close(self): ...
"""


@pytest.fixture
def only_here(make_distribution, tmp_path, monkeypatch):
    """Let only the distributions of the test be installed; return what adds one."""
    folders = [str(tmp_path / "site")]
    for name, group, kind in (
        ("backends", plugins.BACKENDS_GROUP, "backend"),
        ("sources", plugins.SOURCES_GROUP, "source"),
    ):
        monkeypatch.setattr(plugins, name.upper(), plugins.PluginRegistry(group, kind, folders))
    monkeypatch.setattr(hooks, "hooks", HookManager(folders))

    def add(name, entry, source=BACKEND, requires=(), **more):
        module = name.replace("-", "_")
        folder = make_distribution(name, {entry: more.pop("target", f"{module}:Shelf")}, source, **more)
        with open(folder / f"{module}-1.0.dist-info" / "METADATA", "a") as file:
            file.writelines(f"Requires-Dist: {requirement}\n" for requirement in requires)

    return add


@pytest.fixture
def report(capsys):
    """Return what runs ``doctor --json`` and gives its exit code and its report."""

    def run(*arguments):
        code = main(["doctor", "--json", *map(str, arguments)])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def quick(monkeypatch):
    """Measure disks with little data."""
    original = measure_disk
    monkeypatch.setattr(disk, "measure_disk", lambda folder: original(folder, limit_bytes=2**21))


# -- plugins -------------------------------------------------------------------------------------


def test_a_sound_installation_has_no_problem_and_gives_0(only_here, report):
    only_here("exengine-shelf", "shelf", requires=["exengine>=1,<2", "numpy>=1.20"])
    code, found = report()
    assert (code, found["problems"], found["conflicts"]) == (0, [], [])
    assert [(record["name"], record["state"]) for record in found["backends"]] == [("shelf", "valid")]
    rows = {
        row["requirement"]: row for row in found["requirements"] if row["distribution"] == "exengine-shelf"
    }
    assert rows["exengine>=1,<2"] == {
        "distribution": "exengine-shelf", "requirement": "exengine>=1,<2", "installed": "1.0.0", "fits": True,
    }  # fmt: skip
    assert rows["numpy>=1.20"]["fits"]


def test_a_conflict_is_shown_with_each_way_out_of_it(only_here, report, capsys):
    only_here("exengine-one", "shelf")
    only_here("exengine-two", "shelf")
    code, found = report()
    assert code == 1
    (conflict,) = found["conflicts"]
    assert conflict == {
        "kind": "backend",
        "name": "shelf",
        "distributions": ["exengine-one 1.0", "exengine-two 1.0"],
        "resolve": [
            "write 'exengine-one:shelf' instead of 'shelf'",
            "write 'exengine-two:shelf' instead of 'shelf'",
            "pip uninstall exengine-one",
            "pip uninstall exengine-two",
        ],
    }
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert all(way in out for way in conflict["resolve"])


@pytest.mark.parametrize("source", ["import nothing_of_that_name", "import os; os._exit(3)"])
def test_a_broken_plugin_is_a_problem_and_the_others_are_well(source, only_here, report):
    only_here("exengine-bad", "bad", source)
    only_here("exengine-shelf", "shelf")
    code, found = report()
    assert code == 1
    assert [record["state"] for record in found["backends"]] == ["broken", "valid"]
    (problem,) = found["problems"]
    assert problem.startswith("backend 'bad': importing exengine_bad:Shelf")


def test_misspelt_hooks_are_a_problem(only_here, report):
    source = "import exengine\n@exengine.hookimpl\ndef exengine_frame_stored(coordinates): ...\n"
    only_here("exengine-log", "log", source, group="exengine.hooks", target="exengine_log")
    code, found = report()
    assert (code, found["hooks"][0]["state"]) == (1, "invalid")
    assert "did you mean 'exengine_frames_stored'" in found["problems"][0]


# -- versions ------------------------------------------------------------------------------------

UNFIT = {
    "another exengine": (
        "exengine>=2",
        "install a version of exengine-shelf that is compatible with this ExEngine",
    ),
    "a newer library": ("numpy>=900", "pip install 'numpy>=900'"),
    "an older library": ("numpy<1.0", "numpy<1.0, but numpy "),
    "a missing library": ("library-of-nobody>=1", "library-of-nobody is not installed"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_requirement_that_is_not_met_is_a_problem(case, only_here, report):
    requirement, hint = UNFIT[case]
    only_here("exengine-shelf", "shelf", requires=[requirement, "numpy>=1.20"])
    code, found = report()
    assert code == 1
    (problem,) = found["problems"]
    assert problem.startswith(f"exengine-shelf 1.0 requires {requirement}, but ")
    assert hint in problem


@pytest.mark.parametrize("marker", ["extra == 'test'", "sys_platform == 'nowhere'"])
def test_a_requirement_of_an_extra_or_of_another_system_does_not_count(marker, only_here, report):
    only_here("exengine-shelf", "shelf", requires=[f"library-of-nobody>=1; {marker}"])
    assert report()[0] == 0


def test_bounds_are_compared_as_numbers_and_not_as_text(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "1.10")
    fits = {
        bound: doctor._fit(f"some{bound}")[1]
        for bound in (">=1.9", "<1.9", "<=1.10.0", ">1.10", "<2,>=1", "~=1.9", "!=1.10")
    }
    assert fits == {
        ">=1.9": True, "<1.9": False, "<=1.10.0": True, ">1.10": False, "<2,>=1": True, "~=1.9": True, "!=1.10": False,
    }  # fmt: skip


def test_optional_libraries_the_platform_and_the_config_files_are_told(
    only_here, report, monkeypatch, capsys
):
    present = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "dask" else present(name))
    folder = os.path.join(os.environ["XDG_CONFIG_HOME"], "exengine")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.yaml"), "w") as file:
        file.write("handler: {when_full: error}\n")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    _, found = report()
    assert found["extras"]["dask"] is None and found["extras"]["pytest"] == pytest.__version__
    assert found["config_files"] == [os.path.join(folder, "config.yaml")]
    assert found["platform"] == {"system": "macOS", "support": "supported, but not tested"}
    main(["doctor"])
    assert "dask               not installed  datasets as lazy arrays" in capsys.readouterr().out


# -- measuring a disk ----------------------------------------------------------------------------


def test_a_disk_is_measured_and_nothing_is_left(tmp_path, report, quick, only_here):
    target = tmp_path / "target"
    target.mkdir()
    code, found = report("--disk", target)
    measured = found["disk"]
    assert (code, measured["folder"], measured["measured_bytes"]) == (0, str(target), 2**21)
    assert measured["write_bytes_per_s"] > 0 and measured["sync_ms"] > 0 and measured["free_bytes"] > 0
    assert measured["summary"].startswith("this disk sustains ")
    assert list(target.iterdir()) == []


def test_the_measurement_ends_after_its_time(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(disk.time, "perf_counter", lambda: next(clock))  # each look takes a second
    assert measure_disk(str(tmp_path), limit_s=3.0).measured_bytes == 2 * 512 * 512 * 2


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_nothing_is_left_when_the_measurement_is_interrupted_or_fails(call, error, tmp_path, monkeypatch):
    seen = []

    def fail(descriptor, *_):
        seen.append(os.fstat(descriptor).st_dev == tmp_path.stat().st_dev)
        raise error

    monkeypatch.setattr(disk.os, call, fail)
    with pytest.raises(DatasetAccessError if isinstance(error, OSError) else KeyboardInterrupt):
        measure_disk(str(tmp_path))
    assert seen == [True]
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_measurement_is_killed(tmp_path, run_python):
    program = """
import os, signal, sys
from exengine.cli import disk
disk.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
disk.measure_disk(sys.argv[1], limit_bytes=2**21)
"""
    target = tmp_path / "target"
    target.mkdir()
    assert run_python(program, target, check=False).returncode == -9
    assert list(target.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_a_problem(tmp_path, report, only_here, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    code, found = report("--disk", tmp_path)
    assert (code, found["disk"]) == (1, None)
    assert found["problems"] == [f"the disk of {tmp_path} cannot be measured: Permission denied"]


def test_a_full_disk_is_a_problem_and_is_not_written_to(tmp_path, report, only_here, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    code, found = report("--disk", tmp_path)
    assert (code, found["problems"]) == (
        1,
        [f"{tmp_path} has only 1.0 kB free, which is too little to measure the disk"],
    )


def test_no_folder_is_wrong_use(tmp_path, capsys):
    assert main(["doctor", "--disk", str(tmp_path / "nothing")]) == 2
    assert "--disk needs an existing folder" in capsys.readouterr().err


# -- what an acquisition needs -------------------------------------------------------------------

SPEED = DiskSpeed("/data", free_bytes=960 * 10**9, write_bytes_per_s=910e6, sync_ms=1.0, measured_bytes=1)


def needs(rate=None, frames=100, frame_bytes=4_200_000):
    total = None if frames is None else frames * frame_bytes
    return Needs(frames, frame_bytes, total, rate, "nobody says it")


def test_disk_and_acquisition_are_compared_in_one_sentence():
    text, problems = compare(SPEED, needs(rate=100.0))
    assert (
        text
        == "this disk sustains 910.0 MB/s; the acquisition needs 420.0 MB/s, so the free space lasts 38 min 6 s"
    )
    assert problems == []


def test_an_acquisition_that_is_faster_than_the_disk_is_a_problem():
    (problem,) = compare(SPEED, needs(rate=300.0))[1]
    assert problem.startswith(
        "the disk of /data is too slow; it sustains 910.0 MB/s, but the acquisition needs 1.3 GB/s"
    )


def test_an_acquisition_that_is_larger_than_the_disk_is_a_problem():
    (problem,) = compare(SPEED, needs(frames=300_000))[1]
    assert problem.startswith("/data has only 960.0 GB free, but the acquisition needs 1.3 TB")


def test_a_rate_that_nobody_knows_is_said_to_be_unknown():
    text, problems = compare(SPEED, needs())
    assert (
        "the rate of the acquisition is unknown (nobody says it); there is space for 228,571 frames" in text
    )
    assert problems == []


RATES = {
    "an interval": ({"time_plan": {"interval": 2, "loops": 5}, "channels": ["a", "b"]}, 10, 1.0),
    "phases: the fastest counts": (
        {"time_plan": [{"interval": 1, "loops": 3}, {"interval": 5, "loops": 2}]},
        4,
        1.0,
    ),
    "no interval": ({"time_plan": {"interval": 0, "loops": 5}}, 5, None),
    "no time plan": ({"channels": ["a"]}, 1, None),
    "one time": ({"time_plan": {"interval": 2, "loops": 1}}, 1, None),
}


@pytest.mark.parametrize("case", RATES)
def test_the_rate_comes_from_the_time_plan(case):
    sequence, frames, rate = RATES[case]
    assert disk._rate_of(useq.MDASequence(**sequence), frames)[0] == rate


CONFIG = """\
storage: {{backend: ndtiff, path: {path}}}
source: {{name: simulated, options: {{width: 64, height: 64{more}}}}}
sequence: {{time_plan: {{interval: 0, loops: 30}}}}
"""


@pytest.fixture
def config(tmp_path):
    """Return what writes a config whose dataset would lie in a folder that is not there yet."""
    path = tmp_path / "config.yaml"

    def write(more=""):
        path.write_text(CONFIG.format(path=tmp_path / "out" / "deep" / "data", more=more))
        return path

    return write


@pytest.mark.parametrize("arguments", [[], ["--disk"]])
def test_with_a_config_the_disk_of_its_dataset_is_measured(arguments, config, report, quick, tmp_path):
    code, found = report(config(", rate_hz: 50"), *arguments)
    assert (code, found["disk"]["folder"]) == (0, str(tmp_path))
    acquisition = found["acquisition"]
    assert (acquisition["frames"], acquisition["frame_bytes"]) == (30, 8192)
    assert (acquisition["frames_per_s"], acquisition["bytes_per_s"]) == (50.0, 50 * 8192)
    assert "the acquisition needs 409.6 kB/s" in found["disk"]["summary"]
    assert not (tmp_path / "out").exists()


def test_an_unlimited_source_has_no_rate(config, report, quick):
    code, found = report(config())
    assert (code, found["acquisition"]["frames_per_s"]) == (0, None)
    assert "unknown (the source delivers frames as fast as they are stored)" in found["disk"]["summary"]


def test_a_disk_that_is_too_slow_for_the_config_gives_1(config, monkeypatch, capsys):
    monkeypatch.setattr(disk, "measure_disk", lambda folder: DiskSpeed(folder, 10**9, 1e5, 1.0, 1))
    assert main(["doctor", str(config(", rate_hz: 50"))]) == 1
    out = capsys.readouterr().out
    assert "problem: " in out and "is too slow; it sustains 100.0 kB/s" in out
    assert "30 frames of 8.2 kB" in out


def test_a_disk_that_is_too_small_for_the_config_gives_1(config, monkeypatch, report):
    monkeypatch.setattr(disk, "measure_disk", lambda folder: DiskSpeed(folder, 200_000, 1e9, 1.0, 1))
    code, found = report(config())
    assert code == 1 and "has only 200.0 kB free" in found["problems"][0]


def test_frames_in_memory_need_no_disk(config, report):
    path = config()
    path.write_text(path.read_text().replace("ndtiff", "ndram"))
    code, found = report(path)
    assert (code, found["disk"], found["acquisition"]["frames"]) == (0, None, 30)
