"""Creates storages for new datasets from settings and the plugin registry.

This module determines the path of a dataset. If the requested path is in use, this module rejects it, appends
a number to it, or moves the old dataset aside. The backend therefore always receives a free path.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from exengine.config.layers import Config, resolve
from exengine.config.settings import check_values
from exengine.datasets.opening import find_writer
from exengine.datasets.overwriting import moved_aside
from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import (
    ConfigError,
    DatasetAccessError,
    DatasetExistsError,
    DatasetLockedError,
    ExEngineError,
    PluginError,
    UnsupportedOperationError,
    describe,
    from_os,
)
from exengine.kernel.registry import plugins
from exengine.kernel.registry.options import options_of, validate_options
from exengine.kernel.storage.file_patterns import FILE
from exengine.kernel.storage.remote import RemoteDatasets, is_url
from exengine.kernel.system import files
from exengine.kernel.wording import a, listed

if TYPE_CHECKING:
    from os import PathLike

IfExists = Literal["error", "number", "overwrite"]
_MOST_NUMBERED = 999_999


def open_storage(
    backend: str | None = None,
    path: "str | PathLike[str] | None" = None,
    /,
    *,
    config: "str | PathLike[str] | Mapping[str, Any] | Config | None" = None,
    if_exists: IfExists | None = None,
    **options: Any,
) -> DataStorage:
    """Create a storage for a new dataset.

    Parameters
    ----------
    backend : str
        Name of the backend; see ``exengine backends list``.
    path : path, optional
        Exact path of the new dataset. Backends that write to disk require it.
    config : path, mapping or Config, optional
        A config file or its content, used instead of all other arguments.
    if_exists : {'error', 'number', 'overwrite'}, optional
        Action to take if the path exists: raise an error (the default), use ``path_1``, ``path_2`` ..., or
        delete the old dataset. A dataset is deleted only if it is an ExEngine dataset and its folder contains
        nothing else, or if it is a file that has not changed since ExEngine wrote it.
    **options
        Options of the backend.

    Returns
    -------
    DataStorage
        A storage that is open for ``put``. It is a context manager.

    Raises
    ------
    PluginNotFoundError, PluginConflictError, PluginBrokenError, ContractError
        If the backend cannot be loaded.
    OptionError, ConfigError
        If an option or a setting is invalid. In this case, nothing was written.
    DatasetExistsError, DatasetLockedError, DatasetAccessError
        If the path cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> storage = open_storage("ndram")
    >>> storage.put({"time": 0}, np.zeros((4, 4)), {"exposure_ms": 10})
    >>> storage.get_data({"time": 0}).shape
    (4, 4)
    """
    if config is None:
        reaction: IfExists = "error" if if_exists is None else if_exists
        return StoragePlan(backend, path, if_exists=reaction, options=options).create()
    if backend is not None or path is not None or if_exists is not None or options:
        raise ConfigError(
            "pass either a config, or a backend with its path, if_exists and options, but not both"
        )
    return StoragePlan.from_config(resolve(config)).create()


class StoragePlan:
    """A backend with its options and its path. All of them are checked, but nothing is created yet.

    Parameters
    ----------
    backend : str or None
        Name of the backend. None is rejected.
    path : path, optional
        Required by backends that write to disk, and ignored by backends that keep frames in memory.
    if_exists : {'error', 'number', 'overwrite'}
    options : mapping
        Options of the backend.

    Attributes
    ----------
    cls : type
        Class of the backend.
    options : dict
        Validated options.
    path : str or None
        The requested path. With ``if_exists: number``, the dataset may get a different path.
    """

    def __init__(
        self,
        backend: str | None,
        path: "str | PathLike[str] | None" = None,
        *,
        if_exists: IfExists = "error",
        options: Mapping[str, Any],
    ) -> None:
        path = None if path is None else os.fspath(path)
        settings = {"storage.backend": backend, "storage.path": path, "storage.if_exists": if_exists}
        check_values(settings, origin=lambda key: "argument")
        path = settings["storage.path"]
        if not backend:
            raise ConfigError(
                "no backend is selected; set storage.backend in the config, or pass --backend. Installed: "
                f"{listed(plugins.BACKENDS.records())}"
            )
        self._named = backend
        self.cls: type[DataStorage] = plugins.BACKENDS.load(backend)
        self.options = validate_options(self.cls, options, f"backend {backend!r}")
        self.if_exists = if_exists
        self.path: str | None = None
        self._is_remote = False
        if self.cls.capabilities.persistent:
            if not path:
                raise ConfigError(
                    f"backend {backend!r} writes to disk and needs a path; set storage.path, or pass --path"
                )
            self.path = path
            self._is_remote = is_url(path)
            if self._is_remote and not self.capabilities.remote:
                raise ConfigError(
                    f"storage.path is {path!r:.80}, but backend {backend!r} writes only to folders on this "
                    "machine; set the path of a folder"
                )
            if FILE in self.cls.dataset_files and self.cls.capabilities.path_suffixes:
                self._refuse_path_without_suffix(path)

    def _refuse_path_without_suffix(self, path: str) -> None:
        """For a single-file dataset, reject a file name that other programs would not recognize."""
        suffixes = self.cls.capabilities.path_suffixes
        if self._is_remote or "\0" in path:
            return
        if os.path.realpath(path).lower().endswith(suffixes):  # a link to a dataset can have any name
            return
        stem, suffix = os.path.splitext(path.rstrip("/"))
        if not any(each.endswith(suffix.lower()) for each in suffixes):  # ``.tif`` is a part of ``.ome.tif``
            stem += suffix
        raise ConfigError(
            f"storage.path is {path!r:.200}, but backend {self._named!r} writes files with names that "
            f"end with {' or '.join(suffixes)}; set {stem + suffixes[0]!r:.200}"
        )

    @functools.cached_property
    def capabilities(self) -> StorageCapabilities:
        """The capabilities of the backend with these options.

        Raises
        ------
        ExEngineError
            If the backend rejects the options.
        """
        try:
            found = self.cls.capabilities_for(self.options, self.path)
        except ExEngineError:
            raise
        except Exception as error:
            raise PluginError(
                f"backend {self.name!r} does not report its capabilities: {describe(error)}"
            ) from error
        if not isinstance(found, StorageCapabilities):
            raise PluginError(
                f"capabilities_for of backend {self.name!r} returned {a(type(found).__name__)}, "
                "not StorageCapabilities"
            )
        return found

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the plan for a config's ``storage`` section.

        If the backend does not use a path, a configured path is ignored, and the config records the reason.
        """
        plan = cls(
            config["storage.backend"],
            config["storage.path"],
            if_exists=config["storage.if_exists"],
            options=config.section("storage.options"),
        )
        if plan.path is None:
            reason = f"backend {config['storage.backend']!r} keeps frames in memory and does not use a path"
            config.set_aside_value("storage.path", reason)
        return plan

    @property
    def name(self) -> str:
        """Registered name of the backend."""
        return plugins.BACKENDS.find(self._named).name

    def takes(self, option: str) -> bool:
        """Return whether the backend has this option."""
        return any(known.name == option for known in options_of(self.cls))

    def create(self) -> DataStorage:
        """Create the storage; see :func:`open_storage`."""
        if self.path is None:
            return self._create()
        if self.if_exists == "overwrite" and self._is_remote:
            if not issubclass(self.cls, RemoteDatasets):
                raise UnsupportedOperationError(f"backend {self.name!r} cannot replace a dataset at a URL")
            return self._call(self.cls.replace, self.path)
        if self.if_exists == "overwrite":
            # If the path is a symbolic link, its target is replaced and the link is kept.
            with moved_aside(self.path, files_of_writer) as place:
                return self._create_at(place)
        if self.if_exists == "number":
            return self._create_numbered(self.path)
        return self._create_at(self.path)

    def resume(self) -> DataStorage:
        """Open the dataset at the path, in order to store further frames; see :meth:`DataStorage.resume`."""
        assert self.path is not None
        return self._call(self.cls.resume, files.expanded(self.path), what="continue the dataset")

    def _create_at(self, path: str) -> DataStorage:
        if self._is_remote:  # the backend rejects a URL that is in use
            return self._create(path)
        if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
            raise DatasetExistsError(
                f"{path} already exists; choose another path, or set if_exists: number to add a number "
                "(overwrite deletes an old dataset)"
            )
        return self._create(path)

    def _create(self, *path: str) -> DataStorage:
        return self._call(self.cls.create, *path)

    def _call(
        self, create: Callable[..., DataStorage], *path: str, what: str = "create a dataset"
    ) -> DataStorage:
        try:
            return create(*path, **self.options)
        except ExEngineError:
            raise
        except OSError as error:
            raise from_os(
                DatasetAccessError, f"backend {self.name!r} cannot {what}: {error}", error
            ) from error
        except Exception as error:
            raise PluginError(f"backend {self.name!r} cannot {what}: {describe(error)}") from error

    def _create_numbered(self, path: str) -> DataStorage:
        for candidate in self.numbered_paths(path):
            try:
                return self._create_at(candidate)
            except (DatasetExistsError, DatasetLockedError):
                continue
        raise DatasetExistsError(f"{path} already exists, and so do all paths up to number {_MOST_NUMBERED}")

    def numbered_paths(self, path: str) -> Iterator[str]:
        """Yield a path, and then the same path with 1, 2 and so on before its suffix."""
        stem, suffix = path, ""
        for known in sorted(self.cls.capabilities.path_suffixes, key=len):  # the longest match wins
            if path.endswith(known):
                stem, suffix = path.removesuffix(known), known
        yield path
        for number in range(1, _MOST_NUMBERED + 1):
            yield f"{stem}_{number}{suffix}"


def files_of_writer(backend: str) -> tuple[str, ...]:
    """Return the ``dataset_files`` of the backend named by a manifest."""
    return tuple(find_writer(backend).dataset_files)
