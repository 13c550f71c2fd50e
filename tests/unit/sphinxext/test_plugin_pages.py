"""The page of a plugin: complete where it is valid, an explanation where it is not."""

import sys

import pytest
import yaml
from sphinx.errors import ExtensionError

from exengine.config import layers
from exengine.kernel.data_storage_base import StorageCapabilities
from exengine.kernel.registry.codes import FAULTS
from exengine.sphinxext.capabilities import attribute_docs

DOCUMENTED = '''"""Put frames on a shelf.

Shelves are *long*, see ``put``.

Parameters
----------
path : str
    Where the shelf stands.
width : int
    How many frames lie side by side.
wood : {"oak", "ash"}
    What it is made of.
    Ash burns well.
polish : callable, optional
    Called with each frame.

Examples
--------
>>> shelf = Shelf("x", 3)
"""'''
INIT = """
def __init__(self, path: str, width: Annotated[int, "frames"], wood: Literal["oak", "ash"] = "oak",
             polish: Callable[[Any], Any] | None = None) -> None: ...
"""
CAPABILITIES = """
capabilities = StorageCapabilities(persistent=True, dtypes=("uint8", "uint16"), path_suffixes=(".shelf",))
"""


def test_the_options_table_has_every_parameter_with_type_default_and_meaning(site, build):
    site.backend(doc=DOCUMENTED, init=INIT, extra=CAPABILITIES)
    rows = {row[0]: row[1:] for row in build().rows("usage/backends/shelf") if row and len(row) == 4}
    assert rows["path"][:2] == ["str", "required"]
    assert rows["path"][2].startswith("Where the shelf stands. Only from Python")
    assert rows["width"] == [
        "int", "required", "How many frames lie side by side. Environment: EXENGINE_STORAGE__OPTIONS__WIDTH",
    ]  # fmt: skip
    assert rows["wood"][:2] == ["'oak' or 'ash'", "'oak'"]
    assert rows["wood"][2].startswith("What it is made of. Ash burns well.")
    from_python = "Only from Python, because a config cannot express the values."
    assert rows["polish"][1:] == ["None", f"Called with each frame. {from_python}"]


def test_the_capabilities_table_has_every_capability_with_its_meaning(site, build):
    site.backend(extra=CAPABILITIES, init="def __init__(self, path: str): ...")
    three = {row[0]: row[1:] for row in build().rows("usage/backends/shelf") if len(row) == 3}
    rows = {name: row for name, row in three.items() if not name.startswith("EX")}
    assert list(rows) == [name for name, _ in StorageCapabilities().items()]
    assert rows["persistent"] == ["yes", attribute_docs(StorageCapabilities)["persistent"]]
    assert rows["dtypes"][0] == "uint8, uint16"
    assert all(meaning for _, meaning in rows.values())


def test_no_capability_is_without_a_meaning():
    assert set(attribute_docs(StorageCapabilities)) == {name for name, _ in StorageCapabilities().items()}


def test_the_page_has_install_line_version_example_description_and_methods(site, build):
    site.backend(doc=DOCUMENTED, init=INIT, extra=CAPABILITIES)
    text = build().text("usage/backends/shelf")
    assert "pip install shelf-dist" in text
    assert "shelf-dist 2.5" in text
    assert ">>> shelf = Shelf" in text
    assert "Shelves are long , see put ." in text
    assert "Keep a frame." in text


def test_a_local_distribution_is_installed_from_its_folder(site, build):
    site.backend()
    text = build(exengine_local_plugins={"Shelf_Dist": "./plugins/shelf"}).text("usage/backends/shelf")
    assert "pip install ./plugins/shelf" in text


def test_the_config_snippet_is_a_config_that_is_understood(site, build):
    site.backend(doc=DOCUMENTED, init=INIT, extra=CAPABILITIES)
    page = build().rst("usage/backends/shelf")
    snippet = page.partition(".. code-block:: yaml\n")[2].partition("Options\n")[0]
    assert '# wood: "oak"' in snippet
    assert "polish" not in snippet
    settings = yaml.safe_load(snippet.replace("width:   #", "width: 3  #"))
    resolved = layers.resolve(settings, environment={})
    assert resolved["storage.backend"] == "shelf"
    assert resolved["storage.path"] == "data/example.shelf"
    assert resolved.section("storage.options") == {"width": 3}


VARIANTS = """
capabilities = StorageCapabilities(persistent=True, readers=("cat",), checksums=True)
variants = {"oak": {"wood": "oak"}, "same": {"wood": "ash"}}

@classmethod
def capabilities_for(cls, options, path=None, /):
    if options.get("wood") == "oak":
        return StorageCapabilities(persistent=True, checksums=True, live_readers=("less",))
    return cls.capabilities
"""
WOODEN = """
def __init__(self, path: str, wood: Literal["oak", "ash"] = "ash") -> None: ...
"""
WOOD = '"""Put frames on a shelf, for cat and less.\n\nParameters\n----------\nwood : {"oak", "ash"}\n    What it is of.\n"""'


def test_a_variant_is_shown_where_its_capabilities_differ(site, build):
    site.backend(doc=WOOD, init=WOODEN, extra=VARIANTS)
    built = build()
    rows = {row[0]: row[1] for row in built.rows("usage/backends/shelf") if len(row) == 3}
    assert (rows["readers"], rows["live_readers"]) == (
        "cat none, with wood: oak",
        "none less, with wood: oak",
    )
    assert rows["checksums"] == "yes"
    matrix = {row[0].split()[0]: row[1] for row in built.rows("usage/backends/matrix") if len(row) == 2}
    assert matrix["readers"] == "cat none, with wood: oak"
    assert matrix["live_readers"].endswith("less, with wood: oak")


def test_a_variant_with_an_unknown_option_is_a_fault_on_the_page(site, build):
    site.backend(doc=WOOD, init=WOODEN, extra=VARIANTS.replace('"same": {"wood"', '"same": {"wod"'))
    text = build().text("usage/backends/shelf")
    assert "variant 'same' of Shelf has no option 'wod' (did you mean 'wood'?)" in text
    assert "with wood: oak" not in text


def test_the_guide_that_a_plugin_brings_along_is_on_its_page(site, build):
    site.backend(guide="Shelves are wide.\n\nCare\n----\n\nDust them.\n")
    text = build().text("usage/backends/shelf")
    assert text.index("Guide") < text.index("Care") < text.index("Dust them.") < text.index("API reference")


def test_the_index_lists_the_backends(site, build):
    site.backend()
    site.backend("other-dist", name="other", doc='"""Keep frames elsewhere."""')
    rows = {row[0]: row[1:] for row in build().rows("usage/backends/index") if row}
    assert rows["shelf"] == ["Put frames on a shelf.", "shelf-dist 2.5", "valid"]
    assert rows["other"][0] == "Keep frames elsewhere."


# -- what is not in order ------------------------------------------------------------------------


def test_an_undocumented_option_gives_an_error_page_and_not_a_failed_build(site, build):
    site.backend(init="def __init__(self, width: int = 1): ...")
    site.backend("good-dist", name="good")
    built = build()
    text = built.text("usage/backends/shelf")
    assert "EX202" in text and FAULTS["EX202"] in text and "option 'width' is not documented" in text
    assert "invalid" in text
    assert "Put frames on a shelf." in built.text("usage/backends/good")


def test_a_plugin_that_raises_at_import_gives_an_error_page(site, build):
    site.install("broken-dist", "raise SystemExit('no *licence* `found`')", name="broken")
    built = build()
    text = built.text("usage/backends/broken")
    assert "SystemExit: no *licence* `found`" in text
    assert "broken" in built.rows("usage/backends/index")[1]


def test_two_distributions_with_one_name_give_a_page_that_names_both(site, build):
    site.backend("first-dist")
    site.backend("second-dist")
    text = build().text("usage/backends/shelf")
    assert "first-dist:shelf" in text and "second-dist:shelf" in text


@pytest.mark.parametrize("name", ["index", "matrix", "Bad/../Name", "*star*"])
def test_any_name_gives_a_page_inside_the_folder(site, build, name):
    site.backend(name=name)
    built = build()
    folder = built.source / "usage" / "backends"
    assert {page.parent for page in built.source.rglob("*.rst")} == {
        built.source,
        folder,
        folder.parent / "sources",
    }
    assert len({page.stem for page in folder.glob("*.rst")} - {"index", "matrix"}) == 1


def test_a_strict_plugin_with_a_fault_ends_the_build_and_says_why(site, build):
    site.backend(init="def __init__(self, width: int = 1): ...")
    with pytest.raises(ExtensionError, match=r"shelf-dist, 'shelf': EX202 option 'width'"):
        build(exengine_strict=["Shelf_Dist"])


def test_a_strict_plugin_that_cannot_be_imported_ends_the_build(site, build):
    site.install("broken-dist", "import no_such_library_anywhere", name="broken")
    with pytest.raises(ExtensionError, match="no_such_library_anywhere"):
        build(exengine_strict=["broken-dist"])


def test_a_strict_plugin_without_a_fault_builds(site, build):
    site.backend(doc=DOCUMENTED, init=INIT, extra=CAPABILITIES, guide="Its name ends in ``.shelf``.\n")
    site.backend("other-dist", name="other", init="def __init__(self, width: int = 1): ...")
    assert "valid" in build(exengine_strict=["shelf-dist"]).text("usage/backends/shelf")


HOSTILE = {
    "unclosed markup": "Put *frames on a `shelf, |x| and name_ [1]_.",
    "unknown role": "See :nonsense:`x` and :ref:`nowhere` and :doc:`/nothing`.",
    "heading in the text": "Frames.\n\nHeading\n=======\n\nText\n\nOther\n~~~~~",
    "directives": "Frames.\n\n.. include:: /etc/hostname\n\n.. nonsense:: x\n\n.. raw:: html\n\n   <b>x</b>",
    "bad indentation": "Frames.\n\n  - one\n two\n   * three",
    "code that is none": "Frames.\n\n.. code-block:: nolanguage\n\n   x\n\n.. code-block:: json\n\n   {'",
    "labels": "Frames.\n\n.. _exengine-backends:\n\nText.",
    "control characters": "Frames \\x00 \\x1b[31m \\u2028 end.",
    "table": "Frames.\n\n+---+\n| a\n+--",
    "page-like": ":orphan:\n\n.. toctree::\n\n   nowhere",
}


def test_no_docstring_of_a_foreign_plugin_breaks_the_build(site, build):
    for number, text in enumerate(HOSTILE.values()):
        parameters = "\n\nParameters\n----------\nwidth : int\n    " + text.splitlines()[0]
        examples = f"\n\nExamples\n--------\n{text}\n\nNotes\n-----\n{text}\n"
        site.backend(
            f"hostile-{number}",
            name=f"shelf-{number}",
            doc=f'"""Keep them. {text.splitlines()[0]}\n\n{text}{parameters}{examples}"""',
            init="def __init__(self, width: int = 1): ...",
            extra=f'def dust(self):\n    """Dust it.\n\n{_indented(text)}\n    """',
            guide=text,
        )
    built = build(nitpicky=True)
    for number, kind in enumerate(HOSTILE):
        page = f"usage/backends/shelf-{number}"
        assert "System Message" not in (built.output / f"{page}.html").read_text(encoding="utf-8"), kind
        assert "EXENGINE_STORAGE__OPTIONS__WIDTH" in built.text(page), kind


def _indented(text):
    return "\n".join(f"    {line}" for line in text.splitlines())


def test_no_default_of_a_foreign_plugin_breaks_the_build(site, build):
    site.install(
        "evil-dist",
        '''
        class Evil:
            def __repr__(self): raise RuntimeError("no")
        class Shelf(DataStorage):
            """Put frames on a shelf.

            Parameters
            ----------
            width : Any
                Anything.
            """
            def __init__(self, width: Any = Evil()) -> None: ...
            def put(self, a, b, c): ...
            def get_data(self, a): ...
            def get_metadata(self, a): ...
            def __contains__(self, a): ...
            def finish(self): ...
            def close(self): ...
        ''',
    )
    assert "Anything." in build().text("usage/backends/shelf")


# -- a documentation project of somebody else ----------------------------------------------------


def test_two_lines_in_conf_py_are_enough_for_a_third_party(site, build, tmp_path):
    package = site.backend()
    other = site.backend("other-dist", name="other")
    docs = tmp_path / "docs"
    own_reference = f".. autoclass:: {package}.Shelf"
    built = build(
        index=f"Mine\n====\n\n{own_reference}\n\n.. toctree::\n\n   usage/backends/shelf\n",
        exengine_plugins=["shelf-dist"],
    )
    assert "Put frames on a shelf." in built.text("usage/backends/shelf")
    assert not (docs / "usage/backends/other.rst").exists()
    assert not (docs / "usage/sources").exists()
    assert other not in sys.modules


def test_faults_in_a_project_s_own_docstring_are_warnings_there(site, build):
    site.backend(doc='"""Put *frames on a shelf."""')
    assert "emphasis start-string" in build(exengine_plugins=["shelf-dist"], strict=False).warnings


# -- files ---------------------------------------------------------------------------------------


def test_a_page_is_rewritten_only_when_it_changed(site, build):
    site.backend()
    page = build().source / "usage/backends/shelf.rst"
    before = page.stat().st_mtime_ns
    build()
    assert page.stat().st_mtime_ns == before
    build(exengine_local_plugins={"shelf-dist": "./elsewhere"})
    assert page.stat().st_mtime_ns != before


def test_the_page_of_a_plugin_that_is_gone_goes_too(site, build):
    site.backend()
    page = build().source / "usage/backends/shelf.rst"
    (site.folder / "shelf_dist-2.5.dist-info" / "entry_points.txt").unlink()
    build()
    assert not page.exists()


def test_a_page_that_somebody_wrote_is_not_overwritten(site, build, tmp_path):
    site.backend()
    page = tmp_path / "docs" / "usage" / "backends" / "shelf.rst"
    page.parent.mkdir(parents=True)
    page.write_text("My own\n======\n")
    assert "was left unchanged" in build(strict=False).warnings
    assert page.read_text() == "My own\n======\n"


def test_words_before_a_colon_in_the_docstring_of_an_attribute_are_not_its_type(site, build):
    extra = '''planks: tuple[str, ...] = ()
"""Kinds of wood, the best first; an empty tuple means any: oak, ash or pine."""
'''
    site.backend(extra=extra)
    text = build().text("usage/backends/shelf")
    assert "Kinds of wood, the best first; an empty tuple means any: oak, ash or pine." in text
    assert "Type" not in text.partition("planks")[2].partition("oak, ash or pine")[0]
