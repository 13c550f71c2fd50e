"""Each fault of a plugin has its code, a plugin without a fault has none, and what was not looked at is said."""

import pytest

from exengine.checks import examples
from exengine.checks.conformance import Promise
from exengine.checks.report import check_folder, check_name
from exengine.kernel.errors import PluginConflictError, PluginNotFoundError
from exengine.kernel.registry.codes import CONFORMANCE, CONTRACT, DOCUMENTATION, FAULTS, PACKAGING


def codes(report):
    return [finding.code for finding in report.findings]


@pytest.fixture
def check(shelf, kit):
    """Return what checks the plugin after a change."""

    def run(*changes):
        for change in changes:
            shelf.change(*change)
        return check_name("shelf", shelf.registry)

    return run


def test_a_plugin_in_order_has_no_fault(check, kit):
    report = check()
    assert (codes(report), report.clean, report.record.state) == ([], True, "valid")
    assert kit["asked"] == ["exengine-shelf:shelf"]
    assert report.results.promises == {"P1": Promise("kept")}


SPOILT = {
    "a summary left out": ([("Put frames on a shelf.", "")], "EX201"),
    "an option left out of the docstring": ([("    wood : str\n        What it is made of.\n", "")], "EX202"),
    "an option renamed": ([("width: int = 3", "breadth: int = 3"), ("= width", "= breadth"), ("width=2", "2")], "EX202 EX203"),
    "an option that does not exist": ([("    wood : str", "    colour : str\n        Red.\n    wood : str")], "EX203"),
    "a type dropped": ([("width : int, default: 3", "width"), ("width: int = 3", "width=3")], "EX204"),
    "another default in the signature": ([("int = 3", "int = 4")], "EX205"),
    "another default in the docstring": ([("default: 3", "default: 5")], "EX205"),
    "half an interface": ([("def finish(self): ...", "")], "EX103"),
    "options that are hidden": ([('Literal["oak", "ash"] = "oak")', 'Literal["oak", "ash"] = "oak", **more)')], "EX105"),
    "no example": ([("    >>> Shelf(width=2).width\n    2\n", "")], "EX211"),
    "an example that nobody runs": ([("Shelf(width=2).width", "Shelf(width=2).width  # doctest: +SKIP")], "EX211"),
    "an example with another result": ([(".width\n    2", ".width\n    5")], "EX212"),
    "an example that raises": ([("Shelf(width=2).width", "Shelf(depth=2).width")], "EX212"),
    "an example that ends the process": ([("Shelf(width=2).width", "import os; os._exit(3)")], "EX212"),
    "a compression that nobody explains": ([("StorageCapabilities()", "StorageCapabilities(compression=('zstd',))")], "EX214"),
    "pyramids that nobody explains": ([("StorageCapabilities()", "StorageCapabilities(pyramids=True)")], "EX214"),
    "no licence": ([("License-Expression: MIT\n", "", "metadata")], "EX401"),
    "no dependency": ([("exengine<2,>=1", "exengineering<2,>=1", "metadata")], "EX404"),
    "no upper bound": ([("exengine<2,>=1", "exengine>=1", "metadata")], "EX404"),
    "no summary of the package": ([("Summary: Shelves\n", "", "metadata")], "EX406"),
    "any Python": ([("Requires-Python: >=3.11\n", "", "metadata")], "EX407"),
    "an import that fails": ([("from typing", "import nothing_of_this_name\nfrom typing")], "EX101"),
    "an import that ends the process": ([("from typing", "import os; os._exit(2)\nfrom typing")], "EX101"),
    "a bad target": ([(":Shelf", ":Shelf;import os:system", "entry points")], "EX403"),
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
def test_each_fault_has_its_code(check, spoilt):
    changes, expected = SPOILT[spoilt]
    report = check(*changes)
    assert " ".join(codes(report)) == expected, report.findings
    assert all(len(finding.message) > 20 for finding in report.findings)


def test_the_message_of_an_example_that_fails_shows_what_was_expected_and_what_came(check):
    (finding,) = check((".width\n    2", ".width\n    5")).findings
    for text in ("Shelf(width=2).width", "Expected:\n    5", "Got:\n    2"):
        assert text in finding.message


def test_the_example_runs_once_for_a_report(shelf, check, tmp_path):
    mark = tmp_path / "ran"
    (report,) = [check((">>> Shelf", f">>> _ = open({str(mark)!r}, 'a').write('x')\n    >>> Shelf"))]
    assert (codes(report), mark.read_text()) == ([], "x")
    assert [step.output for step in report.example.steps] == ["", "2\n"]


def test_an_example_that_does_not_run_is_not_started(check, monkeypatch):
    monkeypatch.setattr(examples, "run_child", lambda *_, **__: pytest.fail("it was started"))
    report = check(("Shelf(width=2).width", "Shelf(width=2).width  # doctest: +SKIP"))
    assert (codes(report), report.example) == (["EX211"], None)


def test_an_example_that_cannot_be_parsed_has_ex212(check):
    (finding,) = check((".width\n    2", ".width\n    ...wrong\n    >>>bad")).findings
    assert finding.code == "EX212" and "cannot be parsed" in finding.message


def test_a_plugin_without_a_page_has_ex213_and_either_spelling_of_its_name_will_do(shelf, check):
    page = shelf.package / "docs" / "shelf.rst"
    text = page.read_text()
    page.unlink()
    assert codes(check()) == ["EX213"]
    shelf.change("shelf =", "my-shelf =", "entry points")
    shelf.registry.refresh()
    (shelf.package / "docs" / "my_shelf.rst").write_text(text)
    assert codes(check_name("my-shelf", shelf.registry)) == []


def test_an_empty_page_is_none(shelf, check):
    (shelf.package / "docs" / "shelf.rst").write_text(" \n")
    assert codes(check()) == ["EX213"]


def test_what_the_page_or_the_docstring_mentions_is_explained(shelf, check):
    (shelf.package / "docs" / "shelf.rst").write_text("It can use ZSTD. A pyramid has levels.\n")
    capabilities = "StorageCapabilities(compression=('zstd',), pyramids=True, readers=('napari',))"
    report = check(("StorageCapabilities()", capabilities), ("Put frames on", "Put frames, for napari, on"))
    assert codes(report) == []


def test_a_capability_of_their_own_must_be_explained(shelf, check):
    own = (
        "from dataclasses import dataclass\n@dataclass(frozen=True, kw_only=True)\n"
        "class More(StorageCapabilities):\n    drawers: int = 2\n\n\nclass Shelf(DataStorage)"
    )
    changes = [
        ("class Shelf(DataStorage)", own),
        ("capabilities = StorageCapabilities()", "capabilities = More()"),
    ]
    report = check(*changes)
    assert codes(report) == ["EX214"] and "drawers" in report.findings[0].message
    (shelf.package / "docs" / "shelf.rst").write_text("It has drawers.\n")
    shelf.registry.refresh()
    assert codes(check_name("shelf", shelf.registry)) == []


# -- packaging -----------------------------------------------------------------------------------


def test_a_package_without_py_typed_has_ex402(shelf, check):
    (shelf.package / "py.typed").unlink()
    assert codes(check()) == ["EX402"]


def test_a_single_module_has_no_place_for_py_typed_and_page(make_distribution, shelf, kit):
    source = (shelf.package / "__init__.py").read_text()
    make_distribution("exengine-single", {"single": "single_module:Shelf"}, source, module="single_module")
    shelf.registry.refresh()
    assert {"EX213", "EX402"} <= set(codes(check_name("single", shelf.registry)))


def test_a_module_of_another_distribution_has_ex403(shelf, check):
    shelf.write_record()
    record = shelf.info / "RECORD"
    record.write_text(record.read_text().replace("exengine_shelf/", "somebody_else/"))
    assert codes(check()) == ["EX403"]


def test_a_module_inside_exengine_has_ex403(make_distribution, shelf, kit):
    make_distribution("exengine-inside", {"inside": "exengine.frame_sources.simulated:SimulatedSource"})
    shelf.registry.refresh()
    report = check_name("inside", shelf.registry)
    assert "EX403" in codes(report) and "EX102" in codes(report)
    assert any("is in the package exengine" in finding.message for finding in report.findings)


def test_a_name_that_breaks_the_rules_has_ex403_and_nothing_is_imported(shelf, kit):
    shelf.change("shelf =", "Shelf No 1 =", "entry points")
    shelf.registry.refresh()
    report = check_name("Shelf No 1", shelf.registry)
    assert codes(report) == ["EX403"] and kit["asked"] == []


def test_metadata_that_cannot_be_read_have_ex408(shelf, kit):
    (shelf.info / "METADATA").unlink()
    shelf.registry.refresh()
    assert codes(check_name("shelf", shelf.registry)) == ["EX408"]


DEPENDENCIES = {
    "exengine>=1,<2": True, "exengine <2, >=1.0": True, "exengine~=1.0": True, "exengine==1.*": True,
    "exengine[docs]>=1.2,<2": True, "ExEngine (>=1,<2)": True, "exengine>=1,<2; python_version > '3'": True,
    "exengine": False, "exengine>=1": False, "exengine<2": False, "exengine>=1,<3": False, "exengine>=0.4,<2": False,
    "exengine>=2,<3": False, "exengine-ndstorage>=1,<2": False, "exengine>=1,<2.5": False, "exengine>=1,!=2": False,
    "exengine~=1.4.2": True, "exengine===1.0": True, "exengine>=1.0.dev1,<2.0.0": True, "exengine>=1,<2; extra == 'x'": False,
    "exengine >=1 <2": False, "exengine @ https://example.org/x.whl": False,
}  # fmt: skip


@pytest.mark.parametrize("requirement", DEPENDENCIES)
def test_a_dependency_has_both_bounds_or_ex404(requirement):
    from exengine.checks.distribution import dependency_fault

    assert (dependency_fault(["numpy", requirement]) == "") is DEPENDENCIES[requirement]


# -- conformance ---------------------------------------------------------------------------------


def test_a_capability_that_is_not_kept_has_the_code_of_the_kit(check, kit):
    kit["findings"] = [{"code": "EX304", "message": "metadata is declared, and was lost"}]
    report = check()
    assert [str(finding) for finding in report.findings] == ["EX304 metadata is declared, and was lost"]


def test_a_promise_that_is_broken_without_a_code_is_a_fault_too(check, kit):
    kit["promises"] = {"P4": {"outcome": "broken", "because": ["the frame was replaced"]}}
    report = check()
    assert not report.clean and report.broken_promises == {"P4": "the frame was replaced"}


def test_what_a_variant_breaks_is_a_fault_that_names_it(check, kit):
    kit["variants"] = {
        "oak": {
            **kit,
            "promises": {"P4": {"outcome": "broken", "because": ["the frame was replaced"]}},
            "findings": [{"code": "EX304", "message": "metadata was lost"}],
        }
    }
    report = check()
    assert report.broken_promises == {"P4 oak": "the frame was replaced"}
    assert [str(finding) for finding in report.findings] == ["EX304 variant 'oak': metadata was lost"]


@pytest.mark.parametrize("error", [ImportError("No module named 'pytest'"), RuntimeError("the kit is ill")])
def test_without_the_kit_conformance_is_reported_as_not_run(check, kit, error):
    kit["raises"] = error
    report = check()
    assert report.clean
    assert any(text.startswith("conformance: ") and str(error) in text for text in report.not_run)


def test_a_class_that_cannot_be_used_is_not_given_to_the_kit(check, kit):
    report = check(("Put frames on a shelf.", ""))
    assert kit["asked"] == []
    assert any("the class cannot be used" in text for text in report.not_run)


# -- names and folders ---------------------------------------------------------------------------


def test_an_unknown_name_and_a_conflict_are_errors_and_no_findings(shelf, make_distribution, kit):
    with pytest.raises(PluginNotFoundError, match="did you mean 'shelf'"):
        check_name("shelv", shelf.registry)
    make_distribution("other", {"shelf": "other:Shelf"}, "")
    shelf.registry.refresh()
    with pytest.raises(PluginConflictError):
        check_name("shelf", shelf.registry)
    assert codes(check_name("exengine-shelf:shelf", shelf.registry)) == []


def test_a_folder_in_order_has_no_fault(shelf, kit):
    (report,) = check_folder(shelf.project)
    assert (codes(report), report.record.state) == ([], "valid")


def test_a_folder_is_checked_by_its_project_file_and_its_class_where_it_is_installed(shelf, kit):
    shelf.change('license = "MIT"\n', "", "project")
    shelf.change("exengine>=1,<2", "exengine", "project")
    shelf.change("Put frames on a shelf.", "")
    (report,) = check_folder(shelf.project)
    assert codes(report) == ["EX201", "EX401", "EX404"]


def test_a_folder_that_is_not_installed_says_how_and_has_its_packaging_checked(shelf, kit):
    shelf.change("exengine-shelf", "exengine-rack", "project")
    shelf.change("requires-python", "# requires-python", "project")
    (report,) = check_folder(shelf.project)
    assert codes(report) == ["EX407"] and report.record.state == "found"
    assert any(f"pip install {shelf.project}" in text for text in report.not_run)


def test_a_file_that_the_wheel_forgot_has_ex405(shelf, kit):
    shelf.write_record("shelf.rst", "py.typed")
    (report,) = check_folder(shelf.project)
    assert codes(report) == ["EX405", "EX405"]
    assert (
        "exengine_shelf/py.typed is in the project, but not in the installed distribution"
        in report.findings[0].message
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("[project", "is not valid TOML"),
        ("[tool.poetry]\nname = 'x'", "has no .project. table"),
        ("[project]\nname = 'x'", "registers no plugin"),
    ],
)
def test_a_folder_that_is_no_plugin_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "pyproject.toml").write_text(content)
    with pytest.raises(PluginNotFoundError, match=message):
        check_folder(tmp_path)


# -- the table of codes --------------------------------------------------------------------------


def test_every_code_stands_once_and_in_order():
    assert list(FAULTS) == sorted(FAULTS)
    assert len(FAULTS) == len(CONTRACT) + len(DOCUMENTATION) + len(CONFORMANCE) + len(PACKAGING)
