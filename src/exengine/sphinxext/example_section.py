"""Renders the example on a plugin's page, including its output."""

import doctest
from collections.abc import Iterator

from exengine.checks.examples import ExampleRun, Step
from exengine.checks.report import PluginReport
from exengine.sphinxext.rst import clean, escape, indent, literal_block, safe_block

FAILS = "EX212"
"""The fault code for an example that fails."""


def example_section(report: PluginReport, text: str, *, trusted: bool) -> str:
    """Return an example as markup.

    Parameters
    ----------
    report : PluginReport
        The report on the plugin, including the result of running the example.
    text : str
        The ``Examples`` section of the docstring.
    trusted : bool
        Whether the project owns the text.
    """
    run, record = report.example, report.record
    body = [safe_block(text, trusted=trusted)] if run is None else _blocks(text, run, trusted)
    parts = [_failure(report), *body]
    if run is not None and not run.failed:
        release = f"{escape(record.distribution)} {escape(record.version)}".strip()
        parts.append(
            f"The example was run with {release} when this page was created, and printed the output shown.\n"
        )
    return "\n".join(part for part in parts if part.strip())


def _failure(report: PluginReport) -> str:
    message = next((finding.message for finding in report.findings if finding.code == FAILS), "")
    if not message:
        return ""
    return f".. error::\n\n   :exengine-code:`{FAILS}` {escape(message)}\n"


def _blocks(text: str, run: ExampleRun, trusted: bool) -> Iterator[str]:
    try:
        pieces = doctest.DocTestParser().parse(clean(text))
    except ValueError:  # the prompts are not indented consistently
        yield literal_block(text)
        return
    steps = iter(run.steps)
    code: list[str] = []
    for piece in pieces:
        if isinstance(piece, doctest.Example):
            code.append(_statement(piece, next(steps, Step())))
        elif piece.strip():
            yield _code_block(code)
            code = []
            yield safe_block(piece, trusted=trusted)
    yield _code_block(code)


def _statement(example: doctest.Example, step: Step) -> str:
    first, *rest = example.source.rstrip("\n").split("\n")
    lines = [f">>> {first}", *(f"... {line}".rstrip() for line in rest)]
    if step.ran:
        lines += clean(step.output).rstrip("\n").split("\n") if step.output.strip() else []
        if step.failed:
            wanted = example.want.rstrip("\n") or "(nothing)"
            lines += ["# The docstring says:", *(f"#   {line}" for line in wanted.split("\n"))]
    return "\n".join(lines)


def _code_block(statements: list[str]) -> str:
    if not statements:
        return ""
    # The option "force" makes the highlighter accept any output.
    return f".. code-block:: pycon\n   :force:\n\n{indent(chr(10).join(statements))}\n"
