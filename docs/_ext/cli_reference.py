"""The directive ``cli-reference``, which describes each verb of the ``exengine`` command from its parser."""

import argparse
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from exengine.cli.parser import make_parser
from exengine.sphinxext import rst


class CliReference(SphinxDirective):
    """Shows a section for each verb, with its purpose, usage and arguments."""

    def run(self) -> list[nodes.Node]:
        parser = make_parser()
        common = {name for name, _ in _arguments(parser)} | {"--json", "--debug"}
        parts = []
        for verb in _verbs(parser):
            parts.append(rst.heading(f"``{verb.prog}``", "-"))
            parts.append(rst.escape(verb.description or "") + "\n")
            parts.append(rst.literal_block(verb.format_usage().removeprefix("usage: "), "text"))
            named = [(name, text) for name, text in _arguments(verb) if text and name not in common]
            rows = [(rst.literal(name), rst.escape(text)) for name, text in named]
            if rows:
                parts.append(rst.table(("Argument", "Meaning"), rows, "exengine-arguments", "30 70"))
        return self.parse_text_to_nodes("\n".join(parts), allow_section_headings=True)


def _verbs(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of individual verbs, but not those of groups of verbs."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for verb in group.choices.values():
            yield from _verbs(verb)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        shown = ", ".join(action.option_strings)
        if action.nargs != 0:
            shown = f"{shown} {action.metavar or action.dest.upper()}".strip()
        yield shown, action.help or ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive with Sphinx, which calls this function."""
    app.add_directive("cli-reference", CliReference)
    return {"version": "1", "parallel_read_safe": True}
