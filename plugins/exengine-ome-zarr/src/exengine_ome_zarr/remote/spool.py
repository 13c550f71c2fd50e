"""The spool: the folder on this machine from which a dataset is uploaded.

Each dataset has a folder of its own in the spool. The folder's name ends with a token that the manifest in
the bucket contains, so that ``exengine recover`` finds the folder after the writer has died.
"""

import os
import re
import sys

from exengine.base_classes import FilePatterns
from exengine.errors import DatasetAccessError
from exengine_ome_zarr.format.files import DATASET_FILES

VARIABLE = "EXENGINE_SPOOL"
"""The environment variable that sets the default folder of the spool."""
FOLDER = "exengine-spool"
DEFAULT_BYTES = 4 * 2**30
_OWN = ("exengine.json", "exengine.json.new", "exengine.lock")


def default_folder() -> str:
    """Return the default folder of the spool."""
    named = os.environ.get(VARIABLE)
    if named:
        return os.path.abspath(os.path.expanduser(named))
    if sys.platform == "win32":
        cache = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        cache = os.path.expanduser("~/Library/Caches")
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(os.path.abspath(cache), FOLDER)


def new_folder(spool: str | None, url: str, token: str) -> str:
    """Return a path in the spool for the folder of a new dataset. Create the spool if necessary.

    Raises
    ------
    DatasetAccessError
        If the spool cannot be created.
    """
    spool = default_folder() if spool is None else os.path.abspath(os.path.expanduser(spool))
    try:
        os.makedirs(spool, exist_ok=True)
    except OSError as error:
        raise DatasetAccessError(
            f"{url} needs a spool on this machine, and {spool} cannot be created: {error.strerror or error}; "
            f"set the option spool, or the variable {VARIABLE}, to a folder on a local disk"
        ) from error
    name = re.sub(r"[^A-Za-z0-9._-]", "_", url.rsplit("/", 1)[-1])[:60]
    return os.path.join(spool, f"{name}-{token}")


def find_folder(spool: str | None, token: str) -> str | None:
    """Return the folder of the dataset with this token, or None if there is none on this machine."""
    if re.fullmatch(r"[0-9a-f]{8,64}", token) is None:
        return None
    for place in (spool, default_folder()):
        if place is None or not os.path.isdir(place):
            continue
        for name in os.listdir(place):
            if name.endswith(f"-{token}") and os.path.isdir(os.path.join(place, name)):
                return os.path.join(place, name)
    return None


def remove_folder(folder: str) -> None:
    """Remove a dataset's own files from the spool, and the folders that are then empty."""
    patterns = FilePatterns(DATASET_FILES)
    for below, _, names in os.walk(folder, topdown=False):
        inside = os.path.relpath(below, folder).replace(os.sep, "/")
        for name in names:
            path = os.path.join(below, name)
            relative = name if inside == "." else f"{inside}/{name}"
            if (relative in _OWN or patterns.match_file(relative)) and not os.path.islink(path):
                os.unlink(path)
        if not os.listdir(below):
            os.rmdir(below)
