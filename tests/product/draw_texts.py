"""Prints docstrings, comments and messages of the source drawn at random, for a reader to judge their English.

``python tests/product/draw_texts.py SEED [COUNT]`` draws COUNT texts, by default 60. Each docstring is one
text, and so is each block of comments, each string of four words or more with its placeholders as the source
writes them, and each paragraph of the scaffold's templates that are not Python.
"""

import ast
import inspect
import io
import random
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCES = ("src/**/*.py", "src/**/*.tmpl", "plugins/*/src/**/*.py")
WORD = re.compile(r"[^\W\d_]{2,}|\b[aAI]\b")
LETTER = "\u00d8"
"""Replaces ``$`` in templates of Python files, so that their placeholders parse as names."""
PLACEHOLDER = re.compile(r"\{[^{}]*\}")
PRAGMA = re.compile(r"#+ *(?:noqa|type:|fmt:|pragma|!|--)")


class Text(NamedTuple):
    """One text of the source, and where it is."""

    place: str
    line: int
    kind: str
    text: str


def words(text: str) -> int:
    """Return the number of words outside placeholders."""
    return len(WORD.findall(PLACEHOLDER.sub("", text)))


def joined(node: ast.Constant | ast.JoinedStr) -> str:
    """Return a string as the source writes it, with its placeholders in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(
        part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
        for part in node.values
    )


def strings(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of each docstring, and of each other string of four words or more."""
    annotations = {id(getattr(tree, name, None)) for name in ("annotation", "returns")}
    for node in ast.iter_child_nodes(tree):
        if id(node) in annotations:
            continue
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, "docstring", inspect.cleandoc(text)
            case ast.Constant(value=str()) | ast.JoinedStr():
                text = joined(node)
                if " " in text and words(text) >= 4:
                    yield node.lineno, "message", text
            case _:
                yield from strings(node)


def comments(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of each block of comments; a comment after code is a block of its own."""
    block: list[str] = []
    first = last = column = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or PRAGMA.match(token.string):
            continue
        line, at = token.start
        alone = not token.line[:at].strip()
        if block and not (alone and (line, at) == (last + 1, column)):
            yield first, "comment", "\n".join(block)
            block = []
        if not block:
            first = line
        block.append(token.string)
        last, column = line, at if alone else -1
    if block:
        yield first, "comment", "\n".join(block)


def paragraphs(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of each paragraph of four words or more."""
    for found in re.finditer(r"\S.*(?:\n.*\S.*)*", source):
        if words(found.group()) >= 4:
            yield source.count("\n", 0, found.start()) + 1, "template", found.group()


def texts(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of each text of a file."""
    source = path.read_text(encoding="utf-8")
    if path.name.endswith((".py", ".py.tmpl")):
        source = source.replace("$", LETTER)
        for line, kind, text in (*strings(ast.parse(source)), *comments(source)):
            yield line, kind, text.replace(LETTER, "$")
    elif not path.name.startswith("LICENSE"):
        yield from paragraphs(source)


def collected(root: Path) -> list[Text]:
    """Return all texts below a checkout, in the order of their places."""
    paths = sorted(path for pattern in SOURCES for path in root.glob(pattern))
    return [Text(str(path.relative_to(root)), *text) for path in paths for text in sorted(texts(path))]


if __name__ == "__main__":
    seed, count = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 60
    pool = collected(ROOT)
    drawn = random.Random(seed).sample(pool, min(count, len(pool)))
    for number, text in enumerate(drawn, 1):
        print(f"{number:3}  {text.place}:{text.line}  {text.kind}\n{text.text}\n")
    print(f"{len(drawn)} of {len(pool)} texts, seed {seed}")
