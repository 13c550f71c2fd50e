"""Acquisitions pass frames from a source through a data handler to a storage, and notify observers."""
