"""No test is skipped in every environment of tox."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_unit_tests_that_need_more_than_the_kernel_run_where_it_is_installed():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    run = [ROOT / path for path in re.findall(r"tests/[\w/.]+", tox["testenv:product"]["commands"])]
    needing = [
        path
        for path in sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
        if "importorskip(" in path.read_text(encoding="utf-8")
    ]
    assert needing
    assert [path for path in needing if not any(path.is_relative_to(one) for one in run)] == []


def test_ci_tests_all_distributions_together_at_their_declared_floors():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    assert "floors-together" in tox["tox"]["env_list"].split()
    toxfile = (ROOT / "toxfile.py").read_text(encoding="utf-8")
    assert 'core_conf["env_list"].envs.insert(0, NEWEST)' in toxfile
    assert 'lowest = ("--resolution", "lowest-direct", ' in toxfile
    assert '_install(ROOT, *FOLDERS, extra="[test]", options=lowest)' in toxfile
    assert '(*FLOORS_CHOICE["kernel"], *KERNEL_TESTS)' in toxfile
    assert 'f"plugins/{folder.name}/tests") for folder in FOLDERS' in toxfile


def test_a_test_module_sets_its_marks_once():
    """A second ``pytestmark`` would replace the first, and ``once`` with it."""
    folders = ("tests", "plugins", "examples")
    modules = [path for folder in folders for path in (ROOT / folder).rglob("test_*.py")]
    assert len(modules) > 100
    twice = [path for path in modules if len(re.findall(r"^pytestmark\b", path.read_text("utf-8"), re.M)) > 1]
    assert twice == []
