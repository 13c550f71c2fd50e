"""Adds the anchors that source pages link back to, for names that are documented in a submodule of a package.

``sphinx.ext.viewcode`` remembers one documented module for each source module. It links ``snapshot`` back as
``exengine.snapshot``, since ``DataCoordinates``, from the same source module, is documented as
``exengine.DataCoordinates``. The anchor of ``snapshot`` is ``exengine.base_classes.snapshot``.
"""

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Add an anchor without the submodules to each name that is documented in a submodule."""
    for signature in doctree.findall(addnodes.desc_signature):
        package, _, below = (signature.get("module") or "").partition(".")
        anchor = f"{package}.{signature.get('fullname')}"
        if below and signature["ids"] and anchor not in doctree.ids:
            signature["ids"].append(anchor)
            doctree.ids[anchor] = signature


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx, which calls this function."""
    app.connect("doctree-read", add_anchors)
    return {"version": "1", "parallel_read_safe": True}
