"""Decides whether a folder contains an ExEngine dataset and nothing else, and deletes such a dataset.

A dataset is a folder with a well-formed manifest that names an installed backend. Every file in the folder
must be a file that this backend writes. The backend's class declares the file names (``dataset_files``); if
the manifest also records file names, both must agree. The folder must not contain anything else: no other
file or folder, no link, device, pipe or socket, no mount point, and nothing that is write-protected. See
decision 12.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence

from exengine.kernel.errors import DatasetExistsError, DatasetLockedError, ExEngineError
from exengine.kernel.storage import manifest
from exengine.kernel.storage.file_patterns import FilePatterns
from exengine.kernel.system import files
from exengine.kernel.system.held_folder import HeldFolder

FilesOf = Callable[[str], Sequence[str]]
"""Callable that returns the ``dataset_files`` of the backend named by a manifest, or raises ExEngineError."""

_OWN = frozenset((manifest.MANIFEST_NAME, manifest.LOCK_NAME, f"{manifest.MANIFEST_NAME}.new"))
_MOST_SEARCHED = 10_000  # maximum number of folders searched for a nested dataset


class DatasetContent:
    """The files of a dataset in an open folder.

    Parameters
    ----------
    folder : HeldFolder
        The folder to check.
    files_of : callable
        See :data:`FilesOf`.

    Raises
    ------
    DatasetExistsError
        If the folder is not an ExEngine dataset, or contains anything else. The message gives the reason.
    DatasetLockedError
        If a writer is active.
    """

    def __init__(self, folder: HeldFolder, files_of: FilesOf) -> None:
        self._folder = folder
        self.files_of = files_of
        try:
            content = manifest.read_manifest(folder.path, dir_fd=folder.descriptor)
        except ExEngineError as error:
            raise refusal(folder.path, f"the manifest cannot be read ({error})") from error
        if content is None:
            raise refusal(
                folder.path,
                f"the folder has no manifest {manifest.MANIFEST_NAME}, so it is not an ExEngine dataset",
            )
        backend = content.backend
        try:
            declared = tuple(files_of(backend))
            recorded = content.files
            self._patterns = [FilePatterns(declared)]
            if recorded is not None:
                self._patterns.append(FilePatterns(recorded))
        except (ExEngineError, TypeError, ValueError) as error:
            raise refusal(
                folder.path, f"the files that the backend {backend!r:.80} writes are unknown ({error})"
            ) from error
        if not declared:
            raise refusal(
                folder.path,
                f"the backend {backend!r:.80} does not declare the names of its files (dataset_files)",
            )
        self.check()

    def check(self) -> None:
        """Raise an error unless the folder contains only this dataset and no writer is active."""
        folder = self._folder
        if manifest.has_writer(folder.path, dir_fd=folder.descriptor):
            raise DatasetLockedError(f"{folder.path} is being written; wait until its writer has ended")
        if not folder.is_writable():
            raise refusal(folder.path, "the folder is write-protected")
        for found in self._others(folder, ""):
            raise refusal(folder.path, found)

    def _others(self, folder: HeldFolder, below: str) -> Iterator[str]:
        """Yield a clause about each entry that is not part of the dataset or that cannot be deleted."""
        for entry in folder.names():
            name = below + entry
            status = folder.status(entry)
            if stat.S_ISDIR(status.st_mode):
                if not self._is_folder(name):
                    inner = _dataset_at_or_below(os.path.join(folder.path, entry))
                    what = f"another dataset, {inner}" if inner else f"the folder {name!r:.200}"
                    yield f"the folder contains {what}, which is not part of the dataset"
                    return
                with folder.enter(entry) as inside:
                    if not inside.is_on_mount_of(self._folder):
                        yield f"the subfolder {name!r:.200} is a mount point"
                        return
                    if not inside.is_writable():
                        yield f"the subfolder {name!r:.200} is write-protected"
                    yield from self._others(inside, f"{name}/")
            elif not stat.S_ISREG(status.st_mode):
                yield f"the folder contains {name!r:.200}, which is {files.kind_of(status)}"
            elif not self._is_file(name):
                yield f"the folder contains the file {name!r:.200}, which is not part of the dataset"
            elif not status.st_mode & stat.S_IWUSR:
                yield f"the file {name!r:.200} is write-protected"

    def _is_file(self, name: str) -> bool:
        return name in _OWN or all(patterns.match_file(name) for patterns in self._patterns)

    def _is_folder(self, name: str) -> bool:
        return all(patterns.match_folder(name) for patterns in self._patterns)

    def delete(self) -> None:
        """Delete the dataset's files, the manifest last. The empty folder itself remains.

        Files that were added after the check are not part of the dataset, and remain too.

        Raises
        ------
        OSError
            If something cannot be deleted.
        """
        self._delete(self._folder, "")
        there = {*self._folder.names()}
        for name in sorted(_OWN & there, key=lambda name: name == manifest.MANIFEST_NAME):
            if stat.S_ISREG(self._folder.status(name).st_mode):
                self._folder.remove_file(name)

    def _delete(self, folder: HeldFolder, below: str) -> None:
        for entry in folder.names():
            name = below + entry
            status = folder.status(entry)
            if stat.S_ISDIR(status.st_mode) and self._is_folder(name):
                with folder.enter(entry) as inside:
                    if not inside.is_on_mount_of(self._folder):
                        continue
                    self._delete(inside, f"{name}/")
                    if not inside.names():
                        folder.remove_folder(entry)
            elif stat.S_ISREG(status.st_mode) and name not in _OWN and self._is_file(name):
                folder.remove_file(entry)


def refusal(path: str, why: str) -> DatasetExistsError:
    """Return the error for a path that is not overwritten. ``why`` is the reason."""
    return DatasetExistsError(
        f"{path} was not deleted: {why}. if_exists: overwrite deletes an ExEngine dataset only if its folder "
        f"contains nothing else; move {path} away, delete it yourself, or choose another path"
    )


def refuse_other_kind(path: str, status: os.stat_result) -> None:
    """Raise an error if a stat result does not describe a folder."""
    if not stat.S_ISDIR(status.st_mode):
        raise refusal(path, f"the path is {files.kind_of(status)}")


def refuse_mount_point(folder: HeldFolder, parent: HeldFolder) -> None:
    """Raise an error if a file system is mounted at the folder."""
    if not folder.is_on_mount_of(parent):
        raise refusal(folder.path, "the folder is a mount point")


def refuse_link_to_no_dataset(link: str, path: str) -> None:
    """Raise the error for a symbolic link that does not lead to a dataset."""
    raise refusal(link, f"the path is a symbolic link whose target {path} is not a dataset")


def paths_of_dataset(path: str) -> Iterator[str]:
    """Yield the path of every file of a dataset, including the files next to a single-file dataset."""
    if os.path.isdir(path):
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(names))
    elif os.path.isfile(path):
        path = os.path.realpath(path)
        yield path
        parent, begin = os.path.split(f"{path}.exengine.")
        yield from (
            os.path.join(parent, name) for name in sorted(os.listdir(parent)) if name.startswith(begin)
        )


def _dataset_at_or_below(path: str) -> str | None:
    """Return the path of the first dataset at or below a folder, or None if none is found."""
    for number, (folder, _, names) in enumerate(os.walk(path)):
        if manifest.MANIFEST_NAME in names:
            return folder
        if number == _MOST_SEARCHED:
            break
    return None
