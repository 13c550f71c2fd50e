"""Plugins with every known fault: listed, rejected by name, each with its page, and the good ones beside them.

Each fault is a distribution of its own; all of them are installed at once, beside the plugins that
are really there. No fault has an effect on another plugin. ``exengine backends check`` and the page of a
plugin agree in every code.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html import unescape

import numpy as np
import pytest

import exengine.testing
from exengine.checks.report import check_name
from exengine.cli.main import main
from exengine.kernel.registry import codes, plugins, probing
from exengine.kernel.registry.plugins import BACKENDS_GROUP, PluginRegistry
from exengine.testing.results import TestReport, make_results, write_results

GOOD = '''
from exengine import DataStorage, StorageCapabilities


class Store(DataStorage):
    """Keep frames in a dict.

    Parameters
    ----------
    gain : int, default: 1
        A number.

    Examples
    --------
    >>> import os
    >>> with open(os.environ.get("EXAMPLES_RUN", os.devnull), "a") as file:
    ...     print(__name__, file=file)
    >>> Store(3).gain
    3
    """

    def __init__(self, gain: int = 1) -> None:
        self.frames, self.gain = {}, gain

    def put(self, c, d, m): self.frames[tuple(dict(c).items())] = d.copy()
    def get_data(self, c): return self.frames[tuple(dict(c).items())]
    def get_metadata(self, c): return {}
    def __contains__(self, c): return tuple(dict(c).items()) in self.frames
    def finish(self): ...
    def close(self): ...
'''


def good_but(old, new):
    """Return the source of a good plugin with one thing changed."""
    assert old in GOOD
    return GOOD.replace(old, new)


@dataclass
class Fault:
    """A plugin with a fault, and what must be said of it.

    ``listed`` is the state in the listing, which imports nothing; ``state`` and ``reason`` what is
    known once it was looked at; ``code`` the exit code when it is asked for by name.
    """

    source: str | bytes | None
    reason: str
    state: str = "broken"
    stage: str = "import"
    listed: str = "found"
    code: int = 1
    deadly: bool = False
    target: str = "{module}:Store"
    name: str = ""
    spoil: object = None
    also: list = field(default_factory=list)


def remove_metadata(info):
    (info / "METADATA").unlink()


def cut_entry_points(info):
    (info / "entry_points.txt").write_text("[exengine.storage_backends\nx = y:Z\n")


def put_bytes(info):
    (info / "entry_points.txt").write_bytes(b"[exengine.storage_backends]\n\xff = x:Y\n")


def put_a_folder(info):
    (info / "entry_points.txt").unlink()
    (info / "entry_points.txt").mkdir()


def corrupt(how, reason, name=""):
    return Fault(GOOD, reason, stage="metadata", listed="broken", spoil=how, name=name)


def invalid(source, reason):
    return Fault(source, reason, "invalid", "contract")


def deadly(source, reason):
    return Fault(source, reason, deadly=True)


FAULTS = {
    "import-error": Fault("import a_library_that_is_missing", "ModuleNotFoundError: No module named 'a_library_that"),
    "syntax-error": Fault("class Store(\n", "SyntaxError"),
    "no-text": Fault(b"x = '\xff'", "SyntaxError"),
    "system-exit": Fault("raise SystemExit(3)", "SystemExit: 3"),
    "interrupt": Fault("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
    "recursion": Fault("def f(): return f()\nf()", "RecursionError"),
    "prints": Fault("print('{\"not\": \"our json\"}')\nraise ImportError('after printing')", "after printing"),
    "own-base-exception": Fault("class Odd(BaseException): ...\nraise Odd('odd')", "Odd: odd"),
    "no-attribute": Fault("", "has no attribute 'Store'", stage="attribute"),
    "raising-attribute": Fault("def __getattr__(name): raise OSError('not now')", "not now", stage="attribute"),
    "missing-module": Fault(None, "No module named 'no_such_module'", target="no_such_module:Store"),
    "raising-property": invalid(
        GOOD + "\nclass Meta(type(DataStorage)):\n    @property\n"
        "    def place_parameters(cls): raise RuntimeError('no')\n"
        "class Store(Store, metaclass=Meta):\n    '''Raise.'''",
        "EX101 inspecting the class raised RuntimeError: no",
    ),
    "raising-metaclass": invalid(
        "class Meta(type):\n    def __getattribute__(cls, name): raise RuntimeError('no')\nclass Store(metaclass=Meta): ...",
        "EX101 inspecting the class raised RuntimeError: no",
    ),
    "exiting-metaclass": invalid(
        "class Meta(type):\n    def __getattribute__(cls, name): raise SystemExit(5)\nclass Store(metaclass=Meta): ...",
        "EX101 inspecting the class raised SystemExit: 5",
    ),
    "no-class": invalid("Store = 5", "EX101 the entry point names an int, not a class"),
    "wrong-base": invalid("class Store(dict): ...", "EX102"),
    "half-interface": invalid(good_but("    def finish(self): ...\n", ""), "EX103 Store does not implement finish"),
    "few-arguments": invalid(good_but("def put(self, c, d, m)", "def put(self, c)"), "EX104"),
    "kwargs": invalid(good_but("gain: int = 1)", "gain: int = 1, **more)"), "EX105 __init__ accepts **more"),
    "bad-annotation": invalid(good_but("gain: int", "gain: 'Nowhere'"), "EX106"),
    "reserved-option": invalid(good_but("gain", "backend"), "EX107 option 'backend'"),
    "odd-capabilities": invalid(good_but("    def finish", "    capabilities = {}\n    def finish"), "EX108"),
    "no-place": invalid(
        good_but("    def __init__(self, gain: int = 1) -> None:\n", "    capabilities = StorageCapabilities(persistent=True)\n    def __init__(self) -> None:\n"),
        "EX109",
    ),
    "no-summary": invalid(GOOD.replace("Keep frames in a dict.", ""), "EX201"),
    "undocumented": invalid(good_but("gain: int = 1)", "gain: int = 1, loss: int = 2)"), "EX202 option 'loss'"),
    "unreal-option": invalid(good_but("    gain : int", "    pain : int\n        Much.\n    gain : int"), "EX203"),
    "no-type": invalid(GOOD.replace("gain: int = 1", "gain=1").replace("gain : int, default: 1", "gain"), "EX204"),
    "wrong-default": invalid(good_but("default: 1", "default: 2"), "EX205 the default of option 'gain' is 1"),
    "wrong-type": invalid(good_but("gain : int,", "gain : str,"), "EX206 the annotation of option 'gain' is int"),
    "rejected-default": invalid(good_but("gain: int = 1", "gain: int = 'x'").replace(", default: 1", ""), "EX207 the default of option 'gain'"),
    "bad-name": Fault(GOOD, "is not a valid name", stage="name", listed="broken", name="Store No. 1"),
    "two-modules": Fault(GOOD, "is not a valid target", stage="target", listed="broken", target="json;import os:x"),
    "no-colon": Fault(GOOD, "is not a valid target", stage="target", listed="broken", target="json"),
    "os-system": invalid("", "EX101 the entry point names a builtin_function_or_method"),
    "no-metadata": corrupt(remove_metadata, "the metadata of the distribution cannot be read"),
    "cut-entry-points": corrupt(cut_entry_points, "entry_points.txt cannot be parsed", "exengine-cut-entry-points"),
    "bytes-entry-points": corrupt(put_bytes, "entry_points.txt cannot be parsed", "exengine-bytes-entry-points"),
    "folder-entry-points": corrupt(put_a_folder, "entry_points.txt cannot be read", "exengine-folder-entry-points"),
    "os-exit": deadly("import os; os._exit(3)", "ended the process with exit code 3"),
    "segfault": deadly("import ctypes; ctypes.string_at(0)", "ended the process with signal SIGSEGV"),
    "abort": deadly("import os; os.abort()", "ended the process with signal SIGABRT"),
    "endless": deadly("import time\nwhile True: time.sleep(0.01)", "did not end within"),
    "twin": Fault(
        GOOD, "exengine-twin 1.0 and twin-b 1.0 both register", "conflict", "name", "conflict", 2,
        also=[("twin-b", "twin", "twin_b:Store")],
    ),
    "shadow": Fault(
        GOOD, "exengine-ndstorage 1.0.0 and exengine-shadow 1.0 both register the backend 'ndram'",
        "conflict", "name", "conflict", 2, name="ndram",
    ),
}  # fmt: skip
FAULTS["os-system"].target = "os:system"


# -- plugins that work, with faults in documentation, conformance or packaging ------------------------

METADATA = """\
Metadata-Version: 2.4
Name: {name}
Version: 1.0
Summary: Frames in a dict
License-Expression: MIT
Requires-Python: >=3.11
Requires-Dist: exengine>=1,<2
"""


@dataclass
class Flaw:
    """A change to a plugin without faults, and the codes that it yields.

    ``spoil`` changes the package, ``metadata`` is removed from the metadata, or replaced by another text.
    """

    codes: str
    source: str = GOOD
    spoil: object = None
    metadata: tuple = ("", "")


def declares(capability):
    return good_but("    def put", f"    capabilities = StorageCapabilities({capability})\n\n    def put")


def empty_page(package):
    next((package / "docs").iterdir()).write_text(" \n")


def remove_py_typed(package):
    (package / "py.typed").unlink()


def record_another_module(package):
    name = package.name.removeprefix("flawed_")
    (package.parent / f"exengine_{name}-1.0.dist-info" / "RECORD").write_text("somebody_else/__init__.py,,\n")


EXAMPLE = GOOD[GOOD.index("    Examples") : GOOD.index('    """\n\n    def __init__')]
OWN_CAPABILITY = good_but(
    "class Store(DataStorage)",
    "from dataclasses import dataclass\n@dataclass(frozen=True, kw_only=True)\n"
    "class More(StorageCapabilities):\n    drawers: int = 2\n\n\nclass Store(DataStorage)",
).replace("    def put", "    capabilities = More()\n\n    def put")
FLAWS = {
    "no-example": Flaw("EX211", good_but(EXAMPLE, "")),
    "skipped-example": Flaw("EX211", good_but(EXAMPLE, "    Examples\n    --------\n    >>> 1  # doctest: +SKIP\n")),
    "wrong-example": Flaw("EX212", good_but("    3\n    \"\"\"", "    4\n    \"\"\"")),
    "raising-example": Flaw("EX212", good_but("Store(3).gain", "Store(3).loss")),
    "exiting-example": Flaw("EX212", good_but("Store(3).gain", "os._exit(4)")),
    "crashing-example": Flaw("EX212", good_but("Store(3).gain", "import ctypes; ctypes.string_at(0)")),
    "unparsable-example": Flaw("EX212", good_but(EXAMPLE, EXAMPLE + "    >>>bad\n")),
    "no-page": Flaw("EX213", spoil=lambda package: next((package / "docs").iterdir()).unlink()),
    "empty-page": Flaw("EX213", spoil=empty_page),
    "unknown-compression": Flaw("EX214", declares("compression=('zstd',)")),
    "unknown-pyramids": Flaw("EX214", declares("pyramids=True")),
    "unknown-remote": Flaw("EX214", declares("remote=True")),
    "unknown-readers": Flaw("EX214", declares("readers=('napari', 'Fiji')")),
    "unknown-suffix": Flaw("EX214", declares("path_suffixes=('.shelf',)")),
    "unknown-capability": Flaw("EX214", OWN_CAPABILITY),
    **{f"not-kept-{code.lower()}": Flaw(code) for code in codes.CONFORMANCE},
    "no-licence": Flaw("EX401", metadata=("License-Expression: MIT\n", "")),
    "no-py-typed": Flaw("EX402", spoil=remove_py_typed),
    "another-module": Flaw("EX403", spoil=record_another_module),
    "no-dependency": Flaw("EX404", metadata=("exengine>=1", "numpy>=1")),
    "no-upper-bound": Flaw("EX404", metadata=("exengine>=1,<2", "exengine>=1")),
    "no-lower-bound": Flaw("EX404", metadata=("exengine>=1,<2", "exengine<2")),
    "no-summary-there": Flaw("EX406", metadata=("Summary: Frames in a dict\n", "")),
    "any-python": Flaw("EX407", metadata=("Requires-Python: >=3.11\n", "")),
    "many-flaws": Flaw("EX212 EX213 EX401", good_but("Store(3).gain", "Store(3).loss"), empty_page, ("License-Expression: MIT\n", "")),
}  # fmt: skip
DEADLY = [key for key, fault in FAULTS.items() if fault.deadly]


def name_of(key):
    return FAULTS[key].name or key


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, make_site):
    """Return a folder with every faulty plugin, and a good one."""
    folder = tmp_path_factory.mktemp("faulty") / "site"
    add = make_site(folder).add
    add("exengine-good", {"good": "good_store:Store"}, GOOD, module="good_store")
    for key, fault in FAULTS.items():
        module = f"faulty_{key.replace('-', '_')}"
        entry = name_of(key) if fault.spoil is None else key
        info = add(
            f"exengine-{key}", {entry: fault.target.format(module=module)}, fault.source, module=module
        )
        if fault.spoil is not None:
            fault.spoil(info)
        for distribution, name, target in fault.also:
            add(distribution, {name: target}, GOOD)
    for key, flaw in FLAWS.items():
        module = f"flawed_{key.replace('-', '_')}"
        entry_points = {key: f"{module}:Store"}
        info = add(f"exengine-{key}", entry_points, flaw.source, module=f"{module}/__init__")
        package = folder / module
        (package / "py.typed").touch()
        (package / "docs").mkdir()
        (package / "docs" / f"{key}.rst").write_text("Frames stay in memory.\n")
        old, new = flaw.metadata
        assert old in METADATA
        (info / "METADATA").write_text(METADATA.format(name=f"exengine-{key}").replace(old, new))
        if flaw.spoil is not None:
            flaw.spoil(package)
    return folder


@pytest.fixture
def site(faulty, on_path, monkeypatch):
    """Make every faulty plugin, and a good one, available in addition to the installed plugins."""
    on_path(faulty)
    monkeypatch.setattr(plugins, "BACKENDS", PluginRegistry(BACKENDS_GROUP, "backend"))
    return faulty


@pytest.fixture
def listed(site, capsys):
    """Return name -> entry of ``exengine backends list --json``."""
    assert main(["backends", "list", "--json"]) == 0
    return {record["name"]: record for record in json.loads(capsys.readouterr().out)}


def test_there_are_faults_enough():
    checked = [key for key, fault in FAULTS.items() if fault.state != "conflict"]
    assert len(checked) + len(FLAWS) >= 60


def test_every_faulty_plugin_is_listed_with_what_can_be_known_without_importing_it(listed):
    for key, fault in FAULTS.items():
        entry = listed[name_of(key)]
        assert entry["state"] == fault.listed, key
        if fault.listed != "found":
            assert fault.reason in entry["error"] and entry["stage"] == fault.stage, key
        if fault.listed != "conflict":
            assert entry["distribution"] in (f"exengine-{key}", f"exengine_{key.replace('-', '_')}")
            assert entry["version"] == "1.0"
    assert listed["ndtiff"]["state"] == listed["good"]["state"] == "found"


def test_listing_imports_the_same_modules_with_faulty_plugins_as_without(site, run_python, tmp_path):
    program = "import sys\nfrom exengine.cli.main import main\nmain(['backends', 'list', '--json'])\nprint(*sys.modules, file=sys.stderr)"
    (tmp_path / "empty").mkdir()
    with_faults = run_python(program, PYTHONPATH=str(site)).stderr.split()
    without = run_python(program, PYTHONPATH=str(tmp_path / "empty")).stderr.split()
    # The parser of Python is needed for classes that are defined in an unusual way.
    assert set(with_faults) - {"ast", "_ast", "token", "tokenize", "_tokenize"} == set(without)
    assert not [name for name in with_faults if name.startswith(("faulty_", "good_store", "exengine_"))]


@pytest.mark.parametrize("key", [key for key in FAULTS if key not in DEADLY])
def test_a_faulty_plugin_is_refused_by_name_and_the_reason_is_said(key, site, capsys):
    fault = FAULTS[key]
    assert main(["backends", "show", name_of(key)]) == fault.code
    out, err = capsys.readouterr()
    assert out == ""
    assert fault.reason in err and "Traceback" not in err
    record = plugins.BACKENDS.records()[name_of(key)]
    assert (record.state, record.stage) == (fault.state, fault.stage)
    if fault.state != "conflict":
        assert f"exengine{'-' if '-' in record.distribution else '_'}" in err  # whose it is
    if fault.state == "broken" and fault.stage in ("import", "attribute"):
        assert "Traceback" in record.traceback
    assert_the_good_ones_work()


@pytest.mark.parametrize("key", [key for key in DEADLY if key != "endless"])
def test_what_ends_the_process_is_refused_by_check_and_the_command_goes_on(key, site, capsys):
    assert main(["backends", "check", key]) == 1
    assert FAULTS[key].reason in capsys.readouterr().out
    assert main(["backends", "show", key]) == 1  # known by now, and not imported again
    assert FAULTS[key].reason in capsys.readouterr().err
    assert_the_good_ones_work()


def assert_the_good_ones_work():
    for name in ("good", "exengine-ndstorage:ndram"):
        storage = plugins.BACKENDS.load(name).create()
        storage.put({"time": 0}, np.full((2, 2), 7, np.uint16), {})
        assert storage[{"time": 0}][0, 0] == 7
        storage.finish()
        storage.close()
    assert plugins.BACKENDS.load("ndtiff").capabilities.persistent


def test_a_conflict_is_settled_by_the_name_of_the_distribution(site, capsys):
    assert main(["backends", "show", "twin"]) == 2
    choice = "use the name 'exengine-twin:twin' or 'twin-b:twin', or uninstall one of the distributions"
    assert choice in capsys.readouterr().err
    assert main(["backends", "show", "twin-b:twin"]) == 0
    assert plugins.BACKENDS.load("exengine-twin:twin").__module__ == "faulty_twin"


def test_what_a_good_plugin_prints_does_not_spoil_the_json(make_distribution, site, capsys):
    make_distribution("exengine-chatty", {"chatty": "exengine_chatty:Store"}, "print('welcome')\n" + GOOD)
    plugins.BACKENDS.refresh()
    assert main(["backends", "show", "chatty", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["output"] == "welcome\n"
    assert "welcome" in err


# The plugin that never returns would be waited for for 10 s.
SHORT_LIMIT = "from exengine.kernel.registry import probing; probing.TIME_LIMIT_S = 4.0\n"
CONF = """
import sys
exengine_path = [{site!r}, *sys.path]
sys.path.insert(0, {modules!r})
extensions = ["exengine.sphinxext"]
html_theme = "basic"
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Save results of the conformance kit for the documentation, and return the same from the kit itself.

    The kit has tests of its own, and would take minutes here.
    """

    def results_of(name):
        code = FLAWS[name].codes if name in FLAWS and FLAWS[name].codes in codes.CONFORMANCE else ""
        report = TestReport(
            "test_put", ("P1",), code, "broken" if code else "kept", "it differs" if code else ""
        )
        return make_results(name, [report], distribution=f"exengine-{name}", version="1.0")

    for name in FLAWS:
        write_results(tmp_path / "docs" / "_results" / f"{name}.json", results_of(name))
    monkeypatch.setitem(
        vars(exengine.testing), "run_conformance", lambda backend, path: results_of(backend.partition(":")[2])
    )


def codes_on(page):
    """Return the codes in the table of faults of a page, sorted."""
    tables = re.findall(r"<table[^>]*exengine-faults.*?</table>", page, re.S)
    return sorted(code for table in tables for code in re.findall(r"<tr.*?<td>.*?(EX\d{3})", table, re.S))


@pytest.mark.timeout(600)  # each of seventy plugins starts several processes
def test_check_and_the_documentation_find_every_fault_and_agree_in_every_code(
    site, results, tmp_path, monkeypatch
):
    pytest.importorskip("sphinx", reason="the pages need the extra docs")
    source = tmp_path / "docs"
    # Sphinx itself does not start beside corrupt metadata: it finds the modules, ExEngine the distributions.
    modules = tmp_path / "modules"
    shutil.copytree(site, modules, ignore=shutil.ignore_patterns("*.dist-info"))
    (source / "conf.py").write_text(SHORT_LIMIT + CONF.format(modules=str(modules), site=str(site)))
    (source / "index.rst").write_text("Start\n=====\n\n.. toctree::\n   :glob:\n\n   usage/*/index\n")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        source,
        tmp_path / "out",
    ]
    building = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "EXAMPLES_RUN": str(tmp_path / "examples run by docs")},
    )
    monkeypatch.setenv("EXAMPLES_RUN", str(tmp_path / "examples run by check"))
    monkeypatch.setattr(probing, "TIME_LIMIT_S", 4.0)
    checked = {key: name_of(key) for key, fault in FAULTS.items() if fault.state != "conflict"}
    checked |= {key: key for key in FLAWS}
    with ThreadPoolExecutor(2) as pool:
        reports = dict(zip(checked, pool.map(check_name, checked.values()), strict=True))
    said = building.communicate(timeout=300)[0]

    assert building.returncode == 0, said
    pages = [plain(page.read_text()) for page in (tmp_path / "out" / "usage" / "backends").glob("*.html")]
    for key, fault in FAULTS.items():
        code, _, rest = fault.reason.partition(" ")
        wanted = [f"exengine-{key}", f"exengine_{key.replace('-', '_')}"]
        parts = [code, rest] if code.startswith("EX") and code[2:].isdigit() else [fault.reason]
        if fault.state == "conflict":
            parts = [f"exengine-{key}:{name_of(key)}", "does not choose one"]
        found = [
            page
            for page in pages
            if any(name in page for name in wanted) and all(part in page for part in parts)
        ]
        assert found, key
    assert "Keep frames in a dict." in plain((tmp_path / "out/usage/backends/good.html").read_text())

    found = {key: sorted(finding.code for finding in report.findings) for key, report in reports.items()}
    shown = {
        key: codes_on(
            (tmp_path / f"out/usage/backends/{re.sub('[^a-z0-9_-]', '-', name.lower())}.html").read_text()
        )
        for key, name in checked.items()
    }
    assert shown == found
    assert len(found) >= 60 and all(found.values())
    assert {key: " ".join(found[key]) for key in FLAWS} == {key: flaw.codes for key, flaw in FLAWS.items()}
    # EX405 needs a project's folder and an installed wheel of it.
    assert {code for some in found.values() for code in some} == codes.FAULTS.keys() - {"EX405"}

    by_docs, by_check = (
        Counter((tmp_path / f"examples run by {path}").read_text().split()) for path in ("docs", "check")
    )
    ran = {f"flawed_{key.replace('-', '_')}" for key in FLAWS if FLAWS[key].codes != "EX211"} - {
        "flawed_unparsable_example"
    }
    assert {module for module in by_check if module.startswith("flawed_")} == ran
    assert set(by_check.values()) == set(by_docs.values()) == {1}
    assert by_check.keys() <= by_docs.keys()


@pytest.mark.timeout(300)
def test_doctor_finds_every_fault(site, run_python):
    program = f"{SHORT_LIMIT}from exengine.cli.main import main; raise SystemExit(main(['doctor', '--json']))"
    doctor = run_python(program, timeout=280, check=False, PYTHONPATH=str(site))
    assert doctor.returncode == 1
    report = json.loads(doctor.stdout)
    states = {record["name"]: record["state"] for record in report["backends"]}
    assert {key: states[name_of(key)] for key in FAULTS} == {
        key: fault.state for key, fault in FAULTS.items()
    }
    assert states["good"] == states["ndtiff"] == "valid"
    assert any(FAULTS["segfault"].reason in str(problem) for problem in report["problems"])


def plain(html):
    body = html.partition('<div class="body"')[2]
    return " ".join(unescape(re.sub(r"<[^>]+>", "", body)).split())


# -- the same outcome, whatever the order --------------------------------------------------------

OUTCOMES = """
import itertools, json, random, sys
from exengine.kernel.errors import PluginError
from exengine.kernel.registry.plugins import BACKENDS_GROUP, PluginRegistry
folders = sys.argv[1:]
orders = [folders, folders[::-1], folders[1:] + folders[:1], folders[2:] + folders[:2], [folders[n] for n in (1, 3, 0, 2)]]
assert len(set(map(tuple, orders))) == 5
outcomes = []
for order in orders:
    backends = PluginRegistry(BACKENDS_GROUP, "backend", order)
    outcome = []
    for name in [*backends.records(), "twin", "a-dist:twin", "b-dist:twin", "my_store", "c-dist:my-store", "a-dist:nothing"]:
        try:
            found = backends.find(name)
            outcome.append([name, found.distribution, found.version, found.target, found.state, found.error])
        except PluginError as error:
            outcome.append([name, type(error).__name__, str(error)])
    outcomes.append(json.dumps(outcome))
assert len(set(outcomes)) == 1, outcomes
print(outcomes[0])
"""


def test_every_conflict_has_the_same_outcome_under_20_hash_seeds_and_5_orders_of_the_path(
    make_distribution, run_python, tmp_path
):
    folders = [tmp_path / letter for letter in "abcd"]
    entries = {
        "a": {"twin": "a:Store"},
        "b": {"twin": "b:Store"},
        "c": {"my-store": "c:Store"},
        "d": {"my_store": "d:Store"},
    }
    for folder in folders:
        make_distribution(f"{folder.name}-dist", entries[folder.name], folder=folder)
        make_distribution(f"nd-{folder.name}", {"ndram": f"{folder.name}:Other"}, folder=folder)
    make_distribution("left-over", {"left": "left:Old"}, version="1.0", folder=folders[0])
    make_distribution("left-over", {"left": "left:New"}, version="2.0", folder=folders[0])
    make_distribution(
        "both",
        {"pair": "pair:One", "PAIR": "pair:Two", "pa-ir": "pair:Three", "pa_ir": "pair:Four"},
        folder=folders[3],
    )
    outcomes = {run_python(OUTCOMES, *folders, PYTHONHASHSEED=str(seed)).stdout for seed in range(20)}
    assert len(outcomes) == 1
    outcome = {entry[0]: entry[1:] for entry in json.loads(outcomes.pop())}
    assert outcome["twin"][0] == outcome["ndram"][0] == outcome["my_store"][0] == "PluginConflictError"
    assert outcome["a-dist:twin"][0] == "a-dist" and outcome["b-dist:twin"][0] == "b-dist"
    assert outcome["left"][:3] == ["left-over", "2.0", "left:New"]
