"""Frames in flight: the bounded queue between a producer and a storage, and the work on its frames."""
