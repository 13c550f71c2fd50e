"""The directive ``changelog``, which shows CHANGELOG.md; it supports only the Markdown used in that file."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_HEADING = {"##": "=", "###": "-"}
_LINK = re.compile(r"\[([^\]]+)\]\((https?://[^)\s]+)\)")
_BOLD = re.compile(r"\*\*[^*]+\*\*")
_VERSION = re.compile(r"^\[([^\]]+)\]")


class Changelog(SphinxDirective):
    """Shows ``CHANGELOG.md`` from the root of the repository, without its title."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir).parent / "CHANGELOG.md"
        self.env.note_dependency(str(path))
        text = to_rst(path.read_text(encoding="utf-8"))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def to_rst(markdown: str) -> str:
    """Convert the headings, lists, code, bold text and links in Markdown to reStructuredText."""
    lines = []
    # Inline markup cannot be nested, so backquotes inside bold text are removed.
    for line in _BOLD.sub(lambda bold: bold[0].replace("`", ""), markdown).splitlines():
        mark, _, rest = line.partition(" ")
        if mark == "#":
            continue
        if mark in _HEADING:
            title = _VERSION.sub(r"\1", rest)
            lines += [title, _HEADING[mark] * len(title)]
        else:
            lines.append(_LINK.sub(r"`\1 <\2>`__", line.replace("`", "``")))
    return "\n".join(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive with Sphinx, which calls this function."""
    app.add_directive("changelog", Changelog)
    return {"version": "1", "parallel_read_safe": True}
