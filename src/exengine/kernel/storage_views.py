"""The views of a storage: its repr, a table for notebooks, its pixels for numpy and xarray, and new frames.

A view never changes a storage. The repr and the table never raise an error. They omit any fact that the
storage cannot provide.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Literal

from exengine.kernel.axes import summarize_positions
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import UnsupportedOperationError
from exengine.kernel.wording import html_table, human_count

_LOOK_S = 0.2  # time between two checks of whether the dataset is finished

Since = Callable[[int], Iterable[tuple[int, DataCoordinates]]]
"""Returns the numbers and coordinates of all frames from a given number on, in order of arrival."""


class StorageViews:
    """The views of a storage. ``DataStorage`` derives from this class and supplies their data."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return the pixels of all frames as a numpy array in memory, in the order of ``as_array``.

        Parameters
        ----------
        dtype : dtype, optional
            The dtype of the result; by default, that of the frames.
        copy : bool, optional
            numpy passes False to request a view. This is an error, because frames are not adjacent in memory.

        Returns
        -------
        numpy.ndarray
            ``(*axes, Y, X[, 3])``, owned by the caller.

        Raises
        ------
        CoordinatesNotFoundError
            If frames are missing; pass ``missing`` to ``as_array`` to fill or mask them.
        UnsupportedOperationError
            If frames have different axes, shapes or dtypes, or the storage cannot be read as one array.
        ValueError
            If ``copy`` is False.
        """
        import numpy as np

        if copy is False:
            raise ValueError(
                f"the frames of {type(self).__name__} cannot be viewed as one array without a copy; call "
                "np.asarray(...) without copy=False"
            )
        try:
            pixels = self.as_array()
        except UnsupportedOperationError as error:
            read = getattr(error, "read_all_frames", None)  # all that is missing is dask
            if read is None:
                raise
            pixels = read()
        return np.asarray(pixels, dtype=dtype)

    def as_array(
        self, axes: Iterable[str] | None = None, *, missing: Literal["raise", "mask"] | float = "raise"
    ) -> Any:
        """Return all frames as one array. The array is lazy if the backend supports this.

        Parameters
        ----------
        axes : iterable of str, optional
            The order of the leading axes; by default, the order in which they first appeared.
        missing : {'raise', 'mask'} or number
            How to treat missing frames: raise an error, mask them, or fill them with this value.

        Returns
        -------
        array
            ``(*axes, Y, X[, 3])``.
        """
        raise self._unsupported("cannot be read as one array")

    def to_xarray(self) -> Any:
        """Return all frames as an ``xarray.Dataset`` with the variable ``image``."""
        raise self._unsupported("cannot be read as an xarray Dataset")

    def __bool__(self) -> bool:
        """Return True, even if the storage is empty."""
        return True

    def _unsupported(self, what: str) -> UnsupportedOperationError:
        return UnsupportedOperationError(f"{type(self).__name__} {what}")

    def follow(self, timeout: float | None = None) -> Iterator[DataCoordinates]:
        """Yield the coordinates of every frame, and wait for new frames until the dataset is finished.

        Another process may be writing the dataset. If that process dies, the iterator ends after the last
        frame, and the status stays incomplete. A reader that shows only the newest frame can skip the
        others, because frames are read only by :meth:`exengine.DataStorage.get_data`.

        Parameters
        ----------
        timeout : float, optional
            The maximum time to wait for a frame, in seconds; None means no limit.

        Yields
        ------
        DataCoordinates
            The coordinates of each frame once, in the order in which the frames were stored.

        Raises
        ------
        TimeoutError
            If no frame arrived within this time, and the dataset is not finished.
        UnsupportedOperationError
            If the storage does not list its coordinates, or cannot wait for data.
        """
        return follow(self, lambda start: enumerate(islice(self, start, None), start), timeout)  # type: ignore[call-overload]  # DataStorage is iterable

    def __repr__(self) -> str:
        facts = dict(_facts(self))
        shown = ", ".join(facts[name] for name in ("status", "frames") if name in facts)
        path = f" {facts['path']!r}" if "path" in facts else ""
        return f"<{type(self).__name__}{path}{': ' if shown else ''}{shown}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks: path, status, frames, axes and pixels."""
        rows = [(name, text) for name, text in (*_facts(self), *_content(self)) if name != "path"]
        return html_table(f"{type(self).__name__} {_said(lambda: _path_of(self))}".strip(), rows)


def follow(storage: Any, since: Since, timeout: float | None) -> Iterator[DataCoordinates]:
    """Yield the coordinates of every frame until the dataset is finished; see ``StorageViews.follow``."""
    start = 0
    last_s = time.monotonic()
    while True:
        is_finished = storage.is_finished()  # read before the frames, so that the last frames are not missed
        before = start
        for number, coordinates in since(start):
            start = number + 1
            yield coordinates
        now_s = time.monotonic()
        if start > before:
            last_s = now_s
        elif is_finished:
            return
        left_s = _LOOK_S if timeout is None else min(_LOOK_S, last_s + timeout - now_s)
        if left_s <= 0:
            raise TimeoutError(f"no new frame arrived within {timeout:g} s, and the dataset is not finished")
        if not is_finished:
            storage.await_new_data(left_s)


def _path_of(storage: Any) -> str:
    return "" if storage.path is None else str(storage.path)


def _facts(storage: Any) -> Iterable[tuple[str, str]]:
    """Yield the facts that do not require reading a frame."""
    yield from _row("path", lambda: _path_of(storage))
    yield from _row("status", lambda: str(storage.status.value))
    yield from _row("reason", lambda: str(storage.status_reason))
    yield from _row("backend", lambda: str(storage.backend_name))
    yield from _row("frames", lambda: human_count(len(storage), "frame"))


def _content(storage: Any) -> Iterable[tuple[str, str]]:
    """Yield the axes, and the shape and dtype of the first frame."""

    def axes() -> str:
        found = storage.axes.items()
        return "; ".join(f"{axis}: {len(some)} ({summarize_positions(some)})" for axis, some in found)

    def pixels() -> str:
        first = storage.get_data(next(iter(storage)))
        return f"{' x '.join(map(str, first.shape))} {first.dtype}"

    yield from _row("axes", axes)
    yield from _row("pixels", pixels)


def _row(name: str, read: Callable[[], str]) -> Iterable[tuple[str, str]]:
    text = _said(read)
    if text:
        yield name, text


def _said(read: Callable[[], str]) -> str:
    """Return a fact as text; empty if the storage cannot provide the fact."""
    try:
        return read()
    except Exception:  # not supported, closed, damaged, or an error in a plugin
        return ""
