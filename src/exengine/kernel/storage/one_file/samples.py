"""A sample of a file: enough of its content to notice that another file has taken its path.

A manifest records the sample of the file next to it. A file with another sample is never deleted. A sample is
no checksum: it covers 64 blocks of 4 KiB, so that it takes a moment for a file of any size.
"""

import hashlib
import os

from exengine.kernel.system import files

_BLOCKS, _BLOCK_BYTES = 64, 4096


def sample_of(path: "str | os.PathLike[str]", *, dir_fd: int | None = None) -> str:
    """Return the sample of a regular file.

    Parameters
    ----------
    path : path
        The file; a symbolic link is rejected.
    dir_fd : int, optional
        A descriptor of the folder that the path is relative to.

    Returns
    -------
    str
        The size in bytes, and a digest of blocks at equal distances, with the first and the last block.

    Raises
    ------
    OSError
        If the file cannot be read, or is not a regular file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "a")
    >>> _ = file.write_bytes(b"abc")
    >>> sample_of(file)[:10]
    '3-ba7816bf'
    """
    descriptor = files.open_regular(path, dir_fd=dir_fd)
    try:
        size = os.fstat(descriptor).st_size
        last = max(size - _BLOCK_BYTES, 0)
        digest = hashlib.sha256()
        for offset in sorted({last * number // (_BLOCKS - 1) for number in range(_BLOCKS)}):
            digest.update(files.read_at(descriptor, _BLOCK_BYTES, offset))
    finally:
        os.close(descriptor)
    return f"{size}-{digest.hexdigest()}"
