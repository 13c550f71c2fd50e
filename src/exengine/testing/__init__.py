"""The conformance kit: tests of the promises for any storage backend and any frame source.

``pytest --exengine-backend NAME`` and ``pytest --exengine-source NAME`` run it on an installed plugin,
without a test file. Tests of plugins import the names below from this package; its modules may move. The
kernel never imports this package, and importing it imports neither pytest nor numpy.
"""

_HOMES = {
    "SimulatedSource": "exengine.frame_sources.simulated",
    "SourceConformance": "exengine.testing.source_conformance",
    "StorageConformance": "exengine.testing.conformance",
    "Watch": "exengine.testing.watch",
    "check_class": "exengine.kernel.registry.class_checks",
    "decode": "exengine.frame_sources.frame_code",
    "killed_at_call": "exengine.testing.kills",
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
