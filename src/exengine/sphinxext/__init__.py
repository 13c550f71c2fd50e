"""Sphinx extension: a page for each installed storage backend and frame source.

In ``conf.py``::

    extensions = ["exengine.sphinxext"]
    exengine_plugins = ["my-backend"]     # only these distributions; without it, all that are installed

Before Sphinx reads its documents, pages appear below the source folder: ``usage/backends/<name>.rst``,
``usage/sources/<name>.rst``, an ``index.rst`` in each of the two folders, and
``usage/backends/matrix.rst``, which compares the backends. They are made from the signature and the
docstring that the registry validates, from ``docs/<name>.rst`` in the plugin's package, from the output
of the example in the docstring, and from the results of the conformance kit. Add the index pages to a
toctree, and the folders to ``.gitignore``.

===========================  ========================================================================
``exengine_plugins``         Names of distributions that get pages. Default: all.
``exengine_strict``          Names of distributions; any fault of one of them ends the build.
``exengine_local_plugins``   Distribution -> folder that it is installed from, in a clone.
``exengine_path``            Folders with installed packages. Default: ``sys.path``.
``exengine_results``         Folder beside ``conf.py`` with result files of the conformance kit, one for
                             each backend, ``<backend>.json``. Default: ``_results``.
===========================  ========================================================================

The docstrings of a distribution that the project does not name in one of these are untrusted: if they do
not parse they are shown as plain text, and they never fail a build.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_STATIC = Path(__file__).parent / "static"


def setup(app: "Sphinx") -> dict[str, Any]:
    """Register the extension; Sphinx calls it."""
    from exengine.sphinxext.build import PluginPages, add_anchors
    from exengine.sphinxext.reference import SettingsDirective, check_codes, parse_code

    app.setup_extension("sphinx.ext.autodoc")
    if "numpydoc" not in app.config.extensions:
        app.setup_extension("sphinx.ext.napoleon")
    app.add_config_value("exengine_plugins", None, "env", (list, tuple, type(None)))
    app.add_config_value("exengine_strict", [], "env", (list, tuple))
    app.add_config_value("exengine_local_plugins", {}, "env", (dict,))
    app.add_config_value("exengine_path", None, "env", (list, tuple, type(None)))
    app.add_config_value("exengine_results", "_results", "env", (str,))
    app.add_directive("exengine-settings", SettingsDirective)
    app.add_object_type("exengine-code", "exengine-code", "pair: %s; code", parse_code)
    pages = PluginPages()
    app.connect("builder-inited", _check_suffix)
    app.connect("builder-inited", pages.write)
    app.connect("builder-inited", _add_static)
    app.connect("autodoc-process-docstring", pages.process_docstring, priority=900)
    app.connect("missing-reference", pages.resolve_quietly)
    app.connect("warn-missing-reference", pages.keep_quiet)
    app.connect("env-check-consistency", check_codes)
    app.connect("doctree-read", add_anchors, priority=400)  # before the handlers that link to them
    app.connect("html-page-context", _add_script)
    app.add_css_file("exengine.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _check_suffix(app: "Sphinx") -> None:
    """Refuse a project that would not read the pages that are written."""
    if ".rst" not in app.config.source_suffix:
        from sphinx.errors import ConfigError

        raise ConfigError(
            f"source_suffix in conf.py is {list(app.config.source_suffix)}, and the pages of the plugins are "
            "written as .rst: add '.rst': 'restructuredtext'"
        )


def _add_static(app: "Sphinx") -> None:
    app.config.html_static_path.append(str(_STATIC))


def _add_script(app: "Sphinx", page: str, template: str, context: dict[str, Any], document: object) -> None:
    """Add the script that sorts and filters tables to the one page that needs it."""
    if page == "usage/backends/matrix":
        app.add_js_file("exengine-matrix.js", loading_method="defer")
