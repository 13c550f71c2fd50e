"""The two kinds of plugins that have pages, and the documentation project's settings for plugins."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exengine.checks.describe import config_keys
from exengine.kernel.registry.names import BACKENDS_GROUP, SOURCES_GROUP, fold
from exengine.kernel.registry.records import PluginRecord

MARK = ".. Made by exengine.sphinxext from an installed plugin; changes are overwritten.\n"
"""The first line of every generated file."""

KERNEL = "exengine"
"""The distribution of ExEngine itself, which needs no further installation."""


@dataclass(frozen=True)
class Kind:
    """The features in which the pages of backends and those of frame sources differ."""

    group: str
    name: str
    plural: str
    folder: str
    """Folder of the pages; also the name of the group of commands on the command line."""

    @property
    def section(self) -> str:
        """The section of the config that is used for plugins of this kind."""
        return config_keys(self.group)[0]


BACKENDS = Kind(BACKENDS_GROUP, "storage backend", "Storage backends", "backends")
SOURCES = Kind(SOURCES_GROUP, "frame source", "Frame sources", "sources")
KINDS = (BACKENDS, SOURCES)


@dataclass(frozen=True)
class Setup:
    """The documentation project's settings for plugins.

    Attributes
    ----------
    local : mapping of str to str
        Folded name of a distribution -> folder in a clone from which to install it.
    own : frozenset of str
        Folded names of the distributions that the project owns. Sphinx reports faults in their docstrings.
    """

    local: Mapping[str, str] = field(default_factory=dict)
    own: frozenset[str] = frozenset()

    def owns(self, record: PluginRecord) -> bool:
        """Return whether the project owns a plugin's docstrings."""
        return fold(record.distribution) in self.own
