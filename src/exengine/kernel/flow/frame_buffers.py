"""Memory for the private copies of frames in flight.

Most of the time that it takes to copy a frame into new memory is spent on page faults. Small frames
therefore share slabs of memory. Slabs, and the buffers of large frames, are reused as soon as no frame refers
to them. If a storage keeps the frames in memory, the store thread allocates slabs in advance.

A small frame is copied while the interpreter lock is held. numpy would release the lock for each copy, and if
another Python thread is busy, every release costs this thread 5 ms. A large frame is copied by numpy, so that
other threads can run at the same time.
"""

import mmap
import sys
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

SLAB_BYTES = 2**18  # from 4 MiB on, numpy requests large pages; the first access to one takes a millisecond
LARGE_BYTES = 2**18
"""Frames of at least this size, in bytes, have a buffer of their own."""

_KEPT_BYTES = 32 * 2**20  # maximum total size of the large buffers kept in addition to those in flight
_KEPT_BUFFERS = 48
_MOST_LEAVING = 4  # number of large frames that are no longer in flight but may still be in use
_MOST_PREPARED = 2
_MOST_LAYOUTS = 4
_POPULATE: int | None = getattr(mmap, "MAP_POPULATE", None)


class _Slab:
    """Memory for small frames with the same layout."""

    __slots__ = ("buffer", "count", "dtype", "frames", "memory", "next", "shape", "size")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any] | None, size: int) -> None:
        self.shape, self.dtype, self.size = shape, dtype, size
        self.count = self.next = 0
        self.buffer = self.frames = np.empty(0, np.uint8)
        self.memory = memoryview(b"")

    def use(self, buffer: npt.NDArray[np.uint8]) -> None:
        """Place the next frames in this buffer."""
        count = buffer.nbytes // self.size
        self.frames = np.ndarray((count, *self.shape), self.dtype, buffer)
        self.buffer, self.memory = buffer, buffer.data
        self.count, self.next = count, 0  # last, so that an earlier failure leaves an empty slab


class FrameBuffers:
    """Copies arrays into memory that is reused.

    Examples
    --------
    >>> buffers = FrameBuffers()
    >>> frame = np.arange(6, dtype=np.uint16).reshape(2, 3)
    >>> copy = buffers.copy(frame)
    >>> (copy == frame).all(), np.shares_memory(copy, frame)
    (np.True_, False)
    """

    def __init__(self) -> None:
        self._slab = _Slab((), None, 0)
        self._slabs: dict[tuple[tuple[int, ...], np.dtype[Any]], _Slab] = {}
        self._prepared: deque[npt.NDArray[np.uint8]] = deque()
        self._allocates = False  # whether a slab had to be allocated because no buffer was free
        self._full: deque[npt.NDArray[np.uint8]] = deque(maxlen=_KEPT_BUFFERS)
        self._large: deque[npt.NDArray[np.uint8]] = deque()

    def copy(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a writeable copy of a small array, in C order. Only one thread may call this at a time.

        Parameters
        ----------
        image : numpy.ndarray
            An array, possibly of a subclass such as ``numpy.ma.MaskedArray``. The copy has the same class.
        """
        slab = self._slab
        if image.dtype is not slab.dtype or image.shape != slab.shape or type(image) is not np.ndarray:
            if not self._has_slab(image):
                return image.copy()
            slab = self._slab
        number = slab.next
        if number == slab.count:
            slab.use(self._free_buffer())
            number = 0
        slab.next = number + 1
        copy: npt.NDArray[Any] = slab.frames[number]
        begin = number * slab.size
        try:
            slab.memory[begin : begin + slab.size] = image.data.cast("B")
        except (TypeError, ValueError, BufferError):  # not contiguous, or no buffer support for the dtype
            copy[...] = image
        return copy

    def _has_slab(self, image: npt.NDArray[Any]) -> bool:
        """Select the slab for arrays with the layout of ``image``; return False if there is none."""
        size = image.nbytes
        if type(image) is not np.ndarray or image.dtype.hasobject or not 0 < size < LARGE_BYTES:
            return False
        layout = image.shape, image.dtype
        slab = self._slabs.get(layout)
        if slab is None:
            if not image.ndim or len(self._slabs) == _MOST_LAYOUTS:
                return False
            slab = self._slabs[layout] = _Slab(*layout, size)
        self._slab = slab
        return True

    def _free_buffer(self) -> npt.NDArray[np.uint8]:
        if self._slab.count:
            self._full.append(self._slab.buffer)
            self._slab.count = self._slab.next = 0
        self._slab.frames = self._slab.buffer = np.empty(0, np.uint8)  # drop references to the buffer
        self._slab.memory = memoryview(b"")
        if self._full:
            buffer = self._full.popleft()
            if _is_free(buffer):
                return buffer
            self._full.append(buffer)
        self._allocates = True
        return self._prepared.popleft() if self._prepared else np.empty(SLAB_BYTES, np.uint8)

    def prepare(self) -> bool:
        """Allocate a slab in advance if slabs are not reused, and return whether one was allocated.

        Only one thread may call this at a time; it need not be the thread that copies.
        """
        if not self._allocates or len(self._prepared) >= _MOST_PREPARED:
            return False
        self._prepared.append(_touched_buffer(SLAB_BYTES))
        return True

    def copy_large(self, image: npt.NDArray[Any], in_flight: int = 0) -> npt.NDArray[Any]:
        """Return a writeable copy of a large array. Several threads may call this at the same time.

        Parameters
        ----------
        image : numpy.ndarray
        in_flight : int
            The total size of the frames in flight, in bytes. The buffers of stored frames are reused.
        """
        if type(image) is not np.ndarray or image.dtype.hasobject or not image.nbytes:
            return image.copy()
        buffer = self._free_large_buffer(image.nbytes, in_flight)
        copy: npt.NDArray[Any] = np.ndarray(image.shape, image.dtype, buffer)
        copy[...] = image
        return copy

    def _free_large_buffer(self, size: int, in_flight: int) -> npt.NDArray[np.uint8]:
        """Return the oldest buffer, which is the first to become free; if it is still in use, a new one."""
        buffers = self._large
        buffer: npt.NDArray[np.uint8] | None
        try:
            while len(buffers) * size > in_flight + _KEPT_BYTES:
                buffers.popleft()
            buffer = buffers.popleft()
            while buffer.nbytes != size or not _is_free(buffer):
                if buffer.nbytes == size and (len(buffers) - _MOST_LEAVING) * size < in_flight:
                    buffers.appendleft(buffer)  # its frame is in flight, and so are all later ones
                    buffer = None
                    break
                buffer = buffers.popleft()  # the storage or the caller kept the frame
        except IndexError:  # there is none, or another thread took the last one
            buffer = None
        if buffer is None:
            buffer = _touched_buffer(size)
        buffers.append(buffer)
        return buffer

    def trim(self) -> None:
        """Release the large buffers that exceed the amount to keep. Call this when no frame is in flight."""
        buffers = self._large
        try:
            while len(buffers) * buffers[0].nbytes > _KEPT_BYTES:
                buffers.popleft()
        except IndexError:  # there is none, or another thread took the last one
            pass

    def release(self) -> None:
        """Release all large buffers. Existing frames remain valid."""
        self._large.clear()


def _touched_buffer(size: int) -> npt.NDArray[np.uint8]:
    """Return a new buffer with all its pages mapped. On Linux, other Python threads run in the meantime."""
    if _POPULATE is None:
        buffer = np.empty(size, np.uint8)
        buffer[:: mmap.PAGESIZE] = 0
        return buffer
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _POPULATE
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)


def _references_to(buffer: npt.NDArray[np.uint8]) -> int:
    return sys.getrefcount(buffer)


def _references_to_free_buffer() -> int:
    """Return the reference count that Python reports for a buffer to which only one local variable refers."""
    buffer = np.empty(0, np.uint8)
    return _references_to(buffer)


_FREE = _references_to_free_buffer() if getattr(sys, "_is_gil_enabled", lambda: True)() else 0


def _is_free(buffer: npt.NDArray[np.uint8]) -> bool:
    """Return whether a local variable of the caller holds the only reference to a buffer."""
    return sys.getrefcount(buffer) <= _FREE
