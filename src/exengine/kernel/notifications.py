"""Notifications that a ``DataHandler`` publishes to an executor, as in ExEngine 0.4.0."""

import logging
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any

from exengine.kernel.data_coords import DataCoordinates

_log = logging.getLogger("exengine")


class NotificationCategory(Enum):
    """The subject of a notification."""

    Event = "event"
    Data = "data"
    Storage = "storage"
    Device = "device"


class DataStoredNotification:
    """A notification that a frame was stored.

    Attributes
    ----------
    category : NotificationCategory
        ``Data``.
    payload : DataCoordinates
        The coordinates of the frame.
    timestamp : datetime.datetime
        The time at which the notification was created.
    """

    category = NotificationCategory.Data
    description = "Data has been stored in a Storage object"
    __slots__ = ("payload", "timestamp")

    def __init__(self, payload: DataCoordinates) -> None:
        self.payload = payload
        self.timestamp = datetime.now()


def notifications_to(executor: Any) -> Callable[[list[DataCoordinates]], None] | None:
    """Return an observer that notifies an executor of each stored frame; None if the executor is None."""
    if executor is None:
        return None

    def publish(stored: list[DataCoordinates]) -> None:
        for coordinates in stored:
            try:
                executor.publish_notification(DataStoredNotification(coordinates))
            except BaseException:
                _log.exception(
                    "the executor raised an exception when it was notified of the frame at %s", coordinates
                )

    return publish
