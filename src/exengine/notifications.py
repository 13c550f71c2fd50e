"""Short import path: ``from exengine.notifications import DataStoredNotification``."""

from exengine.kernel.notifications import DataStoredNotification

__all__ = ["DataStoredNotification"]
