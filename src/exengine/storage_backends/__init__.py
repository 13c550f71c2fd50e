"""The import path for backends: ``from exengine.storage_backends.<name> import SomeStorage``.

A registered name resolves to the plugin's own module, so the module object and its classes are the same. A
real package in this folder, as described in the authors' guide, takes precedence, because the finder for
registered names is the last entry in ``sys.meta_path``.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

_PREFIX = __name__ + "."


class _AliasFinder:
    """Finds ``exengine.storage_backends.<name>`` in the registry."""

    @staticmethod
    def find_spec(
        fullname: str, path: "Sequence[str] | None" = None, target: object = None
    ) -> "ModuleSpec | None":
        if not fullname.startswith(_PREFIX):
            return None
        name = fullname.removeprefix(_PREFIX)
        if "." in name or name.startswith("_"):
            return None
        from exengine.kernel.errors import PluginError
        from exengine.kernel.registry import plugins

        try:
            record = plugins.BACKENDS.find(name)
        except PluginError as error:
            raise ModuleNotFoundError(f"no module named {fullname!r}: {error}", name=fullname) from None
        if record.state == "broken":
            raise ImportError(
                f"{fullname} cannot be imported, because {record.distribution} is broken: {record.error}",
                name=fullname,
            )
        real = record.target.partition(":")[0]
        return ModuleSpec(fullname, _AliasLoader(real), origin=real, is_package=True)


class _SubmoduleFinder:
    """Finds the submodules of a package that was imported by its alias, without loading them a second time.

    It must be the first finder. A module imported by its alias has the real module's ``__path__``, so
    Python's path finder would otherwise find the file and load it a second time.
    """

    @staticmethod
    def find_spec(
        fullname: str, path: "Sequence[str] | None" = None, target: object = None
    ) -> "ModuleSpec | None":
        if not fullname.startswith(_PREFIX):
            return None
        parent, _, name = fullname.rpartition(".")
        module = sys.modules.get(parent)
        if module is None or parent in (__name__, module.__name__):
            return None
        real = f"{module.__name__}.{name}"
        return ModuleSpec(fullname, _AliasLoader(real), origin=real, is_package=True)


class _AliasLoader(Loader):
    """Registers the plugin's module under its alias."""

    def __init__(self, real: str) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        sys.modules[name] = importlib.import_module(self._real)


if not any(finder is _AliasFinder for finder in sys.meta_path):
    sys.meta_path.append(_AliasFinder)
    sys.meta_path.insert(0, _SubmoduleFinder)
