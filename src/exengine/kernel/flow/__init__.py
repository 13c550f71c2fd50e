"""Frames in flight: the queue between producer and storage, and the threads that process and store frames."""
