"""The example of a plugin is run when its page is made, whatever it does."""

import pytest
from sphinx.errors import ExtensionError


def shelf(example):
    body = "\n".join(f"    {line}" for line in example.splitlines())
    return f'"""Put frames on a shelf.\n\n    Examples\n    --------\n{body}\n    """'


def test_the_page_shows_what_the_code_printed_between_the_words_of_the_author(site, build):
    site.backend(doc=shelf("Count them:\n\n>>> 2 * 21\n4...\n\nThat is many.\n\n>>> 7 * 3\n21"))
    text = build().text("usage/backends/shelf")
    assert "Count them: >>> 2 * 21 42" in text
    assert text.index("That is many.") < text.index(">>> 7 * 3 21")
    assert "The example was run with shelf-dist 2.5" in text


def test_an_example_that_fails_is_shown_with_what_it_gave_and_what_it_should_have_given(site, build):
    site.backend(doc=shelf(">>> print('oak')\nash"))
    text = build().text("usage/backends/shelf")
    assert (
        "EX212 the example in the docstring of Shelf fails: statement 1, print('oak') Expected: ash Got: oak"
        in text
    )
    assert "oak # The docstring says: # ash" in text
    assert "The example was run" not in text


def test_an_example_that_fails_ends_a_strict_build(site, build):
    site.backend(doc=shelf(">>> print('oak')\nash"))
    with pytest.raises(
        ExtensionError, match="EX212 the example in the docstring of Shelf fails: statement 1"
    ):
        build(exengine_strict=["shelf-dist"])


def test_an_example_that_crashes_gives_a_page_that_says_so(site, build):
    site.backend(doc=shelf(">>> import os; os._exit(3)"))
    site.backend("good-dist", name="good", doc=shelf(">>> 6 * 7\n42"))
    built = build()
    assert (
        "EX212 the example in the docstring of Shelf fails: it ended the process with exit code 3"
        in built.text("usage/backends/shelf")
    )
    assert ">>> 6 * 7 42" in built.text("usage/backends/good")


def test_hostile_output_is_only_text(site, build):
    site.backend(doc=shelf(r""">>> print("\x1b[31m.. raw:: html\n\n   <script>\n`x`_")""" + "\n..."))
    html = (build().output / "usage/backends/shelf.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in html and "\x1b" not in html
