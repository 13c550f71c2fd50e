"""The page "Troubleshooting" shows the messages that people get: each is produced here, as they meet it."""

import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import exengine
from exengine.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "troubleshooting.rst"
CONFIG = """\
storage:
  backend: ndtiff
  path: data/cells
source:
  name: simulated
  options: {width: 64, height: 48}
sequence:
  channels: [DAPI, FITC]
  time_plan: {interval: 0, loops: 10}
"""


def sections():
    """Return heading -> the console blocks and Python messages below it."""
    text = PAGE.read_text(encoding="utf-8")
    found = {}
    parts = re.split(r"(?m)^(.+)\n=+\n", text)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        blocks = re.findall(
            r"\.\. code-block:: (?:console|text)\n   :class: wrapped\n\n((?: +.*\n|\n)+)", body
        )
        found[heading] = ["\n".join(line[3:] for line in block.strip("\n").splitlines()) for block in blocks]
    return found


SECTIONS = sections()


class Person:
    """Types commands as a reader of the page does, and notes what they print."""

    def __init__(self, folder, capsys, monkeypatch):
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        monkeypatch.chdir(folder)
        Path("cells.yaml").write_text(CONFIG)
        self.seen = []

    def quietly(self, *arguments):
        main(list(arguments))
        self.capsys.readouterr()

    def types(self, line):
        main(line.split()[1:])
        out, err = self.capsys.readouterr()
        self.seen += [f"$ {line}", *self.plain(out + err).splitlines()]

    def notes(self, error):
        self.seen.append(self.plain(f"{type(error).__module__}.{type(error).__name__}: {error}"))

    def plain(self, text):
        """Return printed text with the folder, measured figures and progress left out."""
        text = text.replace(f"{self.folder}/", "").replace(str(self.folder), "/home/me")
        text = "\n".join(line for line in text.splitlines() if not re.match(r"\s*\d+/\d+ frames", line))
        text = re.sub(
            r"in [\d.]+ s, [\d.]+ frames/s, [\d.]+ [kMG]?B/s", "in 0.2 s, 50.0 frames/s, 307.2 kB/s", text
        )
        text = re.sub(r"(p50|p99|p99\.9|max) [\d.]+ (ms|s|us)\b", r"\1 2.0 ms", text)
        text = re.sub(r"at most \d+ frames?, [\d.]+ [kMG]?B", "at most 1 frame, 6.1 kB", text)
        return re.sub(r"(only|has) [\d.]+ [kMGT]?B( free| are available)", r"\1 1.2 GB\2", text)


@pytest.fixture
def person(tmp_path, capsys, monkeypatch):
    return Person(tmp_path, capsys, monkeypatch)


# -- the cases, each under its heading ------------------------------------------------------------

CASES = {}


def case(heading):
    def add(function):
        CASES[heading] = function
        return function

    return add


@case("The disk is too small")
def too_small(person):
    large = CONFIG.replace("width: 64, height: 48", "width: 16384, height: 16384").replace(
        "loops: 10", "loops: 5000"
    )
    Path("large.yaml").write_text(large)
    person.types("exengine acquire large.yaml")


@case("The disk is full")
def full(person):
    def pwritev(descriptor, parts, offset, *rest):
        if offset > 60_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, parts, offset, *rest)

    real = os.pwritev
    person.monkeypatch.setattr(os, "pwritev", pwritev)
    person.types("exengine acquire cells.yaml --set source.options.rate_hz=50")
    person.monkeypatch.setattr(os, "pwritev", real)
    # The source may have delivered one or two frames more when it is told.
    text = "\n".join(person.seen)
    person.seen = re.sub(
        r"\d+ offered, (\d+) stored, 0 dropped, \d+ failed",
        r"11 offered, \1 stored, 0 dropped, 1 failed",
        text,
    ).splitlines()
    first = next(line for line in person.seen if line.startswith("  lost"))
    person.seen = [line for line in person.seen if not line.startswith("  lost") or line == first]
    person.types("exengine verify data/cells")


@case("The dataset exists")
def exists(person):
    person.quietly("acquire", "cells.yaml")
    person.types("exengine acquire cells.yaml")


@case("Another program writes to the dataset")
def locked(person):
    writer = exengine.open_storage("ndtiff", "data/cells")
    person.types("exengine recover data/cells")
    writer.close()


@case("The writer was killed")
def killed(person):
    program = (
        "import os, numpy, exengine\n"
        "storage = exengine.open_storage('ndtiff', 'data/cells')\n"
        "for time in range(3): storage.put({'time': time}, numpy.zeros((48, 64), numpy.uint16), None)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], check=False, cwd=person.folder, timeout=60)
    person.types("exengine info data/cells")
    person.types("exengine recover data/cells")


@case("A frame is damaged")
def damaged(person):
    person.quietly("acquire", "cells.yaml")
    with open("data/cells/NDTiffStack.tif", "r+b") as file:
        file.seek(10_000)
        file.write(b"\xff" * 8)
    person.types("exengine verify data/cells")


@case("The backend is misspelt, or not installed")
def missing(person):
    person.types("exengine acquire cells.yaml --backend ndtif")


@case("The option is misspelt")
def option(person):
    person.types("exengine acquire cells.yaml --set storage.options.max_file_byte=1000000")


@case("The value of an option is wrong")
def value(person):
    person.types("exengine acquire cells.yaml --set source.options.dtype=float32")


@case("The setting is misspelt")
def setting(person):
    person.types("exengine acquire cells.yaml --set storage.if_exist=number")


@case("The plugin cannot be loaded")
def broken(person):
    info = person.folder / "site" / "exengine_shelf-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: exengine-shelf\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[exengine.storage_backends]\nshelf = exengine_shelf:Shelf\n")
    (person.folder / "site" / "exengine_shelf.py").write_text("import blosc3\n")
    person.monkeypatch.syspath_prepend(str(person.folder / "site"))
    from exengine.kernel.registry.plugins import refresh_plugins

    refresh_plugins()
    try:
        person.types("exengine acquire cells.yaml --backend shelf")
    finally:
        person.monkeypatch.undo()
        refresh_plugins()
        person.monkeypatch.chdir(person.folder)


@case("The path holds no dataset")
def nothing(person):
    person.types("exengine info data/cels")


@case("The backend cannot store the pixels")
def pixels(person):
    with exengine.open_storage("ndtiff", "data/cells") as storage:
        try:
            storage.put({"time": 0}, np.zeros((48, 64), np.float32), None)
        except exengine.ExEngineError as error:
            person.notes(error)


@case("There is already a frame at the coordinates")
def twice(person):
    with exengine.open_storage("ndtiff", "data/cells") as storage:
        storage.put({"time": 0}, np.zeros((48, 64), np.uint16), None)
        try:
            storage.put({"time": 0}, np.zeros((48, 64), np.uint16), None)
        except exengine.ExEngineError as error:
            person.notes(error)


@case("There is no frame at the coordinates")
def absent(person):
    person.quietly("acquire", "cells.yaml")
    with exengine.open_dataset("data/cells") as dataset:
        try:
            dataset[{"time": 99, "channel": "DAPI"}]
        except exengine.ExEngineError as error:
            person.notes(error)


@case("The frames do not form one array")
def sparse(person):
    with exengine.open_storage("ndtiff", "data/cells") as storage:
        for time, channel in ((0, "DAPI"), (0, "FITC"), (1, "DAPI")):
            storage.put({"time": time, "channel": channel}, np.zeros((48, 64), np.uint16), None)
    with exengine.open_dataset("data/cells") as dataset:
        try:
            np.asarray(dataset)
        except exengine.ExEngineError as error:
            person.notes(error)


@case("The frame source failed")
def source(person):
    person.types("exengine acquire cells.yaml --set source.options.fail_after=7")


@case("The disk is slower than the camera")
def slow(person):
    stored = threading.Event()

    def wait(coordinates, data, metadata):
        stored.wait(60)
        return coordinates, data, metadata

    with exengine.open_storage("ndtiff", "data/cells") as storage:
        handler = exengine.DataHandler(storage, wait, max_pending=40_000, when_full="error")
        try:
            for time in range(50):
                handler.put({"time": time}, np.zeros((48, 64), np.uint16), None)
        except exengine.ExEngineError as error:
            person.notes(error)
        stored.set()
        handler.finish()


@pytest.mark.parametrize("heading", CASES)
def test_the_message_on_the_page_is_the_one_that_people_get(person, heading):
    CASES[heading](person)
    assert "\n".join(SECTIONS.get(heading, [])) == "\n".join(person.seen)


def test_each_heading_of_the_page_has_a_message_that_is_tested():
    assert list(SECTIONS) == list(CASES)
