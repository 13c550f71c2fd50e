"""Functions that create reStructuredText from trusted or untrusted text.

This module creates small pieces of markup, such as headings, literals and tables. It also checks whether a
text parses without errors and has no effect outside its page; otherwise, the text is shown literally instead
of as markup. Nothing here is specific to plugins.
"""

import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive
from docutils.utils import Reporter
from sphinx.util.docutils import CustomReSTDispatcher
from sphinx.util.rst import escape as _escape

from exengine.kernel.errors import describe

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")


def clean(text: object) -> str:
    """Return text as valid UTF-8 with uniform line endings, without control characters or tabs."""
    plain = str(text).encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", plain).expandtabs(4)


def line(text: object) -> str:
    """Return text as a single line."""
    return " ".join(clean(text).split())


def escape(text: object) -> str:
    """Return text as a single line with all markup escaped."""
    return re.sub(r"^(\(?\w{1,8})\.", r"\1\\.", str(_escape(line(text))))


def literal(text: object) -> str:
    """Return text as a single-line inline literal, or as escaped text if a literal cannot represent it."""
    plain = line(text)
    if not plain or "``" in plain or plain[0] == "`" or plain[-1] in "`\\":
        return escape(plain)
    return f"``{plain}``"


def indent(text: str, columns: int = 3) -> str:
    """Return text with all lines indented except empty lines."""
    return textwrap.indent(text, " " * columns)


def heading(text: str, underline: str) -> str:
    """Return a heading; its text may contain markup."""
    return f"{text}\n{underline * max(4, 2 * len(text))}\n"


def literal_block(text: str, language: str = "text") -> str:
    """Return text as a literal block, in which markup is not interpreted."""
    body = indent(textwrap.dedent(clean(text)).strip("\n"))
    return f".. code-block:: {language}\n\n{body}\n" if body.strip() else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str, widths: str = "auto") -> str:
    """Return a table; its cells may contain markup.

    Parameters
    ----------
    header : sequence of str
        Cells of the header row.
    rows : iterable of sequence of str
        Cells of the other rows, each with as many cells as the header.
    kind : str
        CSS class of the table, in addition to ``exengine-table``.
    widths : str
        Column widths, as in the ``list-table`` directive.
    """
    out = [
        ".. container:: exengine-scroll",
        "",
        "   .. list-table::",
        f"      :class: exengine-table {kind}",
        "      :header-rows: 1",
        f"      :widths: {widths}",
        "",
    ]
    for row in [header, *rows]:
        for number, cell in enumerate(row):
            mark = "* - " if number == 0 else "  - "
            first, *rest = cell.split("\n")
            out.append((f"      {mark}{first}").rstrip())
            out += [f"          {text}".rstrip() for text in rest]
    return "\n".join(out) + "\n"


# -- untrusted text -------------------------------------------------------------------------------


def safe_block(text: str, *, trusted: bool, sections: bool = False) -> str:
    """Return text as markup if it is valid and safe, otherwise as a literal block.

    Parameters
    ----------
    text : str
        Text from a plugin.
    trusted : bool
        Whether the project owns the text. Trusted text is always returned as markup, so that Sphinx reports
        its faults.
    sections : bool
        Whether headings are allowed in the text.
    """
    text = clean(text).strip("\n")
    if trusted or not problems(text, sections=sections):
        return text + "\n"
    return literal_block(text)


def safe_line(text: str, *, trusted: bool) -> str:
    """Return text as a single line: as markup if it is valid and safe, otherwise escaped."""
    plain = line(text)
    if trusted or (not problems(plain, sections=False) and _is_paragraph(plain)):
        return plain
    return escape(plain)


def _is_paragraph(text: str) -> bool:
    return all(isinstance(child, nodes.paragraph) for child in _parse(text)[0].children)


def problems(text: str, *, sections: bool) -> str:
    """Return a description of the faults in markup, or an empty string if there are none.

    Markup with an effect outside the text is also a fault; this includes labels, footnotes, images,
    included files and references to documents.
    """
    prefix = f"{heading('Page', '#')}\n{heading('Guide', '=')}\n" if sections else ""
    try:
        document, warnings = _parse(prefix + text)
    except Exception as error:  # malicious input can make the parser itself fail
        return describe(error)
    if warnings:
        return warnings
    if sections and len(document.children) != 1:
        return "the headings are not nested below the headings of the page"
    for node in document.findall(nodes.Element):
        if isinstance(node, _REACHING) or (isinstance(node, nodes.section) and not sections):
            return f"{type(node).__name__} is not allowed in the text of a plugin"
        if isinstance(node, nodes.target) and not node.get("refuri"):
            return "labels are not allowed in the text of a plugin"
    return ""


_REACHING = (
    nodes.footnote,
    nodes.citation,
    nodes.footnote_reference,
    nodes.citation_reference,
    nodes.substitution_definition,
    nodes.raw,
    nodes.image,
    nodes.system_message,
    nodes.problematic,
)

_PLAIN_DIRECTIVES = frozenset((
    *("note", "warning", "tip", "hint", "important", "caution", "attention", "danger", "error"),
    *("seealso", "admonition", "rubric", "versionadded", "versionchanged", "versionremoved", "deprecated"),
))  # fmt: skip
_CODE_DIRECTIVES = frozenset(("code-block", "code", "sourcecode"))
_OPAQUE_DIRECTIVES = frozenset(("math", "attribute", "method", "py:attribute", "py:method"))
_ROLES = frozenset((
    *("class", "func", "meth", "attr", "mod", "exc", "obj", "data", "const"),
    *("code", "math", "sup", "sub", "superscript", "subscript", "emphasis", "strong", "literal"),
    *("title-reference", "title", "kbd", "samp", "file"),
))  # fmt: skip


class _AnyOption(dict):  # type: ignore[type-arg]
    """An option specification that accepts every option."""

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: str) -> Any:
        return str


class _Checked(Directive):
    """Stands in for a directive, so that only its content is parsed."""

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = _AnyOption()

    def run(self) -> list[nodes.Node]:
        node = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, node)
        return [node]


class _Opaque(_Checked):
    """Stands in for a directive without parsing its content."""

    def run(self) -> list[nodes.Node]:
        return [nodes.container()]


class _Code(_Checked):
    """Stands in for a code block, and reports a language or code that the highlighter does not accept."""

    def run(self) -> list[nodes.Node]:
        import pygments.lexers
        import pygments.util

        try:
            lexer = pygments.lexers.get_lexer_by_name(self.arguments[0] if self.arguments else "text")
            lexer.add_filter("raiseonerror")
            list(lexer.get_tokens("\n".join(self.content)))
        except (pygments.util.ClassNotFound, pygments.filters.ErrorToken) as error:
            raise self.error(f"the code cannot be highlighted: {error}") from None
        return [nodes.container()]


def _inline(name: str, rawtext: str, text: str, *_: object, **__: object) -> Any:
    return [nodes.inline(rawtext, text)], []


class _Dispatcher(CustomReSTDispatcher):
    """Recognizes only the directives and roles that a plugin's text may use."""

    def directive(
        self, directive_name: str, language_module: ModuleType, document: nodes.document
    ) -> tuple[type[Directive] | None, list[nodes.system_message]]:
        if directive_name in _PLAIN_DIRECTIVES:
            return _Checked, []
        if directive_name in _CODE_DIRECTIVES:
            return _Code, []
        return (_Opaque if directive_name in _OPAQUE_DIRECTIVES else None), []

    def role(self, role_name: str, language_module: ModuleType, lineno: int, reporter: Reporter) -> Any:
        known = role_name.removeprefix("py:") in _ROLES or not role_name
        return (_inline if known else None), []


def _parse(text: str) -> tuple[nodes.document, str]:
    warnings = io.StringIO()
    settings = {
        "warning_stream": warnings,
        "report_level": Reporter.WARNING_LEVEL,
        "halt_level": Reporter.SEVERE_LEVEL + 1,
        "file_insertion_enabled": False,
        "raw_enabled": False,
        "doctitle_xform": False,
        "line_length_limit": 1_000_000,
        "_disable_config": True,
    }
    with _Dispatcher():
        document = publish_doctree(text, settings_overrides=settings)
    return document, warnings.getvalue()
