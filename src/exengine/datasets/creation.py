"""Makes storages and opens datasets: the only place where config meets registry.

Responsible for the path of a dataset (what is there already, counting up, overwriting) and for
finding the backend of an existing one. A backend sees a path where nothing is.
"""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from exengine.config.layers import Config, resolve
from exengine.datasets.overwriting import left_beside, moved_aside
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import (
    ConfigError,
    DatasetAccessError,
    DatasetDamagedError,
    DatasetExistsError,
    DatasetLockedError,
    DatasetNotFoundError,
    ExEngineError,
    PluginError,
)
from exengine.kernel.registry import plugins
from exengine.kernel.registry.options import options_of, validate_options
from exengine.kernel.storage import manifest
from exengine.kernel.wording import did_you_mean

if TYPE_CHECKING:
    from os import PathLike

IfExists = Literal["error", "number", "overwrite"]


def open_storage(
    backend: str | None = None,
    path: "str | PathLike[str] | None" = None,
    /,
    *,
    config: "str | PathLike[str] | Mapping[str, Any] | Config | None" = None,
    if_exists: IfExists | None = None,
    **options: Any,
) -> DataStorage:
    """Make a storage for a new dataset.

    Parameters
    ----------
    backend : str
        Its name; see ``exengine backends list``.
    path : path, optional
        Where the dataset will lie, exactly. Needed by a backend that keeps data on disk.
    config : path, mapping or Config, optional
        Instead of all the others: a config file, or what one holds.
    if_exists : {'error', 'number', 'overwrite'}, optional
        What to do when something is at the path: raise (the default), take ``path_1``, ``path_2`` ...,
        or delete the old dataset. Only a dataset of ExEngine with nothing else inside is deleted.
    **options
        Of the backend.

    Returns
    -------
    DataStorage
        Open for ``put``; a context manager.

    Raises
    ------
    PluginNotFoundError, PluginConflictError, PluginBrokenError, ContractError
        When the backend cannot be had.
    OptionError, ConfigError
        When an option or a setting is wrong. Nothing was written.
    DatasetExistsError, DatasetLockedError, DatasetAccessError
        When the path cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> storage = open_storage("ndram")
    >>> storage.put({"time": 0}, np.zeros((4, 4)), {"exposure_ms": 10})
    >>> storage.get_data({"time": 0}).shape
    (4, 4)
    """
    if config is not None:
        if backend is not None or path is not None or if_exists is not None or options:
            raise ConfigError("give either a config, or a backend with its path, if_exists and options")
        settings = resolve(config)
    else:
        arguments: dict[str, Any] = {f"storage.options.{name}": value for name, value in options.items()}
        arguments["storage.backend"] = backend
        if path is not None:
            arguments["storage.path"] = os.fspath(path)
        arguments["storage.if_exists"] = "error" if if_exists is None else if_exists
        settings = resolve(arguments=arguments, environment={}, user=False)
    return StoragePlan(settings).create()


class StoragePlan:
    """A backend, its options and its path, all checked, and nothing made yet.

    Parameters
    ----------
    config : Config
        Only the section ``storage`` is used. A path that the backend has no use for is set aside.

    Attributes
    ----------
    name : str
        Of the backend.
    cls : type
        Its class.
    options : dict
        Checked.
    path : str or None
        As configured; the dataset may get another one with ``if_exists: number``.
    """

    def __init__(self, config: Config) -> None:
        name = config["storage.backend"]
        if not name:
            installed = ", ".join(plugins.BACKENDS.records()) or "none"
            raise ConfigError(
                "no backend is named: set storage.backend in the config, or --backend. "
                f"Installed: {installed}"
            )
        self.cls: type[DataStorage] = plugins.BACKENDS.load(name)
        self.name = plugins.BACKENDS.find(name).name
        self.options = validate_options(self.cls, config.section("storage.options"), f"backend {name!r}")
        self.if_exists: IfExists = config["storage.if_exists"]
        if not self.cls.capabilities.persistent:
            config.set_aside_value("storage.path", f"backend {name!r} keeps its frames in memory")
        elif not config["storage.path"]:
            raise ConfigError(f"backend {name!r} writes to disk: set storage.path, or --path")
        self.path: str | None = config["storage.path"] and os.fspath(config["storage.path"])

    def takes(self, option: str) -> bool:
        """Return whether the backend has this option."""
        return any(known.name == option for known in options_of(self.cls))

    def create(self) -> DataStorage:
        """Make the storage; see :func:`open_storage`."""
        if self.path is None:
            return self._make()
        if self.if_exists == "overwrite":
            # Through a symbolic link, the dataset that it leads to is replaced, and the link stays.
            with moved_aside(self.path, _files_of) as place:
                return self._create_at(place)
        if self.if_exists == "number":
            return self._create_numbered(self.path)
        return self._create_at(self.path)

    def _create_at(self, path: str) -> DataStorage:
        _refuse_occupied(path)
        return self._make(path)

    def _make(self, *place: str) -> DataStorage:
        try:
            return self.cls.create(*place, **self.options)
        except ExEngineError:
            raise
        except OSError as error:
            refusal = DatasetAccessError(f"backend {self.name!r} cannot begin: {error}")
            refusal.errno = error.errno
            raise refusal from error
        except Exception as error:
            raise PluginError(
                f"backend {self.name!r} cannot begin: {type(error).__name__}: {error}"
            ) from error

    def _create_numbered(self, path: str) -> DataStorage:
        stem, suffix = path, ""
        for known in sorted(self.cls.capabilities.path_suffixes, key=len):  # the longest counts
            if path.endswith(known):
                stem, suffix = path.removesuffix(known), known
        for number in range(1_000_000):
            candidate = f"{stem}_{number}{suffix}" if number else path
            try:
                return self._create_at(candidate)
            except (DatasetExistsError, DatasetLockedError):
                continue
        raise DatasetExistsError(f"every number up to {number} is taken beside {path}")


def _refuse_occupied(path: str) -> None:
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise DatasetExistsError(
            f"{path} is there already; choose another path, or if_exists: number to count up "
            "(overwrite deletes an old dataset)"
        )


def _files_of(backend: str) -> tuple[str, ...]:
    """Return the names of the files that a backend writes, which a manifest names."""
    return tuple(_find_writer(backend).dataset_files)


# -- existing datasets ---------------------------------------------------------------------------


def open_dataset(path: "str | PathLike[str]", *, backend: str | None = None) -> DataStorage:
    """Open an existing dataset to read. Writes nothing.

    Parameters
    ----------
    path : path
        Of the dataset.
    backend : str, optional
        Who reads it; by default the dataset's manifest, or else the installed backends, say.

    Returns
    -------
    DataStorage
        Its ``status`` tells complete, aborted, failed, incomplete or damaged.

    Raises
    ------
    DatasetNotFoundError
        When nothing, or no dataset that an installed backend knows, is there.
    DatasetDamagedError
        When it cannot be read.
    PluginError
        When the backend that wrote it is not installed, or broken.
    """
    path = os.fspath(path)
    cls = reader_class(path, backend=backend)
    return _open_with(cls, os.path.abspath(path))  # whatever folder the program changes to


def reader_class(path: str, *, backend: str | None = None) -> type[DataStorage]:
    """Return the class that reads an existing dataset; see :func:`open_dataset`."""
    if not os.path.exists(path):
        parent, name = os.path.split(os.path.abspath(path))
        siblings = os.listdir(parent) if os.path.isdir(parent) else []
        left = left_beside(path)
        hint = f"; {left} was there, and was being overwritten: rename it" if left else ""
        raise DatasetNotFoundError(f"there is nothing at {path}{hint or did_you_mean(name, siblings)}")
    if backend is not None:
        named: type[DataStorage] = plugins.BACKENDS.load(backend)
        return named
    written_by = manifest.read_manifest(path) if os.path.isdir(path) else None
    if written_by is not None:
        return _load_writer(written_by["backend"], path)
    for cls in _openers(path):
        return cls
    installed = ", ".join(plugins.BACKENDS.records()) or "none"
    inside = [
        name for name in _listdir(path) if os.path.isfile(os.path.join(path, name, manifest.MANIFEST_NAME))
    ]
    hint = f" It holds datasets: {', '.join(sorted(inside)[:5])}." if inside else ""
    raise DatasetNotFoundError(
        f"no installed backend recognises {path} as a dataset.{hint} Installed: {installed}"
    )


def _load_writer(name: str, path: str) -> type[DataStorage]:
    try:
        return _find_writer(name)
    except PluginError as error:
        error.args = (f"{path} was written by the backend {name!r}: {error}",)
        raise


def _find_writer(name: str) -> type[DataStorage]:
    """Return the installed backend of a name that a manifest gives."""
    writer: type[DataStorage]
    for record in plugins.BACKENDS.records().values():
        for claim in record.candidates or (record,):
            if claim.target == name:  # a class that was used without its name
                writer = plugins.BACKENDS.load(claim.qualified_name)
                return writer
    writer = plugins.BACKENDS.load(name)
    return writer


def _openers(path: str) -> Iterator[type[DataStorage]]:
    """Yield the classes that say that they can open what lies at a path; broken plugins are passed over."""
    for record in plugins.BACKENDS.records().values():
        if record.state == "conflict":
            continue
        try:
            cls = plugins.BACKENDS.load(record.name)
            if cls.can_open(path):
                yield cls
        except KeyboardInterrupt:
            raise
        except BaseException:  # a plugin that raises here has no say
            continue


def _open_with(cls: type[DataStorage], path: str) -> DataStorage:
    try:
        dataset: DataStorage = cls.open(path)
    except ExEngineError:
        raise
    except Exception as error:
        raise DatasetDamagedError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    return dataset


def _listdir(path: str) -> list[str]:
    return os.listdir(path) if os.path.isdir(path) else []
