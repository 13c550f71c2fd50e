"""Writes the picture made by ``exengine preview``, and never replaces anything except an older picture.

The PNG metadata of each picture record that it was made by ``exengine preview``. A new picture is first
written to a temporary file next to the target. An older picture is therefore either kept or replaced by a
complete picture.
"""

import contextlib
import os
import time
from typing import TYPE_CHECKING

from exengine.kernel.errors import DatasetAccessError, DatasetExistsError, OptionError
from exengine.kernel.system import files
from exengine.kernel.system.held_folder import HeldFolder

if TYPE_CHECKING:
    from PIL import Image

_MADE_BY = "exengine preview"
_LARGEST_BYTES = 64 * 2**20  # a larger file cannot be a picture made by exengine preview


def save_picture(picture: "Image.Image", output: str) -> None:
    """Write a picture to a file. The file extension determines the format.

    Parameters
    ----------
    picture : PIL.Image.Image
    output : str
        The path of the file. It must be unused, or be the path of a PNG file written earlier by this
        function.

    Raises
    ------
    OptionError
        If the file extension does not belong to a known format.
    DatasetExistsError
        If any other file, or a folder, exists at the path.
    DatasetAccessError
        If the file cannot be written.
    """
    try:
        with HeldFolder(os.path.realpath(os.path.dirname(output) or ".")) as folder:
            _save(picture, folder, os.path.basename(output), output)
    except OSError as error:
        if isinstance(error, DatasetAccessError | DatasetExistsError):
            raise
        raise DatasetAccessError(
            f"the picture cannot be written to {output}: {error.strerror or error}"
        ) from None


def _save(picture: "Image.Image", folder: HeldFolder, name: str, output: str) -> None:
    from PIL import Image

    Image.init()
    form = Image.registered_extensions().get(os.path.splitext(name)[1].lower())
    if form not in Image.SAVE:
        raise OptionError(
            f"the picture cannot be written to {output}, because its file extension is unknown; use .png, "
            "for example"
        )
    old = folder.identity_of(name)
    if old is not None and not _is_older_picture(os.path.join(folder.path, name)):
        raise DatasetExistsError(
            f"{output} already exists and is not a picture made by exengine preview; remove it "
            "yourself, or choose another --output"
        )
    unique = f"{os.getpid()}-{time.monotonic_ns()}"
    new_name, old_name = (f".{files.cut_name(name)}.{what}-{unique}" for what in ("new", "replaced"))
    with open(os.path.join(folder.path, new_name), "xb") as file:
        made = os.fstat(file.fileno())
        try:
            picture.save(file, form, **_mark(form))
        except ValueError as error:
            _discard(folder, new_name, (made.st_dev, made.st_ino))
            raise OptionError(f"the picture cannot be written to {output}: {error}") from None
        except BaseException:
            _discard(folder, new_name, (made.st_dev, made.st_ino))
            raise
    try:
        if old is not None:
            folder.rename(name, old_name)
            if folder.identity_of(old_name) != old:
                raise DatasetExistsError(
                    f"{output} was replaced by another program, so it was left unchanged"
                )
        folder.rename(new_name, name)
    except BaseException:
        _discard(folder, new_name, (made.st_dev, made.st_ino))
        if folder.identity_of(old_name) is not None:
            with contextlib.suppress(FileExistsError):
                folder.rename(old_name, name)
        raise
    if old is not None:
        _discard(folder, old_name, old)


def _discard(folder: HeldFolder, name: str, identity: tuple[int, int]) -> None:
    if folder.identity_of(name) == identity:
        folder.remove_file(name)


def _mark(form: str) -> dict[str, object]:
    """Return the save options that mark a picture as made by ``exengine preview``."""
    if form != "PNG":
        return {}
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("Software", _MADE_BY)
    return {"pnginfo": info}


def _is_older_picture(path: str) -> bool:
    """Return whether a path is a regular file (not a link) with a picture made by ``exengine preview``."""
    from PIL import Image

    try:
        with os.fdopen(files.open_regular(path), "rb") as file:
            if os.fstat(file.fileno()).st_size > _LARGEST_BYTES:
                return False
            with Image.open(file, formats=("PNG",)) as picture:
                return picture.info.get("Software") == _MADE_BY
    except Exception:  # the file is not a picture made by exengine preview
        return False
