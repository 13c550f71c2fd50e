"""Packs a finished dataset into a single file that can be read without being unpacked.

The file is written under a temporary name next to its final path, and is renamed once it is complete.
"""

import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import Any

from exengine.datasets.opening import open_dataset, reader_class
from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import (
    DatasetAccessError,
    DatasetExistsError,
    DatasetNotFoundError,
    StorageStateError,
    UnsupportedOperationError,
    from_os,
)
from exengine.kernel.storage import manifest
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system import files
from exengine.kernel.system.archive import PackableDatasets

_PIECE_BYTES = 8 * 2**20
_FINISHED = (DatasetStatus.COMPLETE, DatasetStatus.ABORTED, DatasetStatus.FAILED)
_MODE = stat.S_IFREG | 0o644

OnProgress = Callable[[int, int], None]
"""Called at intervals with the number of bytes packed so far and the total number of bytes."""


@dataclass(frozen=True)
class PackReport:
    """The result of :func:`pack`.

    Attributes
    ----------
    path : str
        The absolute path of the packed dataset.
    source : str
        The absolute path of the dataset.
    backend : str
        The name of the backend that reads both datasets.
    frames, files, bytes : int
        The number of frames, the number of files, and the size of the packed dataset in bytes.
    """

    path: str
    source: str
    backend: str
    frames: int
    files: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-serializable dict."""
        return asdict(self)


def pack(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> PackReport:
    """Pack a finished dataset into one file. The dataset itself is not changed.

    Parameters
    ----------
    path : path
        The folder of the dataset.
    output : path, optional
        The path of the new file. By default, it is next to the dataset, with the suffix that the backend uses
        for packed datasets.
    on_progress : callable, optional

    Raises
    ------
    DatasetNotFoundError
        If there is no dataset at the path.
    UnsupportedOperationError
        If the dataset is a single file or at a URL, or if its backend does not read packed datasets.
    StorageStateError
        If the dataset is not finished, or is damaged.
    DatasetExistsError
        If the output exists.
    DatasetAccessError
        If a file cannot be read or written.
    """
    if is_url(path):
        raise UnsupportedOperationError(f"{os.fspath(path)} is a URL; only datasets on disk can be packed")
    source = os.path.abspath(files.expanded(path))
    if not os.path.exists(source):
        raise DatasetNotFoundError(f"{source} does not exist")
    if not os.path.isdir(source):
        raise UnsupportedOperationError(f"{source} is already a single file; it can be shared as it is")
    cls = reader_class(source)
    if not issubclass(cls, PackableDatasets) or manifest.read_manifest(source) is None:
        raise UnsupportedOperationError(
            f"{source} cannot be packed, because its format cannot be read from a packed file; convert it "
            "first, for example with: exengine convert SRC DST --backend ome-zarr"
        )
    with closing(open_dataset(source)) as dataset:
        if manifest.has_writer(source) or dataset.status not in _FINISHED:
            raise StorageStateError(
                f"{source} is {dataset.status.value}, and only a finished dataset can be packed; wait until "
                "its writer has ended, or run exengine recover and pack the recovered dataset"
            )
        backend, frames = dataset.backend_name, len(dataset)
    target = _target(source, output, cls)
    names = list(_files_below(source))
    names.sort(key=lambda name: (os.path.basename(name) != cls.packed_first, name.count("/"), name))
    size = _write(source, names, target, cls.packed_comment, on_progress or (lambda done, total: None))
    return PackReport(target, source, backend, frames, len(names), size)


def _target(source: str, output: str | os.PathLike[str] | None, cls: type[PackableDatasets]) -> str:
    if output is None:
        suffixes = getattr(cls, "capabilities").path_suffixes  # noqa: B009 - of the storage class
        ending = next((each for each in suffixes if source.endswith(each)), "")
        target = source.removesuffix(ending) + cls.packed_suffix
    else:
        target = os.path.abspath(files.expanded(output))
        if not target.endswith(cls.packed_suffix):
            raise UnsupportedOperationError(
                f"the name of the packed dataset must end in {cls.packed_suffix}, got {target}"
            )
    if os.path.lexists(target):
        raise DatasetExistsError(f"{target} already exists; choose another path with -o")
    if os.path.commonpath((source, target)) == source:
        raise UnsupportedOperationError(f"{target} is inside the dataset itself; choose another path with -o")
    return target


def _files_below(folder: str, below: str = "") -> Iterator[str]:
    """Yield each file's path relative to the dataset folder, with ``/`` between its parts."""
    with os.scandir(os.path.join(folder, below)) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = below + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(folder, f"{name}/")
        elif not entry.is_file(follow_symlinks=False):
            raise UnsupportedOperationError(
                f"{os.path.join(folder, name)} is not a regular file, so the dataset cannot be packed"
            )
        elif name != manifest.LOCK_NAME:
            yield name


def _write(source: str, names: list[str], target: str, comment: bytes, on_progress: OnProgress) -> int:
    """Write the archive under a temporary name, rename it, and return its size in bytes."""
    folder, base = os.path.split(target)
    new = os.path.join(folder, f".{files.cut_name(base)}.packing-{os.getpid()}")
    total, done = sum(os.path.getsize(os.path.join(source, name)) for name in names), 0
    try:
        with os.fdopen(files.open_new(new), "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                archive.comment = comment
                for name in names:
                    for count in _add(archive, source, name):
                        done += count
                        on_progress(done, total)
            file.flush()
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        files.rename_to_free_name(new, target)
        files.sync_folder(folder)
    except FileExistsError as error:
        _remove(new)
        raise DatasetExistsError(f"{target} already exists; choose another path with -o") from error
    except OSError as error:
        _remove(new)
        text = f"{source} cannot be packed: {error.strerror or error}"
        raise from_os(DatasetAccessError, text, error) from error
    except BaseException:
        _remove(new)
        raise
    return size


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _add(archive: zipfile.ZipFile, source: str, name: str) -> Iterator[int]:
    """Add a file to an archive in pieces, and yield the size of each piece in bytes."""
    with os.fdopen(files.open_regular(os.path.join(source, name)), "rb") as file:
        status = os.fstat(file.fileno())
        entry = zipfile.ZipInfo(name)
        entry.external_attr = _MODE << 16
        entry.file_size = status.st_size
        with archive.open(entry, "w", force_zip64=status.st_size > zipfile.ZIP64_LIMIT // 2) as stored:
            while piece := file.read(_PIECE_BYTES):
                stored.write(piece)
                yield len(piece)
