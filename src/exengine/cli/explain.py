"""``exengine explain [CODE]``: explains a code, with a wrong and a right example, or lists all codes."""

import argparse
import textwrap
from dataclasses import asdict

from exengine.checks.explanations import explain, explanations
from exengine.cli.output import print_json, print_table


def run(options: argparse.Namespace) -> int:
    """Print the explanation of a code, or the list of codes."""
    if options.code is None:
        found = explanations().values()
        if options.json:
            print_json([asdict(one) for one in found])
        else:
            print_table(("CODE", "FAULT"), ((one.code, one.meaning) for one in found))
        return 0
    one = explain(options.code)
    if options.json:
        print_json(asdict(one))
    else:
        print("\n".join(map(_wrapped, one.to_text().splitlines())))
    return 0


def _wrapped(line: str) -> str:
    """Return a line of prose wrapped for a terminal; lines of examples are not changed."""
    return line if line.startswith("    ") else textwrap.fill(line, 96, subsequent_indent="     ")
