"""Every piece of Python in the README, in the docs and in docstrings runs, as it stands."""

import doctest
import importlib
import os
import pkgutil
import re
from pathlib import Path

import pytest

import exengine

ROOT = Path(__file__).parents[2]
GENERATED = {"_build", "backends", "codes", "sources"}  # their examples are the doctests of the classes
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.rst")) if not GENERATED & set(page.parts)),
]
_SKIPPED = "not-run:"  # ".. code-block:: python" with a comment before it that gives the reason


def _blocks(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.findall(r"(?ms)^```python\n(.*?)^```", text)
    blocks = []
    # "snippet-setup:" is a comment in the page: what the reader has done before.
    pattern = r"(?m)^(?P<indent>[ ]*)\.\. (?:code-block:: (?:python|pycon)|snippet-setup:)\n(?P<body>(?:(?P=indent)[ ]+.*\n|[ ]*\n)+)"
    for match in re.finditer(pattern, text):
        before = text[: match.start()].rstrip().rsplit("\n", 1)[-1]
        if _SKIPPED in before:
            continue
        lines = [line for line in match["body"].splitlines() if not re.fullmatch(r"\s*:[\w-]+:.*", line)]
        margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        blocks.append("\n".join(line[margin:] for line in lines).strip("\n") + "\n")
    return blocks


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_on_a_page_runs_and_prints_what_its_comments_say(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    names: dict[str, object] = {"__name__": "snippet"}
    for block in _blocks(path):
        if ">>> " in block:
            result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
                doctest.DocTestParser().get_doctest(block, names, path.name, str(path), 0), clear_globs=False
            )
            assert result.failed == 0
        else:
            exec(compile(block, str(path), "exec"), names)
            printed = capsys.readouterr().out.splitlines()
            stated = re.findall(r"(?m)^\s*print\(.*\)[ ]+# (.+)$", block)
            assert [line for line in printed if line in stated] == stated


def _modules() -> list[str]:
    found = ["exengine_ndstorage.ndram", "exengine_ndstorage.ndtiff.writer", "exengine_micromanager.source"]
    found += [f"exengine_micromanager.user_core.{name}" for name in ("sink", "recording", "safe_engine")]
    found += ["exengine_ome_zarr.writer", "exengine_ome_zarr.serve"]
    modules = (module.name for module in pkgutil.walk_packages(exengine.__path__, "exengine."))
    return found + [name for name in modules if "__main__" not in name and "sphinxext" not in name]


@pytest.mark.parametrize("name", _modules())
def test_the_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_blocks_are_found():
    assert len(_blocks(ROOT / "README.md")) >= 2
    assert os.path.isdir(ROOT / "docs")
