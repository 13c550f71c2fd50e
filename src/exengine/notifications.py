"""Short import path: ``from exengine.notifications import DataStoredNotification``."""

from exengine.kernel.notifications import DataStoredNotification, NotificationCategory

__all__ = ["DataStoredNotification", "NotificationCategory"]
