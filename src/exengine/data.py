"""Short import path: ``from exengine.data import DataCoordinates, DataHandler``."""

from exengine.kernel.data_coords import DataCoordinates, DataCoordinatesIterator
from exengine.kernel.data_handler import DataHandler

__all__ = ["DataCoordinates", "DataCoordinatesIterator", "DataHandler"]
