"""Tasks that read a dataset, with the backend or a foreign reader, while another process writes it."""

import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from exengine.kernel.errors import describe
from exengine.testing.children import look, say
from exengine.testing.frames import check_frame
from exengine.testing.subject import Subject


def run_foreign(subject: Subject, spec: dict[str, Any]) -> None:
    """Read frames with the class's foreign reader, and report those that the reader does not see."""
    module, _, name = subject.cls.foreign_reader.partition(":")
    read = getattr(importlib.import_module(module), name)
    faults = []
    for number in range(spec["count"]):
        axes = subject.axes(number)
        try:
            check_frame(np.asarray(read(spec["path"], dict(axes))), subject.frame(axes), axes, "C6")
        except Exception as error:
            faults.append(describe(error, 300))
    say(faults=faults)


def run_watch(subject: Subject, spec: dict[str, Any]) -> None:
    """Open a dataset repeatedly while it is being written, and report how many frames are intact."""
    stopped = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stopped.set()

    subject.varied = spec["varied"]
    threading.Thread(target=wait, name="exengine-kit-stop", daemon=True).start()
    counts: list[int] = []
    faults: list[str] = []
    last_round = False
    while not faults and not last_round:
        last_round = stopped.is_set()  # check once more after the last frame has been put
        storage = subject.open(Path(spec["path"]))
        present, faults = look(subject, storage, spec["count"])
        if present != list(range(len(present))):
            faults.append(f"earlier frames are missing; the frames found are {present}")
        if subject.can.iterable and len(storage) < len(present):
            faults.append(f"len(storage) is {len(storage)}, but the number of frames found is {len(present)}")
        storage.close()
        counts.append(len(present))
        if len(counts) == 1:
            say(put=0)
    say(counts=counts, faults=faults)
