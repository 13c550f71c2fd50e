"""What a ``DataHandler`` publishes to an executor, as in ExEngine 0.4.0."""

from datetime import datetime

from exengine.kernel.data_coords import DataCoordinates


class DataStoredNotification:
    """A frame was stored.

    Attributes
    ----------
    payload : DataCoordinates
        Of the frame.
    timestamp : datetime.datetime
        When.
    """

    description = "Data has been stored in a Storage object"
    __slots__ = ("payload", "timestamp")

    def __init__(self, payload: DataCoordinates) -> None:
        self.payload = payload
        self.timestamp = datetime.now()
