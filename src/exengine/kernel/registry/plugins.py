"""The plugin registry: names -> records, without importing; one name -> one validated class.

Responsible for listing, for loading exactly one plugin, for conflicts and for messages that help. Not
responsible for reading metadata (:mod:`~exengine.kernel.registry.discovery`), for importing
(:mod:`~exengine.kernel.registry.loading`), nor for the rules of a valid class
(:mod:`~exengine.kernel.registry.class_checks`).
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from exengine.kernel.errors import (
    ContractError,
    PluginBrokenError,
    PluginConflictError,
    PluginError,
    PluginNotFoundError,
)
from exengine.kernel.registry import discovery
from exengine.kernel.registry.names import (
    BACKENDS_GROUP,
    SOURCES_GROUP,
    fold,
    how_to_get,
    identity_fault,
    is_valid,
    providers,
    same_name,
)
from exengine.kernel.registry.records import NOT_LOADED, Outcome, PluginRecord, broken
from exengine.kernel.wording import either, listed, near_names


class PluginRegistry:
    """The plugins of one group.

    Parameters
    ----------
    group : str
        Group of the entry points.
    kind : str
        Word for a plugin of this group in messages: ``backend``, ``source``.
    path : iterable of str, optional
        Folders to scan; by default ``sys.path``.
    """

    def __init__(self, group: str, kind: str, path: Iterable[str] | None = None) -> None:
        self.group = group
        self.kind = kind
        self._path = None if path is None else tuple(path)
        self._lock = threading.RLock()
        self._records: Mapping[str, PluginRecord] | None = None

    # -- listing ---------------------------------------------------------------------------------

    def records(self) -> Mapping[str, PluginRecord]:
        """Return name -> record, sorted by name. Imports no plugin. One scan per process."""
        with self._lock:
            if self._records is None:
                self._records = MappingProxyType(self._collect())
            return self._records

    def refresh(self) -> None:
        """Forget the scan and all outcomes, because packages were installed or removed."""
        with self._lock:
            self._records = None

    def _collect(self) -> dict[str, PluginRecord]:
        by_key: dict[str, list[PluginRecord]] = {}
        unreadable: list[PluginRecord] = []
        for record in discovery.scan(self._path):
            if record.group == self.group:
                stage, fault = identity_fault(record.name, record.target)
                if fault and record.state == "found":
                    record.settle(broken(stage, fault))
                # A name that breaks the rules claims itself only, not the name that it folds to.
                claims = by_key.setdefault(record.name if stage == "name" else fold(record.name), [])
                # One distribution may register one class in both spellings of its name.
                if not any((c.location, c.target) == (record.location, record.target) for c in claims):
                    claims.append(record)
            elif not record.group:
                unreadable.append(record)
        records = {}
        for claims in by_key.values():
            record = claims[0] if len(claims) == 1 else self._conflict(claims)
            records[record.name] = record
        for record in unreadable:  # never hides a readable plugin
            name, *rest = record.identity
            while fold(name) in by_key or name in records:
                name += "-unreadable"
            records[name] = PluginRecord(name, *rest, outcome=record.outcome)
        return dict(sorted(records.items()))

    def _conflict(self, claims: list[PluginRecord]) -> PluginRecord:
        claims.sort(key=lambda record: (record.distribution, record.target))
        name = claims[0].name
        who = " and ".join(f"{claim.distribution} {claim.version}" for claim in claims)
        how = either(repr(claim.qualified_name) for claim in claims)
        error = f"{who} both register the {self.kind} {name!r}; write {how}, or uninstall one"
        outcome = Outcome("conflict", "name", error)
        return PluginRecord(name, self.group, "", "", "", candidates=tuple(claims), outcome=outcome)

    def __contains__(self, name: str) -> bool:
        try:
            self.find(name)
        except PluginError:
            return False
        return True

    # -- one name --------------------------------------------------------------------------------

    def find(self, name: str) -> PluginRecord:
        """Return the record of a name, without importing it.

        Parameters
        ----------
        name : str
            ``-`` and ``_`` are the same. ``distribution:name`` settles a conflict.

        Raises
        ------
        PluginNotFoundError
            With close matches and the installed plugins.
        PluginConflictError
            If two distributions claim the name.
        """
        distribution, _, plain = name.rpartition(":")
        record = self._record_of(plain)
        if record is not None and distribution:
            chosen = [claim for claim in record.claims if same_name(claim.distribution, distribution)]
            if len(chosen) > 1:  # one distribution, two spellings
                chosen = [claim for claim in chosen if claim.name == plain]
            if len(chosen) == 1:
                return chosen[0]
            homes = ", ".join(claim.distribution for claim in record.claims)
            raise PluginNotFoundError(f"no {self.kind} {name!r}: {plain!r} comes from {homes}")
        if record is None:
            raise PluginNotFoundError(self._not_found(name))
        if record.state == "conflict":
            raise PluginConflictError(record.error)
        return record

    def _record_of(self, name: str) -> PluginRecord | None:
        records = self.records()
        if name in records:
            return records[name]
        key = fold(name)
        return next((records[known] for known in records if is_valid(known) and fold(known) == key), None)

    def _not_found(self, name: str) -> str:
        records = self.records()
        elsewhere = [known for known in providers(self.group) if known not in records]
        near = near_names(name, [known for known in [*records, *elsewhere] if known != name])
        text = f"no {self.kind} is called {name!r}"
        text += f"; did you mean {either(map(repr, near))}? " if near else ". "
        text += f"Installed: {listed(records)}."
        wanted = next((known for known in (fold(name), *near[:1]) if known in elsewhere), "")
        return f"{text} {how_to_get(wanted, self.group)}" if wanted else text

    def load(self, name: str) -> Any:
        """Return the class of a name: imported, and valid by contract and documentation.

        Raises
        ------
        PluginNotFoundError, PluginConflictError
            As :meth:`find`.
        PluginBrokenError
            If its import fails, in any way.
        ContractError
            If it breaks the contract, or is not documented; ``findings`` has the codes.
        """
        record = self.find(name)
        with self._lock:
            if record.outcome is NOT_LOADED:
                loaded = self._load(record)
                if record.outcome is NOT_LOADED:  # a plugin may load itself while it is imported
                    record.settle(loaded)
        outcome = record.outcome
        if outcome.state == "valid":
            return outcome.loaded
        where = f"{record.name!r} of {record.distribution} {record.version}"
        if outcome.state == "invalid":
            faults = "\n".join(f"  {finding}" for finding in outcome.findings)
            raise ContractError(f"the {self.kind} {where} is not valid:\n{faults}", outcome.findings)
        error = PluginBrokenError(f"the {self.kind} {where} is installed, but broken: {outcome.error}")
        error.name = record.target
        raise error

    def _load(self, record: PluginRecord) -> Outcome:
        from exengine.kernel.registry.loading import load_class

        return load_class(record.target, self.group)

    # -- many ------------------------------------------------------------------------------------

    def probe(self, *, isolated: bool = False) -> Mapping[str, PluginRecord]:
        """Return name -> record, each with the outcome of loading it. Nothing is raised.

        Parameters
        ----------
        isolated : bool
            Load each plugin in a process of its own, with a time limit, and import none here. A plugin
            that ends its process, or never returns, is broken like any other. A plugin that is valid
            there has no ``loaded``, and is still to be loaded here: its entry is a copy.
        """
        claims = [claim for record in self.records().values() for claim in record.claims]
        if not isolated:
            for claim in claims:
                self._try(claim)
            return self.records()
        seen = {
            claim: claim.with_outcome(outcome)
            for claim, outcome in self._probe(claims)
            if outcome.state == "valid"
        }

        def view(record: PluginRecord) -> PluginRecord:
            if not record.candidates:
                return seen.get(record, record)
            return record.with_outcome(record.outcome, tuple(map(view, record.candidates)))

        return MappingProxyType({name: view(record) for name, record in self.records().items()})

    def examine(self, records: Sequence[PluginRecord]) -> None:
        """Probe each plugin in a process of its own, and load here those that are valid. Nothing is raised.

        Parameters
        ----------
        records : sequence of PluginRecord
            Records of this registry; those that have an outcome keep it.
        """
        for record, probed in self._probe(records):
            if probed.state == "valid":
                self._try(record, probed)

    def _probe(self, records: Sequence[PluginRecord]) -> list[tuple[PluginRecord, Outcome]]:
        """Return the outcomes of probes, and settle the records of plugins that are not valid."""
        from exengine.kernel.registry.probing import probe

        waiting = [record for record in records if record.state == "found"]
        found = list(zip(waiting, probe(waiting), strict=True))
        with self._lock:
            for record, outcome in found:
                if outcome.state != "valid" and record.state == "found":
                    record.settle(outcome)
        return found

    def _try(self, record: PluginRecord, probed: Outcome | None = None) -> None:
        """Load a record that has no outcome yet; a probe, if any, found it valid in another process."""
        with self._lock:
            if record.state != "found":
                return
            outcome = self._load(record)
            if probed is not None:
                outcome = outcome._replace(source=probed.source)
                if outcome.state == "broken":
                    error = f"it can be imported only in a process of its own: {outcome.error}"
                    outcome = outcome._replace(error=error)
            if record.state == "found":
                record.settle(outcome)


BACKENDS = PluginRegistry(BACKENDS_GROUP, "backend")
"""The installed storage backends."""

SOURCES = PluginRegistry(SOURCES_GROUP, "source")
"""The installed frame sources."""


def refresh_plugins() -> None:
    """Scan for plugins again at the next use, because distributions were installed or removed."""
    BACKENDS.refresh()
    SOURCES.refresh()


def backends() -> Mapping[str, PluginRecord]:
    """Return name -> record of every installed storage backend, without importing any.

    Examples
    --------
    >>> "ndram" in backends()
    True
    """
    return BACKENDS.records()


def sources() -> Mapping[str, PluginRecord]:
    """Return name -> record of every installed frame source, without importing any.

    Examples
    --------
    >>> "simulated" in sources()
    True
    """
    return SOURCES.records()
