"""Passes frames through the process function on one or more threads, and preserves their order.

Threads: each worker takes the next frame, calls the process function, and then waits until all earlier frames
have been passed on. No lock is held while the process function runs. Several workers are faster than one if
the function spends its time in numpy or a codec, which release the interpreter lock.

Memory: results are queued only if they fit within the bounds of the handler. A generator is asked for its
next frame only when there is room for the frames before it.
"""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates, of_checked_axes
from exengine.kernel.data_storage_base import JsonValue
from exengine.kernel.errors import describe
from exengine.kernel.flow.flight import Flight
from exengine.kernel.flow.policy import Policy
from exengine.kernel.flow.queued_frame import QueuedFrame, frames_of
from exengine.kernel.flow.storing import Storing
from exengine.kernel.flow.waiters import Waiters, wait
from exengine.kernel.frames.metadata import clean_metadata

ProcessFunction = Callable[[DataCoordinates, npt.NDArray[Any], JsonValue], Any]

_MOST_HELD_BYTES = 8 * 2**20
"""The maximum total size, in bytes, of the results that workers hold back until the process function returns.

If the process function fails, the results that are held back are discarded."""


class Processing:
    """Runs the process function on the process threads.

    Parameters
    ----------
    function : callable
        The process function.
    flight : Flight
    storing : Storing
        Accounts for the frames that are lost.
    policy : Policy
        The number of workers, and the policy for a process function that fails.
    """

    def __init__(self, function: ProcessFunction, flight: Flight, storing: Storing, policy: Policy) -> None:
        self._function = function
        self._flight = flight
        self._storing = storing
        self._on_error = policy.on_process_error
        self._running = policy.workers
        self._most_held = min(_MOST_HELD_BYTES, policy.max_pending // 4) // policy.workers
        self._turn = 0  # the number of the next frame to be passed on
        self._turns = Waiters()

    def run(self) -> None:
        """Process frames until the intake has ended. Each worker calls this method on its own thread."""
        flight = self._flight
        try:
            self._process_all()
        except BaseException as error:  # for example, a MemoryError outside the process function
            self._storing.keep(error)
        with flight.lock:
            self._running -= 1
            if not self._running:
                flight.ready_ended = True
                flight.results.wake_all()

    def _process_all(self) -> None:
        flight = self._flight
        while (taken := flight.wait_to_process()) is not None:
            number, item = taken
            try:
                self._process(number, item)
            finally:
                self._wait_for_turn(number)
                with flight.lock:
                    self._turn = number + 1
                    self._turns.wake_all()

    def _process(self, number: int, item: QueuedFrame) -> None:
        raw = metadata = failure = None
        passed_on: list[QueuedFrame] = []
        held: list[QueuedFrame] = []
        held_bytes = 0
        try:
            if self._on_error == "raw":
                raw, metadata = item.data.copy(), clean_metadata(item.metadata)
            # The function receives a copy, because the coordinates of a frame in flight are frozen dict keys.
            coordinates = of_checked_axes(dict(item.coordinates.__dict__))
            for result in frames_of(self._function(coordinates, item.data, item.metadata), item):
                held.append(result)
                held_bytes += result.size
                if held_bytes > self._most_held:
                    self._wait_for_turn(number)
                    passed_on += self._pass_on(item, held, is_first=not passed_on)
                    held, held_bytes = [], 0
        except BaseException as error:
            failure, held = error, []
        self._wait_for_turn(number)
        if failure is not None and raw is not None:
            held = [QueuedFrame(item.coordinates, raw, metadata, item.future, processed=True)]
            held[0].since = item.since
        passed_on += self._pass_on(item, held, is_first=not passed_on)
        self._account(item, failure, is_passed_on=bool(passed_on), is_raw=raw is not None)

    def _account(
        self, item: QueuedFrame, failure: BaseException | None, *, is_passed_on: bool, is_raw: bool
    ) -> None:
        flight, ledger = self._flight, self._flight.ledger
        if failure is not None and not is_raw:
            self._storing.lose(
                item, failure, out=False, stop=self._on_error == "stop", in_flight=not is_passed_on
            )
            return
        with flight.lock:
            if failure is not None:
                ledger.name_raw(item.coordinates.__dict__, describe(failure))
            if is_passed_on:
                ledger.passed_on += 1
            else:
                ledger.discarded += 1
                flight.leave([item], item.size)

    def _wait_for_turn(self, number: int) -> None:
        while True:
            with self._flight.lock:
                if self._turn >= number:
                    return
                ticket = self._turns.enlist()
            if not wait(ticket):
                with self._flight.lock:
                    self._turns.withdraw(ticket)

    def _pass_on(self, item: QueuedFrame, results: list[QueuedFrame], *, is_first: bool) -> list[QueuedFrame]:
        for result in results:
            self._flight.wait_to_pass_on(result, item if is_first else None)
            is_first = False
            if result.future is not None:
                result.notify(processed=True, stored=False)
        return results
