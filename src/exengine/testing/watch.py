"""Detect forbidden actions while a dataset is opened: running code, starting programs, accessing other files.

The watch listens to Python's audit events. They report the actions that this process performs through
Python, but not those that a C library performs directly. An audit hook cannot be removed, so create a watch
only in a separate process.
"""

import ast
import os
import stat
import sys
import sysconfig
from types import FrameType
from typing import Any

DECOY = "exengine_decoy"
"""The name of a module that does not exist. Code that tries to import it got the name from data."""

_NEVER = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "os.kill",
    "os.putenv", "subprocess.", "pty.", "socket.", "ctypes.", "pickle.find_class", "webbrowser.", "urllib.",
    "ftplib.", "http.", "smtplib.", "sqlite3.", "syslog.", "signal.", "tempfile.", "shutil.", "code.__new__",
    "sys.settrace", "sys.setprofile", "sys.addaudithook", "gc.", "mmap.", "winreg.", "msvcrt.",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown",
    "os.truncate", "os.utime", "os.setxattr", "os.removexattr", "os.chdir", "os.lockf", "glob.",
)  # fmt: skip
_CODE = ("exec", "compile", "marshal.load", "marshal.loads")
_AST = ast.__file__
_NO_HARM = ("ctypes.get_errno", "ctypes.set_errno", "mmap.__new__")
_MAKE_OR_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """A recorder of forbidden actions that occur while datasets are opened.

    Open an undamaged dataset once before you create a watch, so that all required modules have already been
    imported.

    Attributes
    ----------
    reached : list of str
        The forbidden actions recorded since the last call to :meth:`look_at`.
    """

    def __init__(self) -> None:
        self.reached: list[str] = []
        self._root: str | None = None
        paths = [*sysconfig.get_paths().values(), *(path for path in sys.path if path)]
        self._all_installed = tuple({os.path.realpath(path) + os.sep for path in paths})
        self._installed = self._all_installed
        self._busy = False
        sys.addaudithook(self._hear)
        # importlib.import_module does not raise an audit event, but it does call the finders.
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Record a search for a module if its name can only come from data. Always return None."""
        if self._root is not None and name.startswith(DECOY):
            self.reached.append(f"import of {name}")

    def look_at(self, path: "str | os.PathLike[str]") -> None:
        """Start watching a dataset. From now on, only files in it or belonging to it may be read."""
        self.reached = []
        self._root = os.path.realpath(path)
        # If a folder on Python's search path contains the dataset, code in it does not count as installed.
        self._installed = tuple(entry for entry in self._all_installed if not self._root.startswith(entry))

    def rest(self) -> None:
        """Stop watching until :meth:`look_at` is called again."""
        self._root = None

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._root is None or self._busy:
            return
        self._busy = True
        try:
            fault = self._fault_of(event, arguments)
            if fault:
                self.reached.append(fault[:300])
        finally:
            self._busy = False

    def _fault_of(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event == "open":
            return self._fault_of_open(*arguments)
        if event in ("os.listdir", "os.scandir"):
            return self._fault_of_listing(event, arguments[0])
        if event in _CODE:
            # ast.literal_eval, which numpy.load uses, compiles only to a syntax tree, which is never run.
            harmless = _is_called_from("<frozen importlib") or (event == "compile" and _is_called_from(_AST))
            return "" if harmless else f"{event} {arguments!r:.120}"
        if event.startswith(_NEVER) and event not in _NO_HARM:
            return "" if _is_called_from("<frozen importlib") else f"{event} {arguments!r:.120}"
        return ""

    def _fault_of_open(self, path: Any, mode: Any, flags: Any) -> str:
        if isinstance(path, int):
            return ""
        name, real = os.fsdecode(path), os.path.realpath(path)
        writes = bool((flags or 0) & _MAKE_OR_WRITE) or (
            isinstance(mode, str) and bool(set(mode) & set("wax+"))
        )
        if writes:
            if name.count(".pyc") and _is_called_from("<frozen importlib"):  # the cache of a module
                return ""
            return f"opened a file for writing: {name}"
        if self._is_inside(real):
            kind = _kind_of(real)
            return "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else f"opened a special file: {name}"
        return "" if real.startswith(self._installed) else f"opened outside: {name}"

    def _fault_of_listing(self, event: str, path: Any) -> str:
        if path is None or isinstance(path, int):
            return ""
        real = os.path.realpath(path)
        # Listing the parent folder is allowed, because an error about a missing path may suggest similar
        # names.
        beside = self._root is not None and real == os.path.dirname(self._root)
        installed = (real + os.sep).startswith(self._installed)
        return "" if self._is_inside(real) or beside or installed else f"{event} outside: {real}"

    def _is_inside(self, real: str) -> bool:
        inside = (self._root or "") + os.sep, f"{self._root}.exengine."
        return self._root is not None and (real == self._root or real.startswith(inside))


def _kind_of(path: str) -> int:
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except OSError:
        return 0


def _is_called_from(source: str) -> bool:
    """Return whether code from a given source file is in the call stack."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(source):
            return True
        frame = frame.f_back
    return False
