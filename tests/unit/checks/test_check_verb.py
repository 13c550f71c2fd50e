"""``exengine backends check``: what it prints, where, and with which exit code."""

import json

import pytest

from exengine.cli.main import main


@pytest.fixture
def check(shelf, kit, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main(["backends", "check", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_plugin_in_order_gives_0(check):
    code, out, err = check("shelf")
    assert code == 0
    assert out == "shelf (exengine-shelf 1.5): no faults in the checks that were run\n"
    assert "not run: files of the wheel" in err


def test_a_plugin_of_which_everything_was_looked_at_has_nothing_said_on_stderr(shelf, check):
    shelf.write_record()
    assert check("shelf") == (0, "shelf (exengine-shelf 1.5): no faults\n", "")


def test_a_fault_gives_1_and_a_line_with_its_code(shelf, check):
    shelf.change("Put frames on a shelf.", "")
    shelf.change("License-Expression: MIT\n", "", "metadata")
    code, out, _ = check("shelf")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "shelf (exengine-shelf 1.5): 2 faults"
    assert lines[1].startswith("  EX201  Shelf has no docstring")
    assert lines[2].startswith("  EX401  the license is missing")
    assert "exengine explain EX" in lines[3]


def test_an_unknown_name_gives_2(check):
    code, out, err = check("shelv")
    assert (code, out) == (2, "")
    assert "did you mean 'shelf'" in err


def test_a_folder_gives_0_and_one_that_is_not_installed_2(shelf, check):
    assert check("./project")[0] == 0
    assert check("project")[0] == 0
    shelf.change("exengine-shelf", "exengine-rack", "project")
    code, _, err = check("./project")
    assert code == 2
    assert "pip install project" in err
    assert check("./nowhere")[0] == 2


def test_the_name_of_an_installed_backend_means_the_backend_beside_a_folder_of_that_name(check, tmp_path):
    for name in ("shelf", "simulated"):
        (tmp_path / name).mkdir()
    code, out, _ = check("shelf")
    assert (code, out) == (0, "shelf (exengine-shelf 1.5): no faults in the checks that were run\n")
    for folder in ("./shelf", str(tmp_path / "shelf"), "simulated"):  # a source, which has no such checks
        code, out, err = check(folder)
        assert (code, out) == (2, "")
        assert "pyproject.toml" in err


def test_annotations_name_the_file_the_line_and_the_code(shelf, check):
    shelf.change("Put frames on a shelf.", "")
    shelf.change('license = "MIT"\n', "", "project")
    code, out, _ = check("./project", "--format", "github")
    assert code == 1
    first, second = out.splitlines()
    assert first.startswith(
        "::error file=site/exengine_shelf/__init__.py,line=6,title=EX201::Shelf has no docstring"
    )
    assert second.startswith("::error file=project/pyproject.toml,line=1,title=EX401::the license is missing")


def test_annotations_are_one_line_each_whatever_the_message(shelf, check):
    shelf.change(".width\n    2", ".width\n    100 %")
    _, out, _ = check("shelf", "--format", "github")
    assert len(out.splitlines()) == 1
    assert "Expected:%0A    100 %25" in out


def test_json_is_one_document_with_everything(shelf, check, kit):
    kit["findings"] = [{"code": "EX304", "message": "lost"}]
    code, out, _ = check("shelf", "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["target"]) == (1, False, "shelf")
    (plugin,) = report["plugins"]
    assert (plugin["name"], plugin["distribution"], plugin["state"]) == ("shelf", "exengine-shelf", "valid")
    assert [(f["code"], f["message"], f["line"]) for f in plugin["findings"]] == [("EX304", "lost", 6)]
    assert plugin["conformance"]["P1"]["outcome"] == "kept"
    assert plugin["not_run"]


def test_a_promise_that_is_broken_gives_1_and_is_named(check, kit):
    kit["promises"] = {"P4": {"outcome": "broken", "because": ["a frame was replaced"]}}
    code, out, _ = check("shelf")
    assert code == 1 and "P4     this promise is broken: a frame was replaced" in out
    assert "::error title=P4::the promise P4 is broken" in check("shelf", "--format", "github")[1]


def test_debug_shows_the_traceback_of_an_import_that_fails(shelf, check):
    shelf.change("from typing", "import nothing_of_this_name\nfrom typing")
    code, out, err = check("shelf", "--debug")
    assert code == 1 and "EX101  importing exengine_shelf:Shelf raised ModuleNotFoundError" in out
    assert "Traceback" in err


def test_what_kills_the_process_does_not_kill_the_command(shelf, check):
    shelf.change("from typing", "import ctypes; ctypes.string_at(0)\nfrom typing")
    code, out, _ = check("shelf")
    assert code == 1 and "EX101  importing exengine_shelf:Shelf ended the process with signal SIGSEGV" in out
