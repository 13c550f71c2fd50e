"""The distributions of this repository fit one another, and the release is checked for what it must contain."""

import json
import zipfile
from copy import deepcopy

import pytest

pytest.importorskip("packaging")

from release import PROJECTS, ROOT, add_results, check_wheel, facts_of, misfits

FACTS = [facts_of(project) for project in PROJECTS]


def test_the_versions_of_the_distributions_fit_one_another():
    assert misfits(FACTS) == []


def test_a_version_that_another_distribution_refuses_is_a_fault():
    changed = deepcopy(FACTS)
    changed[0]["version"] = "2.0.0"
    faults = misfits(changed)
    assert any("requires exengine>=1.0,<2, but its version is 2.0.0" in fault for fault in faults)
    assert len(faults) >= len(PROJECTS) - 1


def test_a_plugin_that_no_extra_installs_is_a_fault():
    changed = [*FACTS, {"name": "exengine-new", "version": "1.0", "dependencies": []}]
    assert misfits(changed) == ["no extra of exengine installs exengine-new"]


@pytest.mark.parametrize("extra", ["all", "micromanager", "ndstorage"])
def test_the_extras_that_users_of_0_4_0_type_exist(extra):
    assert extra in FACTS[0]["optional-dependencies"]


def test_a_wheel_without_a_file_of_its_package_is_a_fault(tmp_path):
    wheel = tmp_path / "exengine-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("exengine/__init__.py", "")
        archive.writestr("exengine-1.0.0.dist-info/licenses/LICENSE", "")
    faults = check_wheel(wheel, ROOT)
    assert f"{wheel.name} lacks exengine/checks/codes.toml" in faults
    assert f"{wheel.name} lacks py.typed" in faults


@pytest.fixture
def plugin(tmp_path):
    """Return a copy of the metadata of a plugin, without its code."""
    original = ROOT / "plugins" / "exengine-ndstorage" / "pyproject.toml"
    (tmp_path / "pyproject.toml").write_text(original.read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_the_results_of_the_kit_and_of_the_campaigns_become_part_of_the_package(plugin):
    assert add_results(plugin) == []
    results = plugin / "src" / "exengine_ndstorage" / "docs" / "results"
    assert {path.name for path in results.glob("*.json")} == {"ndtiff.json", "ndram.json"}
    campaigns = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob("faults/*.json")]
    assert campaigns and {campaign["backend"] for campaign in campaigns} == {"ndtiff"}


def test_results_of_another_version_are_a_fault(plugin):
    project = plugin / "pyproject.toml"
    project.write_text(project.read_text(encoding="utf-8").replace('version = "1.0.0"', 'version = "1.1.0"'))
    assert "the results of ndtiff are of version 1.0.0, not 1.1.0" in add_results(plugin)


def test_a_plugin_without_results_is_a_fault(plugin):
    project = plugin / "pyproject.toml"
    project.write_text(project.read_text(encoding="utf-8").replace("\nndtiff = ", "\nnew = "))
    assert "there are no results of new" in add_results(plugin)
