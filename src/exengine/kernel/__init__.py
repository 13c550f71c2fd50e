"""The storage and frame source contracts, the plugin registry, and the building blocks of storages.

This package also resolves modules that have moved. ``_MOVED`` lists two kinds of old paths: paths that
occur in pickles, and paths that are still imported by plugins created from the first template. For a path of
the second kind, it also names the public module to use instead.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_MOVED = {
    "contract": ("kernel.registry.class_checks", "exengine.testing"),
    "coordinate_index": ("kernel.frames.coordinate_index", "exengine.base_classes"),
    "manifest": ("kernel.storage.manifest", "exengine.base_classes"),
    "platform": ("kernel.system.files", "exengine.base_classes"),
    "array_view": ("kernel.storage.array_view", ""),
    "ledger": ("kernel.frames.ledger", ""),
    "records": ("kernel.registry.records", ""),
    "recovery_base": ("datasets.recovery_base", ""),
    "verification": ("datasets.verification", ""),
}


class _MovedModules:
    """Finds modules of this package under their former names. It is the last finder that Python tries."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        prefix, _, name = fullname.rpartition(".")
        if prefix != __name__ or name not in _MOVED:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(fullname, _MovedModules())  # type: ignore[arg-type]  # it has both loader methods

    def create_module(self, spec: "ModuleSpec") -> None:
        """Let Python create an empty module, which :meth:`exec_module` then replaces."""

    def exec_module(self, module: "ModuleType") -> None:
        import importlib
        import warnings

        home, door = _MOVED[module.__name__.rpartition(".")[2]]
        if door:
            message = f"{module.__name__} has moved; import from {door} instead"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(f"exengine.{home}")


if not any(getattr(finder, "__name__", "") == _MovedModules.__name__ for finder in sys.meta_path):
    sys.meta_path.append(_MovedModules)
