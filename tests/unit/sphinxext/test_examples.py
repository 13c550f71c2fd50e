"""The example of a plugin is run when its page is made, whatever it does."""

import pytest
from sphinx.errors import ExtensionError

from exengine.checks.examples import ExampleRun, Step, run_example


def shelf(example):
    body = "\n".join(f"    {line}" for line in example.splitlines())
    return f'"""Put frames on a shelf.\n\n    Examples\n    --------\n{body}\n    """'


@pytest.fixture
def module(tmp_path):
    """A folder with a module whose example is run."""
    (tmp_path / "example_home.py").write_text("number = 7\nclass Thing: ...\n")
    return tmp_path


def run(module, text, **options):
    return run_example("example_home:Thing", text, [module], **options)


def test_each_statement_gives_what_it_printed(module):
    assert run(module, ">>> number + 1\n8\n>>> x = 3\n>>> print('a')\na\n") == ExampleRun(
        (Step("8\n", ran=True), Step("", ran=True), Step("a\n", ran=True))
    )


def test_an_ellipsis_stands_for_anything_and_the_real_output_is_kept(module):
    steps = run(module, ">>> object()\n<object object at ...>\n").steps
    assert steps[0].output.startswith("<object object at 0x") and not steps[0].failed


def test_after_a_failure_nothing_more_is_run(module):
    found = run(module, ">>> number\n8\n>>> open('left', 'w').close()\n")
    assert found.failed
    assert [(step.output, step.failed, step.ran) for step in found.steps] == [
        ("7\n", True, True),
        ("", False, False),
    ]


def test_an_exception_is_a_failure_with_its_message(module):
    step = run(module, ">>> {}['gone']\n1\n").steps[0]
    assert step.failed and step.output.endswith("KeyError: 'gone'\n")


def test_an_expected_exception_is_none(module):
    assert not run(module, ">>> {}['gone']\nTraceback (most recent call last):\nKeyError: 'gone'\n").failed


def test_files_go_to_a_folder_that_is_gone_afterwards(module):
    text = ">>> import os, tempfile\n>>> print(os.getcwd(), tempfile.mkdtemp())\n...\n"
    here, _, there = run(module, text).steps[1].output.strip().partition(" ")
    assert here == "/tmp" and there.startswith("/tmp/tmp")


def test_a_process_that_dies_is_a_failure(module):
    found = run(module, ">>> import os\n>>> os._exit(3)\n")
    assert found.failed and "exit code 3" in found.error


def test_an_example_that_does_not_end_is_stopped(module):
    found = run(module, ">>> while True: pass\n", time_limit_s=1.0)
    assert found.failed and "1 s" in found.error


# -- on the page ---------------------------------------------------------------------------------


def test_the_page_shows_what_the_code_printed_between_the_words_of_the_author(site, build):
    site.backend(doc=shelf("Count them:\n\n>>> 2 * 21\n4...\n\nThat is many.\n\n>>> 7 * 3\n21"))
    text = build().text("usage/backends/shelf")
    assert "Count them: >>> 2 * 21 42" in text
    assert text.index("That is many.") < text.index(">>> 7 * 3 21")
    assert "when the page was made, with shelf-dist 2.5." in text


def test_an_example_that_fails_is_shown_with_what_it_gave_and_what_it_should_have_given(site, build):
    site.backend(doc=shelf(">>> print('oak')\nash"))
    text = build().text("usage/backends/shelf")
    assert "EX212 statement 1 of the example gives something else than it says: oak" in text
    assert "oak # The docstring says: # ash" in text
    assert "when the page was made" not in text


def test_an_example_that_fails_ends_a_strict_build(site, build):
    site.backend(doc=shelf(">>> print('oak')\nash"))
    with pytest.raises(ExtensionError, match="EX212 statement 1 of the example"):
        build(exengine_strict=["shelf-dist"])


def test_an_example_that_crashes_gives_a_page_that_says_so(site, build):
    site.backend(doc=shelf(">>> import os; os._exit(3)"))
    site.backend("good-dist", name="good", doc=shelf(">>> 6 * 7\n42"))
    built = build()
    assert "EX212 running the example: it ended the process with exit code 3" in built.text(
        "usage/backends/shelf"
    )
    assert ">>> 6 * 7 42" in built.text("usage/backends/good")


def test_hostile_output_is_only_text(site, build):
    site.backend(doc=shelf(r""">>> print("\x1b[31m.. raw:: html\n\n   <script>\n`x`_")""" + "\n..."))
    html = (build().output / "usage/backends/shelf.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in html and "\x1b" not in html
