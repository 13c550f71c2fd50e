"""Sphinx configuration. ``exengine.sphinxext`` writes the pages below ``usage/``."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - a clone can be built by any Python
    sys.exit(
        "the documentation needs Python 3.11 or newer, but this is Python {}.{}".format(*sys.version_info[:2])
    )

import tomllib
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

# -- project -------------------------------------------------------------------------------------

project = "ExEngine"
author = "The ExEngine developers"
copyright = author
release = version_of("exengine")
version = ".".join(release.split(".")[:2])
_project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
repository = _project["urls"]["Repository"]  # the only place that states the address
rst_epilog = f".. |repository| replace:: {repository}"

# -- reading -------------------------------------------------------------------------------------

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",  # source links inside these pages
    "sphinx_copybutton",
    "sphinx_design",
    "exengine.sphinxext",
    "campaigns",
    "changelog",
    "cli_reference",
    "door_anchors",
    "code_pages",
    "figures",
    "round_trips",
    "quick_rebuilds",
]
exclude_patterns = ["_benchmarks", "_build", "_ext", "_plugins", "how-to/my-backend"]
nitpicky = True
nitpick_ignore_regex = [
    (r"py:(class|data)", r"(?!exengine\.).*"),  # types in docstrings are written for people
    (r"py:class", r"exengine\.kernel\.registry\.(class_checks|codes)\.Finding"),
    (r"py:meth", r"(write|read)_\w+"),  # hooks for the kernel are not on the page of a plugin
    (r"py:func", r"exengine\.frame_sources\..*"),  # nor are functions outside its class
]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings state the types, for people
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# -- plugins -------------------------------------------------------------------------------------

exengine_local_plugins = {
    tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]: f"./plugins/{file.parent.name}"
    for file in sorted(HERE.parent.glob("plugins/*/pyproject.toml"))
}
# The plugins of this repository: any fault in one of them ends the build.
exengine_strict = ["exengine", *exengine_local_plugins]

# -- the manual page of the command -----------------------------------------------------------------

man_pages = [("reference/cli", "exengine", "record and look after microscopy data", [author], 1)]

# -- HTML ----------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = f"ExEngine {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_search_scorer = str(HERE / "_static" / "scorer.js")
html_favicon = "_static/logo.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the system of the reader
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {
        "text": "ExEngine",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
        "alt_text": "ExEngine, start page",
    },
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "github-dark-high-contrast",
}
html_sidebars = {page: [] for page in ("index", "tutorials/first_acquisition", "changelog")}


def _leave_out_doctrees(app):
    """Leave Sphinx's own files out of an EPUB; they are below the output unless another folder is named."""
    output, own = Path(app.outdir), Path(app.doctreedir)
    if app.builder.name == "epub" and own.is_relative_to(output):
        found = [str(file.relative_to(output)) for file in own.rglob("*") if file.is_file()]
        app.config.epub_exclude_files = [*app.config.epub_exclude_files, *found]
    return []


def setup(app):
    """Connect to Sphinx, which calls this function."""
    app.connect("html-collect-pages", _leave_out_doctrees)
