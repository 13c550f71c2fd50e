"""Sphinx extension that adds a page for each installed storage backend and frame source.

In ``conf.py``::

    extensions = ["exengine.sphinxext"]
    exengine_plugins = ["exengine-my-storage"]  # only these distributions; the default is all

Before Sphinx reads the documents, the extension writes pages below the source folder:
``usage/backends/<name>.rst``, ``usage/sources/<name>.rst``, an ``index.rst`` in each of the two folders, and
``usage/backends/matrix.rst``, which compares all backends and helps to choose one. The pages are made from
the signature and docstring that the registry validates, ``docs/<name>.rst`` in the plugin's package, the
output of the docstring's example, and the results of the conformance kit and of fault campaigns. Add the
index pages to a toctree, and add the two folders to ``.gitignore``.

===========================  ========================================================================
``exengine_plugins``         Names of distributions that get pages. Default: all.
``exengine_strict``          Names of distributions; any fault in one of them stops the build.
``exengine_local_plugins``   Maps a distribution to the folder in a clone to install it from.
``exengine_path``            Folders with installed packages. Default: ``sys.path``.
``exengine_results``         Folder, relative to the source folder, with the conformance kit's results files,
                             ``<name>.json`` for each plugin, and with those of fault campaigns,
                             ``faults/*.json``. Default: ``_results``. For a plugin that has no file there,
                             the folder ``docs/results`` in its package is used.
===========================  ========================================================================

Docstrings are trusted only if ``exengine_plugins``, ``exengine_strict`` or ``exengine_local_plugins`` lists
their distribution. If an untrusted docstring cannot be parsed, it is shown as plain text. Untrusted
docstrings never make a build fail.
"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

    from exengine.sphinxext.build import PluginPages

_STATIC = Path(__file__).parent / "static"


def setup(app: "Sphinx") -> dict[str, Any]:
    """Register the extension. Sphinx calls this function."""
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
    app.connect("autodoc-process-docstring", pages.keep_colons, priority=400)  # must run before napoleon
    app.connect("autodoc-process-docstring", pages.process_docstring, priority=900)
    app.connect("missing-reference", pages.resolve_quietly)
    app.connect("warn-missing-reference", pages.keep_quiet)
    app.connect("env-check-consistency", check_codes)
    app.connect("doctree-read", add_anchors, priority=400)  # run before anchors are linked
    app.connect("html-page-context", partial(_add_scripts, pages))
    app.add_css_file("exengine.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _check_suffix(app: "Sphinx") -> None:
    """Raise an error if the project's settings prevent Sphinx from reading the generated pages."""
    if ".rst" not in app.config.source_suffix:
        from sphinx.errors import ConfigError

        raise ConfigError(
            f"source_suffix in conf.py is {list(app.config.source_suffix)}, but the pages of plugins are "
            ".rst files; add '.rst': 'restructuredtext'"
        )


def _add_static(app: "Sphinx") -> None:
    app.config.html_static_path.append(str(_STATIC))


def _add_scripts(
    pages: "PluginPages", app: "Sphinx", page: str, template: str, context: dict[str, Any], document: object
) -> None:
    """Add the scripts and the data for choosing a backend, but only to the page that needs them."""
    if page == "usage/backends/matrix":
        facts = json.dumps(pages.choices).replace("<", "\\u003c")
        app.add_js_file(None, body=facts, type="application/json", id="exengine-choices")
        app.add_js_file("exengine-choose.js", loading_method="defer")
        app.add_js_file("exengine-matrix.js", loading_method="defer")
