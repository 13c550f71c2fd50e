"""The two kinds of plugins that have pages, and the settings of the documentation project about plugins."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exengine.checks.describe import config_keys
from exengine.kernel.registry.names import BACKENDS_GROUP, SOURCES_GROUP, fold
from exengine.kernel.registry.records import PluginRecord

MARK = ".. Made by exengine.sphinxext from an installed plugin; changes are overwritten.\n"
"""First line of every generated file."""

KERNEL = "exengine"
"""The distribution that needs no installation."""


@dataclass(frozen=True)
class Kind:
    """The differences between the pages of backends and those of frame sources."""

    group: str
    name: str
    plural: str
    folder: str
    """Folder of the pages; also the verb of the command line."""

    @property
    def section(self) -> str:
        """The section of the config."""
        return config_keys(self.group)[0]


BACKENDS = Kind(BACKENDS_GROUP, "storage backend", "Storage backends", "backends")
SOURCES = Kind(SOURCES_GROUP, "frame source", "Frame sources", "sources")
KINDS = (BACKENDS, SOURCES)


@dataclass(frozen=True)
class Setup:
    """The settings of the documentation project about plugins.

    Attributes
    ----------
    local : mapping of str to str
        Folded name of a distribution -> folder to install it from, in a clone.
    own : frozenset of str
        Folded names of the distributions whose docstrings the project owns: faults in them are shown.
    """

    local: Mapping[str, str] = field(default_factory=dict)
    own: frozenset[str] = frozenset()

    def owns(self, record: PluginRecord) -> bool:
        """Return whether the project owns the docstrings of a plugin."""
        return fold(record.distribution) in self.own
