"""Kills a piece of code at any of its calls to the system, for a test of the files that it leaves.

For code that must be safe to run again, such as ``recover_in_place`` of a backend.
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
"""Functions of ``os`` that change a disk; renaming to a free name counts, too."""

_KILLED = 9


def killed_at_call(number: int, when: Literal["before", "after"], what: Callable[[], object]) -> bool:
    """Run a function in a fork of this process, which is killed at one of its calls to the system.

    Parameters
    ----------
    number : int
        The number of the call among all calls of :data:`CALLS`, from 1.
    when : {"before", "after"}
        Whether the process is killed before or after the call.
    what : callable
        A function without arguments. It must not need threads of this process: a fork does not have them.

    Returns
    -------
    bool
        Whether it was killed; False if it ended with fewer calls.

    Raises
    ------
    RuntimeError
        If the function raised; the traceback is on the standard error.
    AttributeError
        On a system without ``fork``.

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
        raise RuntimeError(f"the process to kill ended with the status {status}")
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
