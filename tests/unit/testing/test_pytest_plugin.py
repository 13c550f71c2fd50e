"""The pytest plugin, as its users run it: in processes of their own."""

import json
import os
import re
import subprocess
import sys
import textwrap

import pytest

from exengine.testing import read_results, run_conformance

FAST = "put_many or replaced or durable or holes"


@pytest.fixture
def run_pytest(module, tmp_path):
    """Return what runs pytest in a folder where nothing is, with the made-up backends installed."""
    folder = tmp_path / "empty"
    folder.mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(*arguments, source=None, with_all_plugins=False):
        if source is not None:
            (folder / "test_mine.py").write_text(textwrap.dedent(source))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        options = ["-p", "no:cacheprovider"]
        if not with_all_plugins:  # it would take longer to import them than to run the tests
            environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            options += ["-p", "exengine.testing.pytest_plugin"]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options, *map(str, arguments)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=100,
            env=environment,
            check=False,
        )

    return run


def test_the_kit_runs_in_an_empty_folder_and_writes_results(run_pytest, tmp_path):
    options = ("--exengine-backend", "plain", "--exengine-results", tmp_path / "out.json", "-k", FAST)
    done = run_pytest(*options, with_all_plugins=True)
    assert done.returncode == 0, done.stdout
    results = read_results(tmp_path / "out.json")
    assert (results["backend"], results["distribution"], results["version"]) == (
        "plain",
        "broken-backends",
        "2.5",
    )
    assert results["promises"]["P4"] == {
        "outcome": "kept",
        "tests": 2,
        "failed": 0,
        "codes": [],
        "because": [],
    }
    assert results["promises"]["F2"]["outcome"] == "not promised"
    assert results["promises"]["D3"]["outcome"] == "not run"
    assert results["codes"] == []
    assert "promises of plain" in done.stdout


def test_several_backends_give_a_file_each_and_a_fault_fails_the_run(run_pytest, tmp_path):
    names = ["replacesframes", "flusheswithoutsaying", "plain"]
    options = [option for name in names for option in ("--exengine-backend", name)]
    done = run_pytest(*options, "--exengine-results", tmp_path / "out", "-k", FAST)
    assert done.returncode == 1
    results = {name: read_results(tmp_path / "out" / f"{name}.json") for name in names}
    assert [results[name]["outcome"] for name in names] == ["broken", "broken", "kept"]
    assert results["replacesframes"]["promises"]["P4"]["outcome"] == "broken"
    assert results["flusheswithoutsaying"]["codes"] == ["EX309"]
    assert results["flusheswithoutsaying"]["promises"]["F2"]["codes"] == ["EX309"]
    assert results["flusheswithoutsaying"]["findings"][0]["code"] == "EX309"


def test_each_variant_of_a_backend_is_tested_with_its_options(run_pytest, tmp_path):
    words = "as_declared and axes or foreign_readers"
    done = run_pytest(
        "-v", "--exengine-backend", "limited", "--exengine-results", tmp_path / "out.json", "-k", words
    )
    assert done.returncode == 0, done.stdout
    assert (
        "exengine-backend::limited::" in done.stdout and "exengine-backend::limited::hidden::" in done.stdout
    )
    results = read_results(tmp_path / "out.json")
    hidden = results["variants"]["hidden"]
    assert list(results["variants"]) == ["hidden"] and hidden["backend"] == results["backend"] == "limited"
    assert results["promises"]["P2"]["outcome"] == hidden["promises"]["P2"]["outcome"] == "kept"
    assert results["promises"]["C6"]["outcome"] == "kept"
    assert hidden["promises"]["C6"]["outcome"] == "not promised"
    assert "promises of limited::hidden" in done.stdout


def test_a_promise_that_only_a_variant_breaks_fails_the_run(run_pytest, tmp_path):
    done = run_pytest(
        "--exengine-backend",
        "wrongvariant",
        "--exengine-results",
        tmp_path / "out.json",
        "-k",
        "axes_are_as_declared",
    )
    assert done.returncode == 1
    results = read_results(tmp_path / "out.json")
    assert results["promises"]["P2"]["outcome"] == "kept" and results["codes"] == []
    assert results["variants"]["wrong"]["codes"] == ["EX303"] and results["outcome"] == "broken"


def test_a_variant_with_unknown_options_is_wrong_use(run_pytest):
    done = run_pytest("--exengine-backend", "misspeltvariant")
    assert done.returncode == 4
    assert "variant 'wrong' of MisspeltVariant has no option 'hiden' (did you mean 'hidden'?)" in done.stderr


def test_a_class_of_the_user_may_name_a_variant(run_pytest, tmp_path):
    source = """
        from exengine.testing import StorageConformance

        class TestHidden(StorageConformance):
            backend, variant = "limited", "hidden"
    """
    done = run_pytest(
        "--exengine-results", tmp_path / "out.json", "-k", "foreign_readers", "test_mine.py", source=source
    )
    assert done.returncode == 0, done.stdout
    results = read_results(tmp_path / "out.json")
    assert results["outcome"] == "not run"  # nothing was tested with the default options
    assert results["variants"]["hidden"]["promises"]["C6"]["outcome"] == "not promised"


def test_tests_of_the_user_are_not_run_unless_they_are_named(run_pytest):
    source = "def test_of_mine(): raise RuntimeError('run')"
    alone = run_pytest("--exengine-backend", "plain", "-k", "replaced or mine", source=source)
    assert alone.returncode == 0, alone.stdout
    both = run_pytest("test_mine.py", "--exengine-backend", "plain", "-k", "replaced or mine")
    assert both.returncode == 1
    assert "1 failed, 1 passed" in both.stdout


def test_without_its_options_the_plugin_adds_nothing_and_imports_nothing_heavy(run_pytest):
    source = """
        import sys

        def test_what_is_imported():
            ours = sorted(name for name in sys.modules if name.startswith("exengine"))
            assert ours == ["exengine", "exengine.testing", "exengine.testing.pytest_plugin"]
            assert not {"numpy", "yaml", "pydantic", "hypothesis.strategies"} & set(sys.modules)
    """
    done = run_pytest(source=source)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_an_unknown_backend_is_wrong_use_with_the_names_that_are_near(run_pytest):
    done = run_pytest("--exengine-backend", "plian")
    assert done.returncode == 4
    assert "did you mean 'plain'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_subclass_with_one_fixture_runs_the_kit_and_is_in_the_results(run_pytest, tmp_path):
    source = """
        import pytest
        from broken_backends import FinishesOnce
        from exengine.testing import StorageConformance

        class TestMyStorage(StorageConformance):
            @pytest.fixture
            def storage_factory(self):
                return lambda: FinishesOnce()

            def test_of_mine(self, subject):
                assert subject.create().frames == {}
    """
    words = "called_again or holes or of_mine"
    done = run_pytest("--exengine-results", tmp_path / "out.json", "-k", words, "test_mine.py", source=source)
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    results = read_results(tmp_path / "out.json")
    assert results["backend"] == "TestMyStorage"
    assert results["promises"]["N1"]["outcome"] == "broken"
    assert results["promises"]["R2"]["outcome"] == "kept"


def test_a_long_sequence_is_reduced_only_if_no_other_test_has_found_a_fault(run_pytest):
    source = """
        import exengine.testing.kit.model as model
        from exengine.testing import StorageConformance

        def run_model(subject, *, reduce):
            print(f" {subject.cls.__name__} is reduced: {reduce}")

        model.run_model = run_model

        class TestPlain(StorageConformance):
            backend = "plain"

        class TestWrong(StorageConformance):
            backend = "replacesframes"

        class TestAfterIt(StorageConformance):
            backend = "plain"
    """
    done = run_pytest("-s", "-k", "never_replaced or any_sequence", "test_mine.py", source=source)
    assert "1 failed, 5 passed" in done.stdout, done.stdout
    told = re.findall(r" (\w+) is reduced: (\w+)", done.stdout)
    assert told == [("Plain", "True"), ("ReplacesFrames", "False"), ("Plain", "False")]


def test_run_conformance_returns_what_it_wrote_and_loads_no_other_plugin_of_pytest(
    module, tmp_path, monkeypatch
):
    site = tmp_path / "site"
    (site / "loud-1.0.dist-info").mkdir(parents=True)
    (site / "loud-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (site / "loud-1.0.dist-info" / "entry_points.txt").write_text("[pytest11]\nloud = loud\n")
    (site / "loud.py").write_text("raise RuntimeError('loaded')\n")
    monkeypatch.syspath_prepend(str(site))
    results = run_conformance("finishesonce", tmp_path / "new" / "results.json")
    assert results == read_results(tmp_path / "new" / "results.json")
    assert results["outcome"] == "broken"
    assert results["promises"]["N1"]["outcome"] == "broken"
    assert results["promises"]["P3"]["outcome"] == "kept"


def test_a_kit_that_cannot_run_says_why_and_writes_nothing(module, tmp_path, monkeypatch):
    unknown = run_conformance("plian", tmp_path / "results.json")
    assert (unknown["outcome"], unknown["codes"]) == ("not run", [])
    assert "did you mean 'plain'?" in unknown["reason"]
    assert {entry["outcome"] for entry in unknown["promises"].values()} == {"not run"}

    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "hypothesis" else find(name)
    )
    without = run_conformance("plain", tmp_path / "results.json")
    assert without["outcome"] == "not run"
    assert without["reason"] == "not installed: hypothesis; install with: pip install 'exengine[test]'"
    assert without["distribution"] == "broken-backends"
    assert list(tmp_path.iterdir()) == []


def test_results_are_json_in_a_stable_order(run_pytest, tmp_path):
    texts = []
    for number, seed in enumerate(("1", "2")):
        path = tmp_path / f"{number}.json"
        os.environ["PYTHONHASHSEED"] = seed
        try:
            run_pytest("--exengine-backend", "plain", "--exengine-results", path, "-k", "replaced or holes")
        finally:
            del os.environ["PYTHONHASHSEED"]
        texts.append(path.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert list(json.loads(texts[0])["promises"])[:3] == ["P1", "P2", "P3"]
