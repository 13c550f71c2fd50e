"""Names become classes: one at a time, and whatever one plugin does, the others go on working."""

import contextlib
import itertools
import sys
import threading
from pathlib import Path

import pytest

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import (
    ContractError,
    ExEngineError,
    PluginBrokenError,
    PluginConflictError,
    PluginError,
    PluginNotFoundError,
)
from exengine.kernel.registry import plugins
from exengine.kernel.registry.loading import base_class
from exengine.kernel.registry.plugins import BACKENDS_GROUP, SOURCES_GROUP, PluginRegistry

GOOD = (Path(__file__).parents[3] / "backends" / "good.py").read_text(encoding="utf-8")


@pytest.fixture
def with_good(make_distribution, backends_of):
    """Return what adds one plugin beside two good ones, and gives the registry of the three."""
    make_distribution("exengine-good", {"good": "exengine_good:Good"}, GOOD)
    make_distribution("exengine-ndstorage", {"ndram": "exengine_nd:Good"}, GOOD, module="exengine_nd")

    def add(source=None, target="exengine_faulty:Faulty", name="faulty", **more):
        make_distribution("exengine-faulty", {name: target}, source, "0.7", module="exengine_faulty", **more)
        return backends_of()

    return add


def assert_the_good_ones_work(backends):
    for name in ("good", "ndram"):
        assert issubclass(backends.load(name), DataStorage)
        assert backends.records()[name].state == "valid"


# -- plugins that break when they are imported ---------------------------------------------------

IMPORT_FAULTS = {
    "an ImportError": ("import a_module_that_does_not_exist", "ModuleNotFoundError", "import"),
    "a SyntaxError": ("class Faulty(\n", "SyntaxError", "import"),
    "an exit": ("raise SystemExit(3)", "SystemExit: 3", "import"),
    "sys.exit": ("import sys; sys.exit()", "SystemExit", "import"),
    "an interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt", "import"),
    "a GeneratorExit": ("raise GeneratorExit", "GeneratorExit", "import"),
    "endless recursion": ("def f(): return f()\nf()", "RecursionError", "import"),
    "an exception of its own": (
        "class Odd(BaseException): pass\nraise Odd('x' * 9999)",
        "Odd: xxx",
        "import",
    ),
    "an exception that has no text": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError('no text')\nraise Odd",
        "Odd",
        "import",
    ),
    "bytes that are no text": (b"Faulty = '\xff'", "SyntaxError", "import"),
    "a null byte": (b"Faulty = '\x00'", "Error", "import"),
    "a name that is not there": ("", "AttributeError", "attribute"),
    "an attribute that raises": (
        "def __getattr__(name): raise RuntimeError('not today')",
        "not today",
        "attribute",
    ),
    "an attribute that exits": ("def __getattr__(name): raise SystemExit", "SystemExit", "attribute"),
}


@pytest.mark.parametrize("fault", IMPORT_FAULTS)
def test_whatever_a_plugin_raises_at_import_becomes_its_record(with_good, fault):
    source, text, stage = IMPORT_FAULTS[fault]
    backends = with_good(source)
    with pytest.raises(
        PluginBrokenError, match="'faulty' of exengine-faulty 0.7 is installed, but broken"
    ) as info:
        backends.load("faulty")
    assert isinstance(info.value, ImportError) and info.value.name == "exengine_faulty:Faulty"
    record = backends.records()["faulty"]
    assert (record.state, record.stage) == ("broken", stage)
    assert (record.distribution, record.version) == ("exengine-faulty", "0.7")
    assert text in record.error and len(record.error) < 700
    assert "Traceback" in record.traceback
    with pytest.raises(PluginBrokenError):
        backends.load("faulty")
    assert_the_good_ones_work(backends)


OUTPUT_FAULTS = {
    "prints": "print('hello')",
    "prints in pieces": "import sys; sys.stdout.write('hel'); sys.stdout.write('lo')",
    "prints, and then raises": "print('hello'); raise ImportError('no')",
    "prints, and closes stdout": "import sys; print('hello'); sys.stdout.close()",
    "puts another stdout": "import sys, io; print('hello'); sys.stdout = io.StringIO(); print('lost')",
}


@pytest.mark.parametrize("fault", OUTPUT_FAULTS)
def test_what_a_plugin_prints_at_import_does_not_reach_stdout(with_good, capsys, fault):
    backends = with_good(OUTPUT_FAULTS[fault])
    with pytest.raises(PluginBrokenError):
        backends.load("faulty")
    out, err = capsys.readouterr()
    assert out == ""
    if fault != "prints, and closes stdout":
        assert "hello" in backends.records()["faulty"].output and "hello" in err
    assert not sys.stdout.closed
    assert_the_good_ones_work(backends)


def test_a_plugin_that_prints_and_is_good_is_valid_and_its_output_kept(with_good, capsys):
    backends = with_good("print('welcome')\n" + GOOD, "exengine_faulty:Good")
    assert backends.load("faulty").__name__ == "Good"
    assert backends.records()["faulty"].output == "welcome\n"
    assert capsys.readouterr() == ("", "welcome\n")


# -- plugins that are imported, and are not valid ------------------------------------------------


def like_good(init="", docstring="", body=""):
    return f'''
from exengine.base_classes import DataStorage

class Faulty(DataStorage):
    """Do something.

    {docstring}
    """

    {init}
    def put(self, c, d, m): ...
    def get_data(self, c): ...
    def get_metadata(self, c): ...
    def __contains__(self, c): return False
    def finish(self): ...
    def close(self): ...
    {body}
'''


PARAMETERS = "Parameters\n    ----------\n    "
CONTRACT_FAULTS = {
    "a function": ("def Faulty(): ...", ["EX101"]),
    "an instance": ("Faulty = 5", ["EX101"]),
    "a module": ("import json as Faulty", ["EX101"]),
    "a class of something else": ("class Faulty(dict): ...", ["EX102"]),
    "the base class": ("from exengine.base_classes import DataStorage as Faulty", ["EX102"]),
    "a frame source": ("from exengine.base_classes import FrameSource as Faulty", ["EX102"]),
    "half an interface": (
        (
            "from exengine.base_classes import DataStorage\n"
            "class Faulty(DataStorage):\n    '''Half.'''\n    def put(self, c, d, m): ..."
        ),
        ["EX103"],
    ),
    "an abstract method left": (like_good().replace("def finish(self): ...", ""), ["EX103"]),
    "too few arguments": (like_good(body="def put(self, c, d): ..."), ["EX104"]),
    "**kwargs": (like_good("def __init__(self, **more): ..."), ["EX105"]),
    "an annotation of nothing": (
        like_good("def __init__(self, a: 'Nowhere' = 1): ...", PARAMETERS + "a : int\n        What."),
        ["EX106"],
    ),
    "a reserved option": (
        like_good("def __init__(self, path: str = ''): ...", PARAMETERS + "path : str\n        What."),
        ["EX107"],
    ),
    "no docstring": (like_good().replace("Do something.", ""), ["EX201"]),
    "an option without documentation": (like_good("def __init__(self, gain: int = 1): ..."), ["EX202"]),
    "documentation without an option": (like_good("", PARAMETERS + "gain : int\n        What."), ["EX203"]),
    "an option without a type": (
        like_good("def __init__(self, gain=1): ...", PARAMETERS + "gain\n        What."),
        ["EX204"],
    ),
    "a wrong default": (
        like_good(
            "def __init__(self, gain: int = 1): ...", PARAMETERS + "gain : int, default: 2\n        What."
        ),
        ["EX205"],
    ),
    "a misspelt option": (
        like_good("def __init__(self, gain: int = 1): ...", PARAMETERS + "gian : int\n        What."),
        ["EX202", "EX203"],
    ),
    "a property that raises": (
        (
            "class Meta(type):\n"
            "    @property\n"
            "    def __abstractmethods__(cls): raise RuntimeError('not today')\n"
            "    __mro__ = property(lambda cls: 1 / 0)\n"
            "class Faulty(metaclass=Meta): ..."
        ),
        ["EX102"],
    ),
    "a metaclass that raises": (
        (
            "class Meta(type):\n"
            "    def __getattribute__(cls, name): raise RuntimeError('not today')\n"
            "class Faulty(metaclass=Meta): ..."
        ),
        ["EX101"],
    ),
    "a metaclass that exits": (
        (
            "class Meta(type):\n"
            "    def __getattribute__(cls, name): raise SystemExit(1)\n"
            "class Faulty(metaclass=Meta): ..."
        ),
        ["EX101"],
    ),
    "an object that raises": (
        "class Odd:\n    @property\n    def __class__(self): raise RecursionError\nFaulty = Odd()",
        ["EX101"],
    ),
    "capabilities that raise": (
        (
            "from exengine.base_classes import DataStorage\n"
            "from abc import ABCMeta\n"
            "class Meta(ABCMeta):\n"
            "    def __getattribute__(cls, name):\n"
            "        if name == 'capabilities': raise KeyError(name)\n"
            "        return super().__getattribute__(name)\n"
            "class Faulty(DataStorage, metaclass=Meta):\n    '''Odd.'''\n"
        ),
        None,
    ),
}


@pytest.mark.parametrize("fault", CONTRACT_FAULTS)
def test_a_class_that_is_not_valid_is_refused_with_its_codes(with_good, fault):
    source, codes = CONTRACT_FAULTS[fault]
    backends = with_good(source)
    with pytest.raises(ContractError, match="'faulty' of exengine-faulty 0.7 is not valid") as info:
        backends.load("faulty")
    assert isinstance(info.value, TypeError)
    assert [finding.code for finding in info.value.findings] == codes or codes is None
    record = backends.records()["faulty"]
    assert (record.state, record.stage) == ("invalid", "contract")
    assert record.loaded is None and record.findings == info.value.findings
    for finding in record.findings:
        assert str(finding) in str(info.value) and finding.code in record.error
    assert_the_good_ones_work(backends)


def test_a_frame_source_is_checked_against_its_own_base_class(make_distribution, tmp_path):
    make_distribution("exengine-good", {"good": "exengine_good:Good"}, GOOD, group=SOURCES_GROUP)
    sources = PluginRegistry(SOURCES_GROUP, "source", [str(tmp_path / "site")])
    with pytest.raises(
        ContractError, match=r"the source 'good' .*\n  EX102 Good is not a subclass of exengine.FrameSource"
    ):
        sources.load("good")


# -- names and targets ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Good", "1st", "-x", "_x", "a b", "ä", "a.b", "a" * 65, "x;y", "../x", "a:b", "", "x\u00b2"]
)
def test_a_bad_name_is_listed_as_broken(with_good, name):
    backends = with_good(GOOD, "exengine_faulty:Good", name)
    record = backends.records()[name]
    assert (record.state, record.stage) == ("broken", "name")
    assert "a name must start with a-z" in record.error
    if name and ":" not in name:
        with pytest.raises(PluginError):
            backends.load(name)
    assert_the_good_ones_work(backends)


@pytest.mark.parametrize("name", ["a", "a" * 64, "a-b_c9", "ome-zarr"])
def test_a_good_name_is_found(with_good, name):
    assert with_good(GOOD, "exengine_faulty:Good", name).load(name).__name__ == "Good"


@pytest.mark.parametrize(
    "target",
    [
        "json;import os:x",
        "json:__import__('os').system('true')",
        "exengine_faulty",
        "exengine_faulty:",
        ":Good",
        "exengine_faulty:Good()",
        "exengine-faulty:Good",
        "exengine_faulty:Good:Good",
        "../exengine_faulty:Good",
        "",
    ],
)
def test_a_target_that_is_no_module_and_class_is_broken_and_nothing_is_imported(with_good, target):
    backends = with_good("raise AssertionError('it was imported')", target)
    record = backends.records()["faulty"]
    assert (record.state, record.stage) == ("broken", "target")
    with pytest.raises(PluginBrokenError, match="is not a valid target; it must have the form module:Class"):
        backends.load("faulty")
    assert "exengine_faulty" not in sys.modules
    assert_the_good_ones_work(backends)


def test_a_function_as_a_target_is_refused_and_never_called(with_good, monkeypatch):
    called = []
    monkeypatch.setattr("os.system", called.append)
    backends = with_good(None, "os:system")
    with pytest.raises(ContractError) as info:
        backends.load("faulty")
    assert [finding.code for finding in info.value.findings] == ["EX101"]
    assert called == []
    assert_the_good_ones_work(backends)


def test_a_module_that_is_not_there_is_broken(with_good):
    backends = with_good(None, "exengine_nowhere:Store")
    with pytest.raises(PluginBrokenError, match="No module named 'exengine_nowhere'"):
        backends.load("faulty")
    assert backends.records()["faulty"].stage == "import"
    assert_the_good_ones_work(backends)


def test_names_that_differ_in_dashes_only_are_the_same(with_good):
    backends = with_good(GOOD, "exengine_faulty:Good", "my-store")
    assert backends.load("my_store") is backends.load("my-store")
    assert backends.find("exengine_faulty:my_store") is backends.find("exengine-faulty:my-store")


@pytest.mark.parametrize("written", ["My.Dist", "my-dist", "my_dist", "MY--DIST"])
def test_the_name_of_a_distribution_is_known_in_each_spelling_that_pip_accepts(
    make_distribution, backends_of, written
):
    make_distribution("My.Dist", {"store": "my_dist:Good"}, GOOD, module="my_dist")
    assert backends_of().load(f"{written}:store").__module__ == "my_dist"


def test_a_name_that_breaks_the_rules_takes_nothing_from_the_name_that_it_resembles(with_good):
    backends = with_good("raise AssertionError('it was imported')", "exengine_faulty:Good", "GOOD")
    assert backends.load("good").__module__ == "exengine_good"
    assert backends.find("GOOD").state == "broken"


# -- corrupt distributions -----------------------------------------------------------------------


def remove_metadata(info):
    (info / "METADATA").unlink()


def cut_entry_points(info):
    (info / "entry_points.txt").write_text("[exengine.storage_backends\n")


def put_bytes(info):
    (info / "entry_points.txt").write_bytes(b"[exengine.storage_backends]\n\xff = x:Y\n")


def put_a_folder(info):
    (info / "entry_points.txt").unlink()
    (info / "entry_points.txt").mkdir()


CORRUPTIONS = [remove_metadata, cut_entry_points, put_bytes, put_a_folder]


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_a_corrupt_distribution_is_listed_and_refused_by_name(with_good, backends_of, tmp_path, corrupt):
    with_good(GOOD, "exengine_faulty:Good")
    corrupt(tmp_path / "site" / "exengine_faulty-0.7.dist-info")
    backends = backends_of()
    broken = [record for record in backends.records().values() if record.state == "broken"]
    assert [(record.stage, record.version) for record in broken] == [("metadata", "0.7")]
    with pytest.raises(PluginBrokenError, match=r"is installed, but broken: .*(read|parsed)"):
        backends.load(broken[0].name)
    assert_the_good_ones_work(backends)


def test_a_corrupt_distribution_does_not_take_the_name_of_a_good_backend(
    make_distribution, backends_of, tmp_path
):
    make_distribution("exengine-zarr", {"my-zarr": "exengine_zarr:Good"}, GOOD)
    make_distribution("my-zarr", {"something": "my_zarr:Good"}, GOOD)
    cut_entry_points(tmp_path / "site" / "my_zarr-1.0.dist-info")
    backends = backends_of()
    assert backends.load("my-zarr").__name__ == "Good"
    assert "broken" in {record.state for record in backends.records().values()}


# -- conflicts -----------------------------------------------------------------------------------


def test_two_distributions_with_one_name_are_an_error_that_names_both(make_distribution, backends_of):
    make_distribution("exengine-good", {"good": "exengine_good:Good"}, GOOD)
    make_distribution("dist-b", {"store": "dist_b:Good"}, GOOD, "2.0")
    make_distribution("dist-a", {"store": "dist_a:Good"}, GOOD, "1.0")
    backends = backends_of()
    record = backends.records()["store"]
    assert (record.state, record.stage) == ("conflict", "name")
    assert [claim.qualified_name for claim in record.candidates] == ["dist-a:store", "dist-b:store"]
    with pytest.raises(PluginConflictError) as info:
        backends.load("store")
    assert str(info.value) == (
        "dist-a 1.0 and dist-b 2.0 both register the backend 'store'; "
        "use the name 'dist-a:store' or 'dist-b:store', or uninstall one of the distributions"
    )
    assert isinstance(info.value, LookupError)
    assert backends.load("dist-a:store").__module__ == "dist_a"
    assert backends.load("dist-b:store").__module__ == "dist_b"
    assert backends.load("good").__name__ == "Good"


def test_a_conflict_of_three_distributions_names_all_of_them(make_distribution, backends_of):
    for letter in "abc":
        make_distribution(f"dist-{letter}", {"store": f"dist_{letter}:Good"}, GOOD)
    error = backends_of().records()["store"].error
    assert " all register the backend 'store'; " in error and error.endswith(
        ", or uninstall all but one of the distributions"
    )
    assert all(f"dist-{letter} " in error and f"'dist-{letter}:store'" in error for letter in "abc")


def test_a_backend_that_shadows_ndram_takes_its_name_from_nobody(with_good):
    backends = with_good(GOOD, "exengine_faulty:Good", "ndram")
    with pytest.raises(
        PluginConflictError, match="exengine-faulty 0.7 and exengine-ndstorage 1.0 both register"
    ):
        backends.load("ndram")
    assert backends.load("exengine-ndstorage:ndram").__module__ == "exengine_nd"
    assert backends.load("exengine-faulty:ndram").__module__ == "exengine_faulty"
    assert backends.load("good").__name__ == "Good"


def test_names_that_differ_in_dashes_only_conflict(make_distribution, backends_of):
    make_distribution("dist-a", {"my-store": "dist_a:Good"}, GOOD)
    make_distribution("dist-b", {"my_store": "dist_b:Good"}, GOOD)
    with pytest.raises(PluginConflictError, match="'dist-a:my-store' or 'dist-b:my_store'"):
        backends_of().load("my_store")


def test_one_distribution_may_register_both_spellings_of_one_class(make_distribution, backends_of):
    make_distribution("dist-a", {"my-store": "dist_a:Good", "my_store": "dist_a:Good"}, GOOD)
    assert backends_of().load("my-store").__name__ == "Good"


def test_a_broken_plugin_in_a_conflict_does_not_harm_the_other(with_good):
    backends = with_good("raise SystemExit", name="ndram")
    backends.probe()
    assert backends.load("exengine-ndstorage:ndram").__name__ == "Good"
    with pytest.raises(PluginBrokenError):
        backends.load("exengine-faulty:ndram")


def test_a_qualified_name_that_does_not_exist_says_where_the_name_comes_from(with_good):
    backends = with_good(GOOD, "exengine_faulty:Good", "ndram")
    with pytest.raises(PluginNotFoundError, match="'good' is registered by exengine-good"):
        backends.load("elsewhere:good")
    with pytest.raises(
        PluginNotFoundError, match="'ndram' is registered by exengine-faulty, exengine-ndstorage"
    ):
        backends.load("elsewhere:ndram")


def test_the_outcome_is_the_same_for_each_order_of_the_path(make_distribution, backends_of, tmp_path):
    for name in ("dist-c", "dist-a", "dist-b"):
        make_distribution(
            name, {"store": f"{name.replace('-', '_')}:Good", name: "m:Good"}, folder=tmp_path / name
        )
    outcomes = set()
    for order in itertools.permutations(["dist-a", "dist-b", "dist-c"]):
        records = backends_of(*(tmp_path / name for name in order)).records()
        outcomes.add(repr([record.to_dict() for record in records.values()]))
    assert len(outcomes) == 1


def test_the_outcome_is_the_same_under_each_hash_seed(make_distribution, run_python):
    for name in ("dist-c", "dist-a", "dist-b"):
        make_distribution(name, {"store": f"{name.replace('-', '_')}:Good", name: "m:Good"})
    program = (
        "import sys, json\n"
        "from exengine.kernel.registry.plugins import PluginRegistry\n"
        "found = PluginRegistry('exengine.storage_backends', 'backend', [sys.argv[1]])\n"
        "print(json.dumps([record.to_dict() for record in found.records().values()]))\n"
        "try: found.load('store')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    site = make_distribution("dist-d", {"fine": "m:Good"})
    outcomes = {run_python(program, site, PYTHONHASHSEED=str(seed)).stdout for seed in (0, 1, 42, 4294967295)}
    assert len(outcomes) == 1
    assert "PluginConflictError dist-a 1.0 and dist-b 1.0 and dist-c 1.0" in outcomes.pop()


# -- names that are not there --------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_near_ones_and_with_what_is_installed(with_good):
    backends = with_good(GOOD, "exengine_faulty:Good")
    with pytest.raises(PluginNotFoundError) as info:
        backends.load("god")
    assert (
        str(info.value) == "no backend is called 'god'; did you mean 'good'? Installed: faulty, good, ndram."
    )
    assert isinstance(info.value, LookupError)
    with pytest.raises(
        PluginNotFoundError, match=r"no backend is called 'xyz'\. Installed: faulty, good, ndram\."
    ):
        backends.load("xyz")


def test_without_any_plugin_the_answer_says_so(backends_of, tmp_path):
    with pytest.raises(PluginNotFoundError, match=r"no backend is called 'xyz'\. Installed: none\."):
        backends_of(tmp_path).load("xyz")


def test_a_backend_of_ours_that_is_not_installed_is_answered_with_how_to_get_it(backends_of, tmp_path):
    for asked in ("ndtiff", "ndtif"):
        with pytest.raises(PluginNotFoundError, match=r"pip install \./plugins/exengine-ndstorage"):
            backends_of(tmp_path).load(asked)


def test_nobody_is_asked_whether_he_meant_what_he_wrote(backends_of, tmp_path):
    with pytest.raises(PluginNotFoundError) as info:
        backends_of(tmp_path).load("ndtiff")
    assert "did you mean 'ndtiff'" not in str(info.value)


def test_a_source_of_ours_is_not_offered_as_a_backend(backends_of, tmp_path):
    with pytest.raises(PluginNotFoundError) as info:
        backends_of(tmp_path).load("micromanager")
    assert "pip install" not in str(info.value)


@pytest.mark.parametrize("name", ["", ":", "a:b:c", ":good", "good:", "x" * 10_000, "ä", "a\nb"])
def test_whatever_the_name_the_answer_is_an_error_of_ours_or_a_class(with_good, name):
    backends = with_good(GOOD, "exengine_faulty:Good")
    assert (name in backends) is (name == ":good")
    with contextlib.suppress(ExEngineError):
        assert backends.load(name).__name__ == "Good"


# -- listing -------------------------------------------------------------------------------------


def test_listing_imports_no_plugin(with_good):
    backends = with_good("raise AssertionError('it was imported')")
    assert sorted(backends.records()) == ["faulty", "good", "ndram"]
    assert "faulty" in backends and "god" not in backends
    assert backends.find("faulty").state == "found"
    assert not {"exengine_faulty", "exengine_good", "exengine_nd"} & set(sys.modules)


def test_loading_one_imports_no_other(with_good):
    with_good("raise AssertionError('it was imported')").load("good")
    assert not {"exengine_faulty", "exengine_nd"} & set(sys.modules)


def test_the_records_cannot_be_changed_from_outside(with_good):
    records = with_good(GOOD).records()
    with pytest.raises(TypeError):
        records["x"] = 1


def test_there_is_one_scan_until_refresh(make_distribution, backends_of):
    make_distribution("exengine-good", {"good": "exengine_good:Good"}, GOOD)
    backends = backends_of()
    assert sorted(backends.records()) == ["good"]
    make_distribution("later", {"later": "later:Good"}, GOOD)
    assert sorted(backends.records()) == ["good"]
    backends.refresh()
    assert sorted(backends.records()) == ["good", "later"]
    assert backends.load("later").__name__ == "Good"


def test_probing_gives_each_plugin_its_state_and_raises_nothing(with_good, make_distribution):
    make_distribution("exengine-other", {"function": "os:system", "bad name": "m:C"})
    backends = with_good("raise SystemExit")
    make_distribution("exengine-rival", {"good": "exengine_rival:Good"}, GOOD)
    states = {name: record.state for name, record in backends.probe().items()}
    assert states == {
        "bad name": "broken",
        "faulty": "broken",
        "function": "invalid",
        "good": "conflict",
        "ndram": "valid",
    }
    assert [claim.state for claim in backends.records()["good"].candidates] == ["valid", "valid"]


def test_threads_that_load_at_once_get_the_same_class(with_good):
    backends = with_good("import time; time.sleep(0.05)\n" + GOOD, "exengine_faulty:Good")
    classes = []
    threads = [threading.Thread(target=lambda: classes.append(backends.load("faulty"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(classes) == 8 and len(set(classes)) == 1


def test_a_plugin_that_looks_at_the_registry_while_it_is_imported_is_loaded(with_good, monkeypatch):
    backends = with_good(
        "from exengine.kernel.registry import plugins\n"
        "assert plugins.BACKENDS.load('good').__name__ == 'Good'\n" + GOOD,
        "exengine_faulty:Good",
    )
    monkeypatch.setattr(plugins, "BACKENDS", backends)
    assert backends.load("faulty").__name__ == "Good"


def test_the_registries_of_the_process_have_the_two_groups():
    assert (plugins.BACKENDS.group, plugins.BACKENDS.kind) == (BACKENDS_GROUP, "backend")
    assert (plugins.SOURCES.group, plugins.SOURCES.kind) == (SOURCES_GROUP, "source")
    assert plugins.SOURCES.find("simulated").distribution == "exengine"
    from exengine.kernel.frame_source_base import FrameSource

    assert base_class(BACKENDS_GROUP) is DataStorage and base_class(SOURCES_GROUP) is FrameSource
