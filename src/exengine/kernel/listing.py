"""What is installed, as plain functions."""

from collections.abc import Mapping

from exengine.kernel import registry
from exengine.kernel.records import PluginRecord


def backends() -> Mapping[str, PluginRecord]:
    """Return name -> record of every installed storage backend, without importing any.

    Examples
    --------
    >>> "ndram" in backends()
    True
    """
    return registry.backends.records()


def sources() -> Mapping[str, PluginRecord]:
    """Return name -> record of every installed frame source, without importing any.

    Examples
    --------
    >>> "simulated" in sources()
    True
    """
    return registry.sources.records()
