"""Kill a function at any of its system calls, to test the files that it leaves behind.

Use it to test code that must be safe to run again after a crash, such as ``recover_in_place`` of a backend.
"""

import os
import warnings
from collections.abc import Callable
from typing import Literal

from exengine.kernel.system import files

CALLS = (
    "open", "mkdir", "rename", "replace", "unlink", "remove", "rmdir", "fsync", "ftruncate", "write",
    "pwrite", "pwritev",
)  # fmt: skip
"""Functions of ``os`` that may change the disk; ``rename_to_free_name`` of the kernel counts as well."""

_KILLED = 9


def killed_at_call(number: int, when: Literal["before", "after"], what: Callable[[], object]) -> bool:
    """Run a function in a fork of this process, which is killed at one system call.

    Parameters
    ----------
    number : int
        The number of the call, counted from 1 over all functions in :data:`CALLS`.
    when : {"before", "after"}
        Whether to kill the fork before or after the call is made.
    what : callable
        A function without arguments. It must not need threads of this process: a fork has none of them.

    Returns
    -------
    bool
        Whether the fork was killed; False if the function returned after fewer calls.

    Raises
    ------
    RuntimeError
        If the function raised; the traceback is printed to stderr.
    AttributeError
        If the system has no ``fork``.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> def work():
    ...     os.mkdir(os.path.join(folder, "a"))
    ...     os.mkdir(os.path.join(folder, "b"))
    >>> killed_at_call(2, "before", work), os.listdir(folder)
    (True, ['a'])
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads
        child = os.fork()
    if not child:
        _run_and_end(number, when, what)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, _KILLED):
        raise RuntimeError(
            f"the function to be killed ended with status {status}; see its traceback on stderr"
        )
    return status == _KILLED


def _run_and_end(number: int, when: str, what: Callable[[], object]) -> None:
    status = 1
    try:
        calls = 0

        def counted(function: Callable[..., object]) -> Callable[..., object]:
            def counting(*arguments: object, **options: object) -> object:
                nonlocal calls
                calls += 1
                here = calls == number
                if here and when == "before":
                    os._exit(_KILLED)
                try:
                    return function(*arguments, **options)
                finally:
                    if here:
                        os._exit(_KILLED)

            return counting

        for name in CALLS:
            if hasattr(os, name):
                setattr(os, name, counted(getattr(os, name)))
        files.__dict__["rename_to_free_name"] = counted(files.rename_to_free_name)
        what()
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)
