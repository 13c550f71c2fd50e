"""Anchors for what a plugin's page describes without listing it in the project's index.

A class that the project may describe elsewhere, too, is described with ``:no-index:``, and Sphinx then
gives it no anchor. Links from source code back to the page need one.
"""

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Give an anchor to each Python name that is described on a plugin's page and has none.

    Parameters
    ----------
    app : Sphinx
        Reading a document.
    doctree : nodes.document
        Changed in place.
    """
    if not app.env.docname.startswith(("usage/backends/", "usage/sources/")):
        return
    for signature in doctree.findall(addnodes.desc_signature):
        name = f"{signature.get('module')}.{signature.get('fullname')}"
        if signature.get("module") and not signature["ids"] and name not in doctree.ids:
            signature["ids"].append(name)
            doctree.ids[name] = signature
