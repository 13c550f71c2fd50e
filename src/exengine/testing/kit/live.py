"""Tests with independent readers of the format, while the writer is alive and after it was killed: C6."""

import os
from pathlib import Path
from typing import Any

from exengine.testing.children import Child
from exengine.testing.promises import NotRun, PromiseBrokenError, promise
from exengine.testing.subject import Subject

FRAMES = 60
_SEEN_LIVE = 10  # number of frames that are read while the others are being written


class LivePromises:
    """Tests of ``live_readers`` with the class's foreign reader."""

    @promise("C6")
    def test_foreign_readers_see_every_acknowledged_frame(self, subject: Subject) -> None:
        if not subject.can.live_readers:
            subject.not_promised("live_readers")
        if not subject.cls.foreign_reader:
            raise NotRun("live_readers is declared, but the class has no foreign_reader to test it with")
        path = subject.new_path()
        spec: dict[str, Any] = {"path": os.fspath(path), "count": FRAMES, "level": "put", "end": "wait"}
        with Child(subject, "write", **spec) as writer:
            writer.wait_for(_SEEN_LIVE - 1)
            _are_seen(subject, path, _SEEN_LIVE, "while the others were being written")
            writer.wait_for(FRAMES - 1)
            _are_seen(subject, path, FRAMES, "while the writer was alive")
            writer.kill()
        _are_seen(subject, path, FRAMES, "after the writer was killed")


def _are_seen(subject: Subject, path: Path, count: int, when: str) -> None:
    with Child(subject, "foreign", path=os.fspath(path), count=count) as child:
        faults = child.result()["faults"]
    if faults:
        raise PromiseBrokenError(
            "C6", f"{when}, {subject.cls.foreign_reader} did not see {len(faults)} of {count} acknowledged "
            f"frames: {faults[0]}"
        )  # fmt: skip
