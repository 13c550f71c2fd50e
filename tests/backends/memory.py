"""The backend ``memory``, which implements only the six methods of the contract."""

from typing import Annotated, Literal

from annotated_types import Ge

from exengine.base_classes import DataStorage, StorageCapabilities, snapshot
from exengine.errors import CoordinatesNotFoundError


class MemoryStorage(DataStorage):
    """Keep frames in a dict.

    Parameters
    ----------
    gain : int, default: 1
        A number from 1.
    mode : str
        One of two.
    """

    capabilities = StorageCapabilities(string_axes=True, metadata=True)

    def __init__(self, gain: Annotated[int, Ge(1)] = 1, mode: Literal["fast", "safe"] = "fast") -> None:
        self.gain, self.mode = gain, mode
        self.frames = {}
        self.ended = []

    def put(self, coordinates, data, metadata):
        self.frames[snapshot(coordinates)] = (data.copy(), metadata)

    def get_data(self, coordinates):
        return self._find(coordinates)[0]

    def get_metadata(self, coordinates):
        return self._find(coordinates)[1]

    def _find(self, coordinates):
        if coordinates not in self:
            raise CoordinatesNotFoundError(f"nothing at {coordinates}")
        return self.frames[snapshot(coordinates)]

    def __contains__(self, coordinates):
        return snapshot(coordinates) in self.frames

    def finish(self):
        self.ended.append("finish")

    def abort(self, reason="", *, failed=False):
        self.ended.append(f"failed: {reason}" if failed else f"aborted: {reason}")

    def close(self):
        self.ended.append("close")
