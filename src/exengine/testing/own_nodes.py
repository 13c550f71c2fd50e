"""Files, pipes, sockets and devices for the kit, all made by the kit in a folder of its own.

A backend under test may do anything with the rights of the user, and that may be root. It therefore gets no
path of the system: the kit makes the targets of links and the places of hostile names.
"""

import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

_ZERO = (1, 5)  # device numbers of the zero device on Linux


def make_file(path: Path) -> None:
    """Make a file that another person has written."""
    path.write_text("a foreign file")


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
    """Make a device node that gives zeros.

    Raises
    ------
    PermissionError
        Without the right to make one: as an ordinary user, and in most containers.
    """
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*_ZERO))


def make_endless_file(path: Path) -> None:
    """Make a file that claims 1 TiB and takes no space."""
    with open(path, "xb") as file:
        file.truncate(2**40)


def node_makers() -> dict[str, Callable[[Path], None]]:
    """Return for each kind of node that this system and this user can make its name and a function."""
    if sys.platform == "win32":
        return {}
    makers: dict[str, Callable[[Path], None]] = {"pipe": os.mkfifo, "socket": make_socket}
    if sys.platform.startswith("linux") and os.geteuid() == 0:
        makers["device"] = make_device
    return makers


def make_nodes(folder: Path) -> list[str]:
    """Make a node of each kind in a folder, and return their names, which are the kinds."""
    made = []
    for kind, make in node_makers().items():
        try:
            make(folder / kind)
        except PermissionError:  # a container without the right to make devices
            continue
        made.append(kind)
    return made
