"""The distributions of this repository fit one another, and the release is checked for what it must contain."""

import zipfile
from copy import deepcopy

import pytest

pytest.importorskip("packaging")

from release import PROJECTS, ROOT, check_wheel, facts_of, misfits

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
