"""The start page shows what its commands print, and the picture that they make."""

import re
from pathlib import Path

import numpy as np
import pytest

from exengine.cli.main import main

PIL_Image = pytest.importorskip("PIL.Image")
DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "index.rst").read_text(encoding="utf-8")


def block(language):
    """Return the first code block of a language on the start page."""
    body = re.search(rf"\.\. code-block:: {language}\n(?: +:.*\n)*\n((?: +.*\n|\n)+)", PAGE)
    assert body
    return "\n".join(line[3:] for line in body[1].rstrip().splitlines())


def plain(text):
    """Return printed text without measured durations and speeds."""
    text = re.sub(r"in [\d.]+ s, [\d.]+ frames/s, [\d.]+ [MG]B/s", "in TIME", text)
    text = re.sub(r"(p50|p99|p99\.9|max) [\d.]+ (ms|s|us)\b", r"\1 TIME", text)
    return re.sub(r"at most \d+ frames?, [\d.]+ [kMG]?B", "at most N frames", text)


def test_the_commands_print_what_the_page_shows_and_draw_its_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("cells.yaml").write_text(block("yaml"))
    seen = []
    for line in block("console").splitlines():
        if line.startswith("$ exengine "):
            assert main(line.split()[2:]) == 0
            seen += [line, *capsys.readouterr().out.splitlines()]
    assert plain("\n".join(seen)) == plain(block("console"))

    made, shown = (
        np.asarray(PIL_Image.open(file)) for file in ("cells.png", DOCS / "_static" / "simulated.png")
    )
    assert made.shape == shown.shape
    assert np.abs(made.astype(int) - shown.astype(int)).max() <= 2, "docs/_static/simulated.png is outdated"
