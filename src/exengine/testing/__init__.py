"""The conformance kit: tests that check whether a storage backend or a frame source keeps its promises.

``pytest --exengine-backend NAME`` and ``pytest --exengine-source NAME`` run the kit on an installed plugin;
no test file is needed. A plugin's tests should import the names below from this package and not from its
modules, because the modules may move. The kernel never imports this package, and importing the package
imports neither pytest nor NumPy.
"""

_HOMES = {
    "SimulatedSource": "exengine.frame_sources.simulated",
    "SourceConformance": "exengine.testing.source_conformance",
    "StorageConformance": "exengine.testing.conformance",
    "Watch": "exengine.testing.watch",
    "check_class": "exengine.kernel.registry.class_checks",
    "decode": "exengine.frame_sources.frame_code",
    "forget_peak": "exengine.testing.tasks.memory",
    "killed_at_call": "exengine.testing.kills",
    "peak_mib": "exengine.testing.tasks.memory",
    "read_results": "exengine.testing.results",
    "refresh_plugins": "exengine.kernel.registry.plugins",
    "reports_of": "exengine.testing.reports",
    "run_conformance": "exengine.testing.run",
}

__all__ = [*_HOMES]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
