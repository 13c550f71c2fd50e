"""Counts sentences that read as if translated, in the docstrings, comments and messages of the source.

``python tests/product/english.py [FOLDER]`` prints a count per pattern and each place. ``FOLDER`` is a
checkout; by default this one. Only text is searched: docstrings, comments and string literals of Python
files, and the templates of the scaffold. Names in code do not count.
"""

import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = (
    "src/**/*.py",
    "plugins/*/src/**/*.py",
    "src/**/*.tmpl",
    "benchmarks/*.py",
    "docs/_ext/*.py",
    "toxfile.py",
)

PATTERNS = {
    "a clause with 'what' in the place of a noun": r"\b[Ww]hat (?:is|are|was|were|has|have|does|do|must|may|can|it|a|an|the|this|that|these|those|its|came|comes|stands|lies|makes|takes|gives|cannot|no|only|there|one|other|another|our|we|you|people|[a-z]+(?:s|ed)\b)",
    "people words for code": r"\b(?:[Ww]ho|[Ww]hoever|[Nn]obody|[Ss]omebody|[Ww]hose)\b",
    "'Of the ...' as a description": r"(?:^|\n)\s*(?:Of (?:the|a|an|its|each|all|this|that|what)\b|Whether of\b)",
    "'is no X'": r"\b(?:is|are|was|were|be) no (?!(?:longer|more|less|room|need|way|frames?)\b)[a-z]+",
    "'ours'": r"\b(?:ours|of ours|of yours|of theirs|of strangers)\b",
    "'as far as'": r"\b[Aa]s far as\b",
    "'meanwhile', 'by then'": r"\b(?:[Mm]eanwhile|[Bb]y then)\b",
    "'so many'": r"\b[Ss]o many\b",
    "'is told', 'has a say', 'says so'": r"\b(?:(?:is|are|was|were|be) told|tells? (?:of|whether|what|who|how)|ha(?:s|ve) (?:no|a) say|to be had|can be had|cannot be had|comes? again|came again|are alike|(?:stand|lie)s? (?:in|at|on|with) (?:its|their) place)\b",
}  # fmt: skip
KINDS = (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
COMPILED = {name: re.compile(pattern) for name, pattern in PATTERNS.items()}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring, comment and string literal of a file."""
    if path.suffix == ".tmpl":
        yield 1, path.read_text(encoding="utf-8")
        return
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in KINDS:
                yield token.start[0], token.string


def count(root: Path) -> tuple[Counter[str], list[str]]:
    """Return how often each pattern occurs below a checkout, and each place."""
    found: Counter[str] = Counter()
    places = []
    for pattern in SOURCES:
        for path in sorted(root.glob(pattern)):
            for line, text in texts(path):
                for name, compiled in COMPILED.items():
                    for match in compiled.finditer(text):
                        found[name] += 1
                        at = line + text.count("\n", 0, match.start())
                        places.append(f"{path.relative_to(root)}:{at}: {name}: {match.group(0).strip()!r}")
    return found, places


if __name__ == "__main__":
    counted, where = count(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
    print("\n".join(where))
    for name in PATTERNS:
        print(f"{counted[name]:5}  {name}")
    print(f"{sum(counted.values()):5}  in all")
