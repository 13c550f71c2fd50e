"""A storage in memory that keeps what it is given, so that a test sees later changes."""

import threading

import pytest

from exengine.kernel.data_storage_base import StorageCapabilities
from exengine.kernel.storage.managed import ManagedStorage

PATIENCE_S = 10


class Held(ManagedStorage):
    """Keeps the metadata, and the array of a frame from a data handler, without a copy; may be stopped."""

    capabilities = StorageCapabilities(iterable=True, metadata=True, string_axes=True)

    def __init__(self):
        super().__init__()
        self.held = []
        self.gate = threading.Event()
        self.gate.set()

    def write_frame(self, number, coordinates, data, checked):
        self.write_owned_frame(number, coordinates, data.copy(), checked)

    def write_owned_frame(self, number, coordinates, data, checked):
        assert self.gate.wait(PATIENCE_S)
        self.held.append((data, checked))

    def read_frame(self, number):
        return self.held[number][0]

    def read_frame_metadata(self, number):
        return self.held[number][1]


@pytest.fixture
def held_storage():
    return Held()
