"""Plugin records: an immutable identity from the package metadata, and a loading outcome that is set once."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from exengine.kernel.wording import html_table, human_count, listed

if TYPE_CHECKING:
    from exengine.kernel.registry.codes import Finding

State = Literal["found", "valid", "invalid", "broken", "conflict"]


class Outcome(NamedTuple):
    """The result of an attempt to load a plugin.

    Attributes
    ----------
    state, stage, error, traceback, findings, output, source
        See :class:`PluginRecord`.
    loaded : type or None
        The class, if this process imported it.
    """

    state: State
    stage: str = ""
    error: str = ""
    traceback: str = ""
    findings: tuple["Finding", ...] = ()  # a string of the whole type would take milliseconds to compile
    output: str = ""
    source: tuple[str, int] = ("", 0)
    loaded: type | None = None


STATE_TEXTS = {
    "found": "installed",
    "valid": "ready",
    "invalid": "rejected: violates the contract",
    "broken": "cannot be loaded",
    "conflict": "two packages claim the name",
}
"""Maps each state to a description in plain words."""

NOT_LOADED = Outcome("found")
"""The outcome of a record until its plugin is loaded."""


def broken(stage: str, error: str, traceback: str = "", output: str = "") -> Outcome:
    """Return the outcome of a plugin that cannot be loaded."""
    return Outcome("broken", stage, error, traceback, output=output)


class PluginRecord:
    """One entry point, with an identity that never changes and an outcome that is set at most once.

    Attributes
    ----------
    name : str
        Name of the entry point, as used in a config.
    group : str
        ``exengine.storage_backends``, ``exengine.frame_sources`` or ``exengine.hooks``.
    target : str
        ``module:attribute``, as registered.
    distribution, version, summary : str
        Fields of the package metadata.
    location : str
        Folder of the metadata.
    candidates : tuple of PluginRecord
        In a conflict, the records that claim the name; otherwise empty.
    state : {'found', 'valid', 'invalid', 'broken', 'conflict'}
        ``found`` means that the plugin has not been loaded yet.
    stage : {'', 'metadata', 'name', 'target', 'import', 'attribute', 'contract'}
        The step that failed.
    error : str
        A description of the fault, one or two lines long.
    traceback : str
        Traceback of the plugin's exception, shown with ``--debug``.
    output : str
        Text that the plugin printed while it was imported.
    source : (str, int)
        Source file and line number of the class, if a probe found them.
    findings : tuple of Finding
        Faults in the class's interface and documentation.
    loaded : type or None
        The class of a valid plugin that this process has imported.
    """

    __slots__ = (
        "_outcome",
        "candidates",
        "distribution",
        "group",
        "location",
        "name",
        "summary",
        "target",
        "version",
    )
    name: str
    group: str
    target: str
    distribution: str
    version: str
    summary: str
    location: str
    candidates: "tuple[PluginRecord, ...]"
    _outcome: Outcome | None

    def __init__(
        self,
        name: str,
        group: str,
        target: str,
        distribution: str,
        version: str,
        summary: str = "",
        location: str = "",
        *,
        candidates: "tuple[PluginRecord, ...]" = (),
        outcome: Outcome | None = None,
    ) -> None:
        values = (outcome, candidates, distribution, group, location, name, summary, target, version)
        for field, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, field, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a PluginRecord cannot be changed: {name} of {self.qualified_name!r} is fixed")

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    # -- the outcome -----------------------------------------------------------------------------

    @property
    def outcome(self) -> Outcome:
        """The result of loading the plugin, or ``NOT_LOADED``."""
        return self._outcome or NOT_LOADED

    def settle(self, outcome: Outcome) -> None:
        """Set the outcome.

        Raises
        ------
        RuntimeError
            If the record already has an outcome.
        """
        if self._outcome is not None:
            raise RuntimeError(f"the outcome of {self.qualified_name!r} is already set: {self.state}")
        object.__setattr__(self, "_outcome", outcome)

    def with_outcome(
        self, outcome: Outcome | None, candidates: "tuple[PluginRecord, ...] | None" = None
    ) -> "PluginRecord":
        """Return a record of the same plugin with a different outcome."""
        return PluginRecord(
            *self.identity, candidates=self.candidates if candidates is None else candidates, outcome=outcome
        )

    @property
    def state(self) -> State:
        return self.outcome.state

    @property
    def state_text(self) -> str:
        """The state in plain words."""
        return STATE_TEXTS[self.state]

    @property
    def stage(self) -> str:
        return self.outcome.stage

    @property
    def error(self) -> str:
        return self.outcome.error

    @property
    def traceback(self) -> str:
        return self.outcome.traceback

    @property
    def output(self) -> str:
        return self.outcome.output

    @property
    def source(self) -> tuple[str, int]:
        return self.outcome.source

    @property
    def findings(self) -> "tuple[Finding, ...]":
        return self.outcome.findings

    @property
    def loaded(self) -> type | None:
        return self.outcome.loaded

    # -- the identity ----------------------------------------------------------------------------

    @property
    def identity(self) -> tuple[str, str, str, str, str, str, str]:
        """The constructor arguments for another record of the same plugin."""
        return (
            self.name, self.group, self.target, self.distribution, self.version, self.summary, self.location
        )  # fmt: skip

    @property
    def qualified_name(self) -> str:
        """The name in the form ``distribution:name``, which is unique within the group."""
        return f"{self.distribution}:{self.name}"

    @property
    def module(self) -> str:
        """The module that the target names."""
        return self.target.partition(":")[0]

    @property
    def package(self) -> str:
        """The top-level package of the target."""
        return self.module.partition(".")[0]

    @property
    def claims(self) -> "tuple[PluginRecord, ...]":
        """The records of individual plugins: the candidates in a conflict, or else this record alone."""
        return self.candidates or (self,)

    def to_dict(self) -> dict[str, Any]:
        """Return the record in a form that can be written as JSON."""
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

    # -- copies and pickles ----------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {field: getattr(self, field) for field in self.__slots__}

    def __setstate__(self, state: "dict[str, Any] | tuple[None, dict[str, Any]]") -> None:
        """Restore a record; pickles from ExEngine 1.0 store the outcome's fields alongside the identity."""
        fields = dict(state[1] if isinstance(state, tuple) else state)
        if "_outcome" not in fields:
            outcome = Outcome(**{field: fields.pop(field) for field in Outcome._fields})
            fields["_outcome"] = None if outcome == NOT_LOADED else outcome
        for field in self.__slots__:
            object.__setattr__(self, field, fields[field])


class PluginRecords(Mapping[str, PluginRecord]):
    """A read-only mapping from name to record, sorted by name, of the installed plugins of one kind.

    Parameters
    ----------
    records : dict of str to PluginRecord
        The records, which are not copied. Direct lookups in the attribute ``by_name`` are faster.
    kind : str
        The kind of the plugins, such as ``backend``.
    """

    __slots__ = ("_kind", "by_name")

    def __init__(self, records: dict[str, PluginRecord], kind: str) -> None:
        self.by_name = records
        self._kind = kind

    def __getitem__(self, name: str) -> PluginRecord:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def __repr__(self) -> str:
        return f"<{human_count(len(self), self._kind)}: {listed(self)}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks: name, package, state and summary of each plugin."""
        rows = [
            (
                name,
                f"{record.distribution} {record.version}",
                record.state_text,
                record.error or record.summary,
            )
            for name, record in self.items()
        ]
        return html_table(human_count(len(self), self._kind), rows, ("name", "package", "state", "summary"))
