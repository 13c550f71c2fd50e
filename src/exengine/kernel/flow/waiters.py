"""Threads that wait for a change, each on a lock of its own.

A ``threading.Condition`` runs Python code while it holds its lock, and an interrupt in that code may leave
the lock held forever. Here, a thread enlists while it holds the lock of the shared state, releases that lock,
and then waits on a ticket in a single call to C code. The thread that makes the change releases the ticket.

A wake-up is lost if an interrupt arrives after a ticket has been removed from the list, but before the ticket
is released. A thread therefore waits for at most one second at a time, and then checks the state again.
"""

import threading
import time
from collections import deque

LONGEST_WAIT_S = 1.0
"""The maximum time that a thread waits before it checks the state again."""

_SLICE_S = 0.25


class Waiters:
    """The threads that wait for one kind of change. Hold the state's lock when you call its methods."""

    __slots__ = ("tickets",)

    def __init__(self) -> None:
        self.tickets: deque[threading.Lock] = deque()
        """The tickets of the threads that wait, in order of arrival."""

    def enlist(self) -> threading.Lock:
        """Return a new ticket. The caller then releases the lock, calls :func:`wait` and checks the state."""
        ticket = threading.Lock()
        ticket.acquire()
        self.tickets.append(ticket)
        return ticket

    def withdraw(self, ticket: threading.Lock) -> None:
        """Remove a ticket that was not released in time; otherwise it would consume a wake-up."""
        if ticket in self.tickets:
            self.tickets.remove(ticket)

    def wake_one(self) -> None:
        """Wake the thread that has been waiting longest, if any thread is waiting."""
        if self.tickets:
            self.tickets.popleft().release()

    def wake_all(self) -> None:
        """Wake all threads."""
        while self.tickets:
            self.tickets.popleft().release()


def wait(ticket: threading.Lock, deadline: float | None = None) -> bool:
    """Wait on a ticket. Do not hold the state's lock during this call.

    Parameters
    ----------
    ticket : threading.Lock
    deadline : float, optional
        The value of ``time.monotonic()`` at which the wait ends; None means no limit.

    Returns
    -------
    bool
        Whether the ticket was released. If not, withdraw it, and check the state and the deadline.
    """
    left = LONGEST_WAIT_S if deadline is None else min(LONGEST_WAIT_S, deadline - time.monotonic())
    return ticket.acquire(timeout=max(0.0, left))


def wait_while_running(ticket: threading.Lock, left_s: float | None) -> float | None:
    """Wait on a ticket for a short time, and return the time that remains until a limit.

    If the process is suspended or the computer sleeps during the wait, the limit is reduced by no more than
    this short time. Otherwise, a program that resumes after Ctrl-Z would exceed its limit immediately.

    Parameters
    ----------
    ticket : threading.Lock
    left_s : float or None
        The time limit in seconds; None means no limit.
    """
    if left_s is None:
        wait(ticket)
        return None
    begin_s, most_s = time.monotonic(), min(left_s, _SLICE_S)
    ticket.acquire(timeout=max(0.0, most_s))
    return left_s - min(time.monotonic() - begin_s, most_s)
