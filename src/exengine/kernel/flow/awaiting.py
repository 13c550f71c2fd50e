"""Waits until individual frames have arrived, have been processed, or have been stored."""

import time
from typing import Any

import numpy.typing as npt

from exengine.kernel.data_coords import snapshot
from exengine.kernel.data_storage_base import CoordinatesLike, DataStorage, JsonValue
from exengine.kernel.flow.flight import Flight
from exengine.kernel.flow.waiters import wait


class Awaiting:
    """A call to :meth:`exengine.DataHandler.await_data`, for one or more frames.

    Parameters
    ----------
    flight : Flight
    storage : DataStorage
    processed, stored : bool
        Whether to wait until a frame has been processed, or until it is stored.
    timeout : float or None
        The maximum time to wait for all frames together, in seconds.
    """

    def __init__(
        self, flight: Flight, storage: DataStorage, *, processed: bool, stored: bool, timeout: float | None
    ) -> None:
        self._flight = flight
        self._storage = storage
        self._processed, self._stored = processed, stored
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def frame(
        self, coordinates: CoordinatesLike, return_data: bool, return_metadata: bool
    ) -> tuple[npt.NDArray[Any] | None, JsonValue]:
        """Wait for a frame, and return its pixels and metadata; values that were not requested are None."""
        flight, storage, where = self._flight, self._storage, snapshot(coordinates)
        while True:
            with flight.lock:
                item = flight.find(where)
                if item is not None and not self._stored and (item.processed or not self._processed):
                    break
                refusal = None if item is not None else flight.refusal_of(where)
                ticket = flight.news.enlist()
            if item is None and where in storage:
                data = storage.get_data(where) if return_data else None
                return data, storage.get_metadata(where) if return_metadata else None
            if refusal is not None:
                raise refusal
            if self._deadline is not None and time.monotonic() >= self._deadline:
                raise TimeoutError(f"the frame at {where.__dict__} did not arrive in time")
            if not wait(ticket, self._deadline):
                with flight.lock:
                    flight.news.withdraw(ticket)
        return item.copies(return_data, return_metadata)
