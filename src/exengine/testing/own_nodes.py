"""Files, pipes, sockets and devices that the kit creates in its own folder.

A backend under test can do anything that the user running the kit may do, and that user may be root. The kit
therefore uses no system paths: every target of a link or of a hostile name is created here.
"""

import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

_ZERO = (1, 5)  # device numbers of the zero device on Linux


def make_file(path: Path) -> None:
    """Make a file that stands for the work of another person."""
    path.write_text("another person's work")


def make_folder(path: Path) -> None:
    """Make a folder with a file."""
    path.mkdir()
    make_file(path / "thesis.txt")


def make_socket(path: Path) -> None:
    """Make a socket. Its path may be longer than a socket address allows."""
    made = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        if sys.platform.startswith("linux"):
            made.bind(f"/proc/self/fd/{folder}/{path.name}")
        else:
            made.bind(os.fspath(path))
    finally:
        os.close(folder)
        made.close()


def make_device(path: Path) -> None:
    """Make a device node that reads as zeros.

    Raises
    ------
    PermissionError
        If the user may not make device nodes: an ordinary user, and root in most containers.
    """
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*_ZERO))


def make_endless_file(path: Path) -> None:
    """Make a sparse file of 1 TiB, which occupies no disk space."""
    with open(path, "xb") as file:
        file.truncate(2**40)


def node_makers() -> dict[str, Callable[[Path], None]]:
    """Return kind -> function for the kinds of node that this system and this user can make."""
    if sys.platform == "win32":
        return {}
    makers: dict[str, Callable[[Path], None]] = {"pipe": os.mkfifo, "socket": make_socket}
    if sys.platform.startswith("linux") and os.geteuid() == 0:
        makers["device"] = make_device
    return makers


def make_nodes(folder: Path) -> list[str]:
    """Make a node of each kind in a folder, named after its kind; return the names."""
    made = []
    for kind, make in node_makers().items():
        try:
            make(folder / kind)
        except PermissionError:  # a container that does not allow devices
            continue
        made.append(kind)
    return made
