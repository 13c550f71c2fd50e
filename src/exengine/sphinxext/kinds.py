"""What the pages of backends and of frame sources differ in, and what the project says of its plugins."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exengine.checks.examples import ExampleRun
from exengine.kernel.registry.plugins import BACKENDS_GROUP, SOURCES_GROUP
from exengine.kernel.registry.records import PluginRecord
from exengine.sphinxext.results import Results

MARK = ".. Made by exengine.sphinxext from an installed plugin; changes are overwritten.\n"
"""First line of every generated file."""

KERNEL = "exengine"
"""The distribution that needs no installing."""


@dataclass(frozen=True)
class Kind:
    """What differs between the pages of backends and those of frame sources."""

    group: str
    name: str
    plural: str
    folder: str
    """Of the pages; and the verb of the command line."""
    section: str
    """Of the config."""
    name_key: str
    """The key in that section that names the plugin."""


BACKENDS = Kind(BACKENDS_GROUP, "storage backend", "Storage backends", "backends", "storage", "backend")
SOURCES = Kind(SOURCES_GROUP, "frame source", "Frame sources", "sources", "source", "name")
KINDS = (BACKENDS, SOURCES)


@dataclass(frozen=True)
class Setup:
    """What the documentation project says of its plugins, and what was measured for it.

    Attributes
    ----------
    local : mapping of str to str
        Distribution -> folder to install it from, in a clone.
    own : frozenset of str
        Normalized distributions whose text the project owns, so that faults in it are shown as such.
    examples : mapping of str to ExampleRun
        Qualified name -> what happened when the plugin's example was run.
    results : mapping of str to Results
        Qualified name -> what the conformance kit found.
    """

    local: Mapping[str, str] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    examples: Mapping[str, ExampleRun] = field(default_factory=dict)
    results: Mapping[str, Results] = field(default_factory=dict)

    def owns(self, record: PluginRecord) -> bool:
        """Return whether the text of a plugin is the project's own."""
        return normalized(record.distribution) in self.own


def normalized(distribution: str) -> str:
    """Return the name of a distribution in the form in which names are compared."""
    return distribution.lower().replace("_", "-").replace(".", "-")
