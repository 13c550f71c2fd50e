"""Kill a process at a chosen system call of a function, to test the files that are left behind.

Use this module to test code that must be safe to run again after a crash, such as a backend's
``recover_in_place``.
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
"""Functions of ``os`` that may change the disk. The kernel's ``rename_to_free_name`` is counted as well."""

_KILLED = 9


def killed_at_call(number: int, when: Literal["before", "after"], what: Callable[[], object]) -> bool:
    """Run a function in a fork of this process and kill the fork at one of its system calls.

    Parameters
    ----------
    number : int
        The number of the call, counted from 1 across all functions in :data:`CALLS`.
    when : {"before", "after"}
        Whether to kill the fork before or after this call is made.
    what : callable
        The function to run, without arguments. It must not depend on other threads of this process, because a
        fork does not inherit them.

    Returns
    -------
    bool
        True if the fork was killed, or False if the function returned before it reached that call.

    Raises
    ------
    RuntimeError
        If the function raised an exception. The traceback is printed to stderr.
    AttributeError
        If the system does not support ``fork``.

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
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python warns if a process with threads is forked
        child = os.fork()
    if not child:
        _run_and_end(number, when, what)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, _KILLED):
        raise RuntimeError(
            f"the function raised an exception before the fork was killed (exit status {status}); see the "
            "traceback on stderr"
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
