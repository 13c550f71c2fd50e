"""ExEngine: stores microscope frames in the backend of your choice and never loses one silently.

Importing this package imports neither a backend nor numpy: each name is imported on first use.
"""

_HOMES = {
    "Acquisition": "exengine.acquisition.run",
    "ConvertReport": "exengine.datasets.conversion.convert",
    "DataCoordinates": "exengine.kernel.data_coords",
    "DataCoordinatesIterator": "exengine.kernel.data_coords",
    "DataHandler": "exengine.kernel.data_handler",
    "DataStorage": "exengine.kernel.data_storage_base",
    "DatasetReader": "exengine.kernel.storage.reading",
    "DatasetStatus": "exengine.kernel.data_storage_base",
    "ExEngineError": "exengine.kernel.errors",
    "FrameSource": "exengine.kernel.frame_source_base",
    "IndexedStorage": "exengine.kernel.storage.reading",
    "Ledger": "exengine.kernel.frames.ledger",
    "LostFrame": "exengine.datasets.verification",
    "ManagedStorage": "exengine.kernel.storage.managed",
    "Recorder": "exengine.acquisition.recorder",
    "RecoverReport": "exengine.datasets.recovery_base",
    "SourcePlan": "exengine.kernel.source_plan",
    "StorageCapabilities": "exengine.kernel.capabilities",
    "VerifyReport": "exengine.datasets.verification",
    "acquire": "exengine.acquisition.run",
    "backends": "exengine.kernel.registry.plugins",
    "convert": "exengine.datasets.conversion.convert",
    "errors": "exengine",
    "hookimpl": "exengine.kernel.registry.hookspecs",
    "open_dataset": "exengine.datasets.opening",
    "open_storage": "exengine.datasets.creation",
    "recover": "exengine.datasets.recovery",
    "sources": "exengine.kernel.registry.plugins",
    "verify": "exengine.datasets.verification",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        home = import_module(_HOMES[name])
        value = import_module(f"{home.__name__}.{name}") if name == "errors" else getattr(home, name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("exengine")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
