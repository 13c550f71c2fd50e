"""A recorded dataset, with which the kit tests the source ``replay``."""

import itertools
import os
from typing import Any

from exengine.datasets.creation import open_storage
from exengine.kernel.errors import ExEngineError, UnsupportedOperationError
from exengine.kernel.registry import plugins
from exengine.testing.frames import frame_of

_Positions = tuple[int | str, ...]
_AXES: dict[str, _Positions] = {"time": (0, 1), "position": ("a", "b"), "channel": ("DAPI", "FITC")}


def replay_options(folder: str) -> dict[str, Any]:
    """Store a dataset with an installed backend, and return options with which ``replay`` plays it.

    Parameters
    ----------
    folder : str
        The path of an existing folder, in which the dataset is created.

    Raises
    ------
    UnsupportedOperationError
        If no installed backend can store the dataset and reopen it.
    """
    path = os.path.join(folder, "recorded")
    with open_storage(_backend(), path) as storage:
        for number, values in enumerate(itertools.product(*_AXES.values())):
            coordinates = dict(zip(_AXES, values, strict=True))
            storage.put(coordinates, frame_of(coordinates, (32, 48), "uint16"), {"elapsed_ms": 10.0 * number})
    return {"path": path}


def _backend() -> str:
    """Return the name of the first installed backend that can reopen its datasets."""
    for name in plugins.BACKENDS.records():
        try:
            capabilities = plugins.BACKENDS.load(name).capabilities
        except ExEngineError:
            continue
        if capabilities.persistent and capabilities.reopen and capabilities.iterable:
            return name
    raise UnsupportedOperationError(
        "no installed backend can reopen its datasets; install one, such as exengine-ndstorage"
    )
