"""The conformance kit: tests of the storage promises for any storage backend.

``pytest --exengine-backend NAME`` runs it on an installed backend, without a test file. Tests of plugins
import the names below from this package; its modules may move. The kernel never imports this package, and
importing it imports neither pytest nor numpy.
"""

_HOMES = {
    "StorageConformance": "exengine.testing.conformance",
    "Watch": "exengine.testing.watch",
    "check_class": "exengine.kernel.registry.class_checks",
    "decode": "exengine.frame_sources.simulated",
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
