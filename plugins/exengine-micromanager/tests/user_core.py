"""A user's own core with the demo microscope, and storages that fail, for the tests of sinks."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import mm_test_adapters
from pymmcore_plus import CMMCorePlus


@contextlib.contextmanager
def new_core(config: str | Path | None = None, cls: type[CMMCorePlus] = CMMCorePlus) -> Iterator[CMMCorePlus]:
    """Return a core with a config, which is released at the end: a live core aborts the interpreter.

    Its buffer is smaller than usual, because it takes time to create.
    """
    folder = str(mm_test_adapters.device_adapter_path())
    core = cls(folder, [folder])
    core.setCircularBufferMemoryFootprint(32)
    try:
        core.loadSystemConfiguration(config or Path(folder) / "MMConfig_demo.cfg")
        yield core
    finally:
        core.unloadAllDevices()
        super(CMMCorePlus, core).registerCallback(None)


class FailingWrites:
    """Makes a storage fail: each ``put`` from the number ``at`` on, and ``finish`` if asked."""

    def __init__(self, monkeypatch, cls, *, at: int | None = None, finish: bool = False) -> None:
        self.puts = 0
        put, end = cls.put, cls.finish

        def failing_put(storage, coordinates, data, metadata):
            self.puts += 1
            if at is not None and self.puts >= at:
                raise OSError(28, "No space left on device")
            return put(storage, coordinates, data, metadata)

        def failing_finish(storage):
            if finish:
                raise OSError(5, "Input/output error")
            return end(storage)

        monkeypatch.setattr(cls, "put", failing_put)
        monkeypatch.setattr(
            cls, "put_many", lambda storage, frames: [failing_put(storage, *f) for f in frames]
        )
        monkeypatch.setattr(cls, "finish", failing_finish)
