"""The example of a plugin is run in a process of its own, whatever it does."""

import functools
import os

import pytest

from exengine.checks.examples import ExampleRun, Step, fault_of, run_example


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the example of a class in a module on ``sys.path``."""
    (tmp_path / "example_home.py").write_text("number = 7\nclass Thing: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return functools.partial(run_example, "example_home:Thing")


def test_each_statement_gives_what_it_printed(run):
    assert run(">>> number + 1\n8\n>>> x = 3\n>>> print('a')\na\n") == ExampleRun(
        (Step("8\n", ran=True), Step("", ran=True), Step("a\n", ran=True))
    )


def test_an_ellipsis_stands_for_anything_and_the_real_output_is_kept(run):
    steps = run(">>> object()\n<object object at ...>\n").steps
    assert steps[0].output.startswith("<object object at 0x") and not steps[0].failed


def test_after_a_failure_nothing_more_is_run(run):
    found = run(">>> number\n8\n>>> open('left', 'w').close()\n")
    assert found.failed
    assert [(step.output, step.failed, step.ran) for step in found.steps] == [
        ("7\n", True, True),
        ("", False, False),
    ]


def test_an_exception_is_a_failure_with_its_message(run):
    step = run(">>> {}['gone']\n1\n").steps[0]
    assert step.failed and step.output.endswith("KeyError: 'gone'\n")


def test_an_expected_exception_is_none(run):
    assert not run(">>> {}['gone']\nTraceback (most recent call last):\nKeyError: 'gone'\n").failed


def test_files_go_to_a_folder_that_is_deleted_afterwards(run):
    text = ">>> import os, tempfile\n>>> print(os.getcwd(), tempfile.mkdtemp())\n...\n"
    here, _, there = run(text).steps[1].output.strip().partition(" ")
    assert here == "/tmp" and there.startswith("/tmp/tmp")


def test_a_process_that_dies_is_a_failure(run):
    found = run(">>> import os\n>>> os._exit(3)\n")
    assert found.failed and "exit code 3" in found.error


def test_an_example_that_does_not_end_is_stopped(run):
    found = run(">>> while True: pass\n", time_limit_s=1.0)
    assert found.failed and "1 s" in found.error


def test_the_folder_of_an_example_is_empty_and_deleted_afterwards(run, tmp_path):
    mark = tmp_path / "folder"
    text = f">>> import os\n>>> os.listdir('.')\n[]\n>>> _ = open({str(mark)!r}, 'w').write(os.getcwd())\n"
    assert not run(text).failed
    assert "exengine-example-" in mark.read_text() and not os.path.exists(mark.read_text())


FAULTS = {
    "another result": (">>> 6 * 7\n41\n", "statement 1, 6 * 7\nExpected:\n    41\nGot:\n    42"),
    "no result": (">>> x = 1\n>>> x = 2\n41\n", "statement 2, x = 2\nExpected:\n    41\nGot nothing"),
    "a result that is not stated": (">>> 42\n", "statement 1, 42\nExpected nothing\nGot:\n    42"),
    "an exit": (">>> import os; os._exit(3)\n", "it ended the process with exit code 3"),
    "an exit with output": (
        ">>> import os; os.write(1, b'goodbye'); os._exit(3)\n",
        "it ended the process with exit code 3\ngoodbye",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_the_statement_what_was_expected_and_what_came(run, fault):
    text, message = FAULTS[fault]
    assert fault_of(text, run(text)) == message
