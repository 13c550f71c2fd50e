"""What a ``DataHandler`` publishes to an executor, as in ExEngine 0.4.0."""

from datetime import datetime
from enum import Enum

from exengine.kernel.data_coords import DataCoordinates


class NotificationCategory(Enum):
    """What a notification is about."""

    Event = "event"
    Data = "data"
    Storage = "storage"
    Device = "device"


class DataStoredNotification:
    """A frame was stored.

    Attributes
    ----------
    category : NotificationCategory
        ``Data``.
    payload : DataCoordinates
        Of the frame.
    timestamp : datetime.datetime
        When.
    """

    category = NotificationCategory.Data
    description = "Data has been stored in a Storage object"
    __slots__ = ("payload", "timestamp")

    def __init__(self, payload: DataCoordinates) -> None:
        self.payload = payload
        self.timestamp = datetime.now()
