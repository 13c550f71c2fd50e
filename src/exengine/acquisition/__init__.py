"""Acquisitions: the path of frames from source to data handler to storage, and the observers notified."""
