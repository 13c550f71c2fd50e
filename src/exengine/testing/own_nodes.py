"""Files, pipes, sockets and devices that the kit creates in its own folder.

A backend under test has all the permissions of the user running the kit, and that user may be root. The
kit therefore uses no system paths: it creates the target of every link and of every hostile name itself.
"""

import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

_ZERO = (1, 5)  # the major and minor numbers of /dev/zero on Linux


def make_file(path: Path) -> None:
    """Make a file that represents another person's work."""
    path.write_text("another person's work")


def make_folder(path: Path) -> None:
    """Make a folder that contains a file."""
    path.mkdir()
    make_file(path / "thesis.txt")


def make_socket(path: Path) -> None:
    """Make a socket. On Linux, its path may be longer than a socket address allows."""
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
        If the user is not permitted to make device nodes. This applies to ordinary users and, in most
        containers, to root.
    """
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*_ZERO))


def make_endless_file(path: Path) -> None:
    """Make a sparse file of 1 TiB, which occupies no disk space."""
    with open(path, "xb") as file:
        file.truncate(2**40)


def node_makers() -> dict[str, Callable[[Path], None]]:
    """Return a function for each kind of special file that this user can create here."""
    if sys.platform == "win32":
        return {}
    makers: dict[str, Callable[[Path], None]] = {"pipe": os.mkfifo, "socket": make_socket}
    if sys.platform.startswith("linux") and os.geteuid() == 0:
        makers["device"] = make_device
    return makers


def make_nodes(folder: Path) -> list[str]:
    """Make a special file of each kind in a folder. Name each file after its kind, and return the names."""
    made = []
    for kind, make in node_makers().items():
        try:
            make(folder / kind)
        except PermissionError:  # raised in a container that does not allow device nodes
            continue
        made.append(kind)
    return made
