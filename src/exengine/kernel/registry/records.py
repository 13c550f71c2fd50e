"""What is known of a plugin: one record per registered name, whatever state the plugin is in."""

from typing import Any


class PluginRecord:
    """One entry point, as found; and what loading it told.

    Attributes
    ----------
    name : str
        Of the entry point; what a config names.
    group : str
        ``exengine.storage_backends`` or ``exengine.frame_sources``.
    target : str
        ``module:attribute``, as registered.
    distribution, version, summary : str
        Of the package, from its metadata.
    location : str
        The folder of the metadata.
    state : {'found', 'valid', 'invalid', 'broken', 'conflict'}
        ``found``: not loaded yet.
    stage : {'', 'metadata', 'name', 'target', 'import', 'attribute', 'contract'}
        Where it went wrong.
    error : str
        What went wrong, in a line or two.
    traceback : str
        Of the plugin's exception, for ``--debug``.
    output : str
        What the plugin printed while it was imported.
    source : (str, int)
        File and line of the class, where a probe found them.
    findings : tuple of Finding
        Faults of the contract and of the documentation.
    candidates : tuple of PluginRecord
        In a conflict: who claims the name.
    """

    __slots__ = (
        "candidates",
        "distribution",
        "error",
        "findings",
        "group",
        "loaded",
        "location",
        "name",
        "output",
        "source",
        "stage",
        "state",
        "summary",
        "target",
        "traceback",
        "version",
    )

    def __init__(
        self,
        name: str,
        group: str,
        target: str,
        distribution: str,
        version: str,
        summary: str = "",
        location: str = "",
    ) -> None:
        self.name = name
        self.group = group
        self.target = target
        self.distribution = distribution
        self.version = version
        self.summary = summary
        self.location = location
        self.state = "found"
        self.stage = self.error = self.traceback = self.output = ""
        self.source = ("", 0)
        self.findings: tuple[Any, ...] = ()
        self.candidates: tuple[PluginRecord, ...] = ()
        self.loaded: type | None = None

    def mark(self, state: str, stage: str, error: str, traceback: str = "") -> "PluginRecord":
        """Note a fault and return the record."""
        self.state, self.stage, self.error, self.traceback = state, stage, error, traceback
        return self

    @property
    def qualified_name(self) -> str:
        """``distribution:name``, which no other record has."""
        return f"{self.distribution}:{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "summary": self.summary,
            "target": self.target,
            "state": self.state,
            "stage": self.stage,
            "error": self.error,
            "traceback": self.traceback,
            "output": self.output,
            "findings": [finding.to_dict() for finding in self.findings],
            "candidates": [record.qualified_name for record in self.candidates],
        }

    def __repr__(self) -> str:
        return f"PluginRecord({self.qualified_name!r}, {self.state!r})"
