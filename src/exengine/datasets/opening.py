"""Opens existing datasets: finds the backend that can read a path, and opens the dataset with it.

The dataset's manifest names its backend. If there is no manifest, each installed backend is tried in turn.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

from exengine.datasets.overwriting import left_beside
from exengine.datasets.workshop import CONVERTING, folder_beside
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import (
    DatasetDamagedError,
    DatasetNotFoundError,
    ExEngineError,
    PluginError,
    UnsupportedOperationError,
    describe,
)
from exengine.kernel.registry import names, plugins
from exengine.kernel.storage import manifest
from exengine.kernel.storage.remote import RemoteDatasets, is_url
from exengine.kernel.system import files
from exengine.kernel.wording import did_you_mean, listed

if TYPE_CHECKING:
    from os import PathLike


def open_dataset(path: "str | PathLike[str]", *, backend: str | None = None) -> DataStorage:
    """Open an existing dataset for reading. Writes nothing.

    Parameters
    ----------
    path : path
        The dataset.
    backend : str, optional
        Name of the backend that reads the dataset. By default, this is the backend named by the dataset's
        manifest or, if there is no manifest, an installed backend that recognizes the dataset.

    Returns
    -------
    DataStorage
        The dataset. Its ``status`` is complete, aborted, failed, incomplete or damaged.

    Raises
    ------
    DatasetNotFoundError
        If the path does not exist, or no installed backend recognizes a dataset there.
    DatasetDamagedError
        If the dataset cannot be read.
    PluginError
        If the backend that wrote the dataset is not installed, or is broken.
    """
    path = os.fspath(path)
    if is_url(path):
        return _open(remote_reader(path, backend=backend), path)
    path = files.expanded(path)
    cls, written_by = _find_reader(path, backend)
    absolute = os.path.abspath(path)  # still valid if the program changes its working directory
    with manifest.handed_over(absolute, written_by) if written_by else nullcontext():
        return _open(cls, absolute)


def _open(cls: type[DataStorage], path: str) -> DataStorage:
    try:
        dataset: DataStorage = cls.open(path)
    except ExEngineError:
        raise
    except Exception as error:
        raise DatasetDamagedError(f"{path} cannot be read: {describe(error)}") from error
    if dataset.capabilities is DataStorage.capabilities:  # a reader that declares none of its own
        dataset.capabilities = cls.capabilities
    return dataset


def remote_reader(url: str, *, backend: str | None = None) -> type[DataStorage]:
    """Return the class that reads the dataset at a URL.

    Raises
    ------
    UnsupportedOperationError
        If no installed backend reads URLs, or if the named backend does not read them.
    """
    if backend is not None:
        named: type[DataStorage] = plugins.BACKENDS.load(backend)
        if not issubclass(named, RemoteDatasets):
            raise UnsupportedOperationError(
                f"backend {backend!r} does not support URLs, so it cannot read {url}"
            )
        return named
    classes = [cls for cls in _loadable() if issubclass(cls, RemoteDatasets)]
    if not classes:
        raise UnsupportedOperationError(
            f"{url} is a URL, but no installed backend reads URLs; "
            f"{names.how_to_get('ome-zarr', names.BACKENDS_GROUP)}"
        )
    # If there is only one candidate, its error is more informative than "not recognized".
    return next((cls for cls in classes[:-1] if cls.can_open(url)), classes[-1])


def reader_class(path: str, *, backend: str | None = None) -> type[DataStorage]:
    """Return the class that reads an existing dataset; see :func:`open_dataset`."""
    return _find_reader(path, backend)[0]


def _find_reader(path: str, backend: str | None) -> tuple[type[DataStorage], manifest.Manifest | None]:
    """Return the class that reads a dataset, and the manifest if it was read to find the class."""
    if not os.path.exists(path):
        raise DatasetNotFoundError(f"{path} does not exist{_hint(path)}")
    if backend is not None:
        return plugins.BACKENDS.load(backend), None
    written_by = manifest.read_manifest_file(manifest.own_path(path, manifest.MANIFEST_NAME))
    if written_by is not None:
        return _load_writer(written_by.backend, path), written_by
    for cls in openers(path):
        return cls, None
    inside = [
        name for name in _listdir(path) if os.path.isfile(os.path.join(path, name, manifest.MANIFEST_NAME))
    ]
    hint = f" It contains datasets: {', '.join(sorted(inside)[:5])}." if inside else ""
    raise DatasetNotFoundError(
        f"no installed backend recognizes {path} as a dataset.{hint} "
        f"Installed: {listed(plugins.BACKENDS.records())}"
    )


def openers(path: str) -> Iterator[type[DataStorage]]:
    """Yield the backend classes that can open a path. Plugins that raise an exception are skipped."""
    for cls in _loadable():
        try:
            can_open = cls.can_open(path)
        except KeyboardInterrupt:
            raise
        except BaseException:  # a plugin may raise anything, even SystemExit
            continue
        if can_open:  # not in the try block, because closing this generator raises GeneratorExit here
            yield cls


def _loadable() -> Iterator[type[DataStorage]]:
    """Yield the class of each backend that can be loaded."""
    for record in plugins.BACKENDS.records().values():
        if record.state == "conflict":
            continue
        try:
            cls = plugins.BACKENDS.load(record.name)
        except KeyboardInterrupt:
            raise
        except BaseException:  # a plugin may raise anything, even SystemExit
            continue
        yield cls


def find_writer(name: str) -> type[DataStorage]:
    """Return the installed backend named by a manifest.

    Raises
    ------
    PluginError
        If the backend is not installed, or is broken.
    """
    writer: type[DataStorage]
    for record in plugins.BACKENDS.records().values():
        for claim in record.candidates or (record,):
            if claim.target == name:  # a class without backend_name is recorded as module:Class
                writer = plugins.BACKENDS.load(claim.qualified_name)
                return writer
    writer = plugins.BACKENDS.load(name)
    return writer


def _load_writer(name: str, path: str) -> type[DataStorage]:
    try:
        return find_writer(name)
    except PluginError as error:
        error.args = (f"{path} was written by the backend {name!r}, which cannot be used: {error}",)
        raise


def _hint(path: str) -> str:
    """Return a hint about a missing dataset, for example that an overwrite was interrupted."""
    if (left := left_beside(path)) is not None:
        inside = os.path.join(left, os.path.basename(os.path.abspath(path)))
        how = f"in {left}; move its files back" if os.path.isfile(inside) else f"at {left}; rename it"
        return f"; overwriting it was interrupted, and the old dataset is now {how} to restore it"
    if os.path.isdir(folder_beside(os.path.abspath(path), CONVERTING)):
        return "; a conversion to this path is unfinished; run the same command again to continue it"
    if refusal := files.refusal_of(path):
        return f": {refusal}"
    parent, name = os.path.split(os.path.abspath(path))
    return did_you_mean(name, _listdir(parent))


def _listdir(path: str) -> list[str]:
    return os.listdir(path) if os.path.isdir(path) else []
