"""Adds the anchors that source pages link back to, for names in ``base_classes`` and ``testing``.

``sphinx.ext.viewcode`` remembers one documented module for each source module. It links ``snapshot`` back as
``exengine.snapshot``, since ``DataCoordinates``, from the same source module, is documented as
``exengine.DataCoordinates``. The anchor of ``snapshot`` is ``exengine.base_classes.snapshot``.
"""

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

DOORS = ("exengine.base_classes.", "exengine.testing.")


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Add an anchor without the door to each name that is documented behind a door."""
    for signature in doctree.findall(addnodes.desc_signature):
        for name in list(signature["ids"]):
            door = next((door for door in DOORS if name.startswith(door)), "")
            anchor = f"exengine.{name.removeprefix(door)}"
            if door and anchor not in doctree.ids:
                signature["ids"].append(anchor)
                doctree.ids[anchor] = signature


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx, which calls this function."""
    app.connect("doctree-read", add_anchors)
    return {"version": "1", "parallel_read_safe": True}
