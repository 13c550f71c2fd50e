"""The workers of a dask cluster, which read the frames of a conversion. Only this module uses distributed.

Dask schedules the work, and repeats the work of a worker that died. Guarantees: the results arrive in the
order of the items. Assumptions: a worker opens the datasets at the same paths as this process; the work
changes nothing, so it can be repeated.
"""

import contextlib
import itertools
import logging
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, TypeAlias, TypeVar

from exengine.datasets.conversion.frame_work import Datasets, UnexpectedFrameError
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import (
    ClusterError,
    DatasetAccessError,
    ExEngineError,
    UnsupportedOperationError,
    message_of,
)

Opener: TypeAlias = Callable[[], DataStorage]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_CONNECT_S = 4.0
_POLL_S = 0.5
_WITHOUT_WORKERS_S = 60.0  # time allowed for a cluster to start its first worker, or to replace its last one
_COUNTED_S = 5.0
_MOST_KEPT = 8  # number of conversions whose datasets a worker keeps open


class Cluster:
    """The workers of a dask cluster, as a context manager that disconnects on exit.

    Parameters
    ----------
    address : str
        The address of the scheduler, such as ``tcp://scheduler:8786``.

    Raises
    ------
    UnsupportedOperationError
        If dask.distributed is not installed.
    ClusterError
        If the scheduler cannot be reached within 10 seconds.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise UnsupportedOperationError(
                "a conversion on a cluster needs dask.distributed; install it with: "
                "pip install 'exengine[dask]'"
            ) from None
        base: Any = distributed.Client  # distributed has no types

        class QuietClient(base):  # type: ignore[misc, unused-ignore]
            """A client that is not closed on deletion, because that is slow without a connection."""

            def __del__(self) -> None:
                pass

        self.address = address
        self._quiet = _Quiet()
        try:
            self._client: Any = QuietClient(address, timeout=_CONNECT_S, set_as_default=False)
        except Exception as error:  # the libraries for each kind of address raise their own errors
            self._quiet.end()
            raise ClusterError(
                f"no dask scheduler can be reached at {address}: {_first_line(error)}; give the address that "
                "dask-scheduler prints, such as tcp://scheduler:8786"
            ) from error
        self._threads = 0
        self._counted_at = self._had_workers_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # the scheduler may already be gone
            self._client.close(timeout=5)
        self._quiet.end()

    def in_order(
        self,
        work: Callable[[Datasets, _Item], _Result],
        openers: Sequence[Opener],
        items: Iterable[_Item],
        batch: int,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[_Result]:
        """Yield the result of a function for each item, in order, while workers process the next items.

        Parameters
        ----------
        work : callable
            Called on a worker with the open datasets and an item.
        openers : sequence of callable
            Functions that open the datasets on a worker.
        items : iterable
        batch : int
            The number of items in one task.
        is_stopped : callable
            Returns whether to end early, without the results of the remaining items.

        Raises
        ------
        ExEngineError, UnexpectedFrameError
            If ``work`` raised this error on a worker.
        ClusterError
            If the cluster fails.
        """
        token = uuid.uuid4().hex
        remaining = iter(items)
        batches = iter(lambda: list(itertools.islice(remaining, batch)), [])
        running: deque[Any] = deque()
        try:
            while True:
                while len(running) < self._most_running():
                    if not (chosen := next(batches, None)):
                        break
                    task = _Task(token, openers, work, chosen)
                    running.append(self._client.submit(task.run, pure=False))
                if not running:
                    return
                results = self._result(running[0], is_stopped)
                if results is None:
                    return
                running.popleft().release()
                yield from results
        except (ExEngineError, UnexpectedFrameError):
            raise
        except Exception as error:  # raised by dask, by the network, or by Python on a worker
            self._refuse_if_lost()
            raise self._failed(_first_line(error)) from error
        finally:
            with contextlib.suppress(Exception):
                self._client.cancel(list(running))
                self._client.run(_forget, token, wait=False)

    def _most_running(self) -> int:
        """Return the number of tasks to keep in progress, so that all workers stay busy."""
        now = time.monotonic()
        if not self._threads or now - self._counted_at > _COUNTED_S:
            self._threads = sum(self._client.nthreads().values())
            self._counted_at = now
        return 2 * max(1, self._threads)

    def _result(self, future: Any, is_stopped: Callable[[], bool]) -> Any:
        """Return the result of a task; None if the conversion was stopped first."""
        ended = threading.Event()
        future.add_done_callback(lambda _: ended.set())
        while not ended.wait(_POLL_S):
            if is_stopped():
                return None
            self._refuse_if_lost()
        return future.result()

    def _refuse_if_lost(self) -> None:
        """Raise an error if the scheduler, or the last worker, is gone."""
        if self._client.status != "running":
            raise self._failed("the connection to the scheduler was lost")
        now = time.monotonic()
        if self._client.nthreads():
            self._had_workers_at = now
        elif now - self._had_workers_at > _WITHOUT_WORKERS_S:
            raise self._failed(f"it has had no worker for {_WITHOUT_WORKERS_S:.0f} seconds")

    def _failed(self, what: str) -> ClusterError:
        return ClusterError(
            f"the cluster at {self.address} failed: {what}. Run the same command again to continue, with or "
            "without the cluster"
        )


class _Quiet:
    """Keeps distributed from logging an error that is also raised."""

    def __init__(self) -> None:
        self._loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.CRITICAL + 1)

    def end(self) -> None:
        """Restore the log levels."""
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    return message_of(error).splitlines()[0]


# -- on the workers ----------------------------------------------------------------------------------

_kept: "OrderedDict[str, tuple[Datasets, contextlib.AbstractContextManager[Any]]]" = OrderedDict()
_keeping = threading.Lock()


class _Task:
    """Work on a batch of items, with datasets that stay open for the next batch."""

    def __init__(
        self,
        token: str,
        openers: Sequence[Opener],
        work: Callable[[Datasets, Any], Any],
        items: Sequence[Any],
    ) -> None:
        self._token = token
        self._openers = openers
        self._work = work
        self._items = items

    def run(self) -> list[Any]:
        """Return the result for each item."""
        datasets, alone = _opened(self._token, self._openers)
        with alone:
            return [self._work(datasets, item) for item in self._items]


def _opened(token: str, openers: Sequence[Opener]) -> tuple[Datasets, contextlib.AbstractContextManager[Any]]:
    """Return the datasets, and a lock if several threads cannot read them at the same time."""
    with _keeping:
        if token not in _kept:
            try:
                datasets = tuple(opener() for opener in openers)
            except ExEngineError as error:
                raise DatasetAccessError(
                    f"a worker of the cluster cannot open a dataset: {message_of(error)}; every worker needs "
                    "the datasets at the same paths as this computer"
                ) from None
            shared = all(each.capabilities.concurrent_readers for each in datasets)
            alone: contextlib.AbstractContextManager[Any] = (
                contextlib.nullcontext() if shared else threading.Lock()
            )
            _kept[token] = datasets, alone
            while len(_kept) > _MOST_KEPT:  # a killed client does not release its datasets
                _kept.popitem(last=False)
        _kept.move_to_end(token)
        return _kept[token]


def _forget(token: str) -> None:
    """Close the datasets of a conversion."""
    with _keeping:
        datasets, _ = _kept.pop(token, ((), None))
    for each in datasets:
        each.close()
