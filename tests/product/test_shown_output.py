"""The start page and the tutorials show what their commands print, and the pictures that they make."""

import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest

from exengine.cli.main import main
from exengine.kernel.registry import plugins

PIL_Image = pytest.importorskip("PIL.Image")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LATER = (
    "exengine backends check",
)  # it runs the conformance kit; test_scaffold.py and test_plugin_check.py do


def blocks(page, language):
    """Return the code blocks of a language on a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(rf"\.\. code-block:: {language}\n(?: +:.*\n)*\n((?: +.*\n|\n)+)", text + "\n")
    return [textwrap.dedent(block).rstrip() for block in found]


def plain(text):
    """Return printed text without measured durations and speeds, and without the widths of columns."""
    text = re.sub(r"in [\d.]+ s, [\d.]+ frames/s, [\d.]+ [MG]B/s", "in TIME", text)
    text = re.sub(r"(p50|p99|p99\.9|max) [\d.]+ (ms|s|us)\b", r"\1 TIME", text)
    text = re.sub(r"at most \d+ frames?, [\d.]+ [kMG]?B", "at most N frames", text)
    return re.sub(" {2,}", "  ", text)


class Reader:
    """Types the commands of a page, and compares what is printed with what the page shows.

    A block may leave out lines where it has ``...``. Commands without output on the page are run as well.
    """

    def __init__(self, capsys):
        self.capsys = capsys
        self.compared = 0

    def follow(self, block):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            command, _, shown = part.partition("\n")
            if not command.startswith("exengine ") or command.startswith(LATER):
                continue
            main(command.split()[1:])
            out, err = self.capsys.readouterr()
            if not shown.strip():
                continue
            printed = plain(out + err).rstrip().splitlines()
            lines = [line.rstrip() for line in plain(shown).rstrip().splitlines()]
            if "..." in lines:
                assert [line for line in lines if line != "..." and line not in printed] == []
            else:
                assert printed == lines, command
            self.compared += 1


@pytest.fixture
def reader(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Reader(capsys)


def test_the_commands_of_the_start_page_print_what_it_shows_and_draw_its_picture(reader):
    Path("cells.yaml").write_text(blocks("index.rst", "yaml")[0])
    reader.follow(blocks("index.rst", "console")[0])
    assert reader.compared == 2
    made, shown = (
        np.asarray(PIL_Image.open(file)) for file in ("cells.png", DOCS / "_static" / "simulated.png")
    )
    assert made.shape == shown.shape
    assert np.abs(made.astype(int) - shown.astype(int)).max() <= 2, "docs/_static/simulated.png is outdated"


def test_the_commands_of_the_first_tutorial_print_what_it_shows(reader):
    shutil.copytree(ROOT / "examples", "examples", ignore=shutil.ignore_patterns("exengine-*"))
    for block in blocks("tutorials/first_acquisition.rst", "console"):
        reader.follow(block)
    assert reader.compared == 2 and Path("data/demo.ome.zarr").is_dir() and Path("data/demo.png").is_file()


def test_the_commands_of_the_tutorial_on_backends_print_what_it_shows(reader, monkeypatch):
    create, *others = blocks("tutorials/your_first_backend.rst", "console")
    Path("demo.yaml").write_text(blocks("tutorials/your_first_backend.rst", "yaml")[0])
    reader.follow(create)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "."]
    subprocess.run(build, cwd="exengine-my-storage", check=True)
    (wheel,) = Path("exengine-my-storage").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall("site")
    monkeypatch.syspath_prepend(str(Path("site").absolute()))
    plugins.BACKENDS.refresh()
    try:
        for block in others:
            reader.follow(block)
    finally:
        for name in [name for name in sys.modules if name.startswith("exengine_my_storage")]:
            del sys.modules[name]
        monkeypatch.undo()
        plugins.BACKENDS.refresh()
    assert reader.compared == 5
