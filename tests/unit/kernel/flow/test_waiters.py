"""A time limit counts only time in which the process runs."""

import threading
import time

import pytest

from exengine.kernel.flow import waiters
from exengine.kernel.flow.waiters import wait_while_running


class Ticket:
    """A ticket that is never released. While a thread waits on it, the process is stopped for an hour."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(waiters.time, "monotonic", lambda: self.now)

    def acquire(self, timeout):
        self.now += 3600 + timeout
        return False


def test_the_time_in_which_the_process_is_stopped_hardly_counts(monkeypatch):
    assert wait_while_running(Ticket(monkeypatch), 10.0) == pytest.approx(9.75)
    assert wait_while_running(Ticket(monkeypatch), 0.1) == 0.0


def test_the_time_in_which_it_runs_counts():
    ticket = threading.Lock()
    ticket.acquire()
    begin = time.monotonic()
    left_s = wait_while_running(ticket, 0.05)
    assert left_s == pytest.approx(0.0, abs=1e-3) and time.monotonic() - begin >= 0.049
    ticket.release()
    assert 0.9 < wait_while_running(ticket, 1.0) <= 1.0


def test_without_a_limit_there_is_none():
    ticket = threading.Lock()
    assert wait_while_running(ticket, None) is None
