"""The plugin registry: lists plugins without importing them, and loads one validated class by name.

It is responsible for listing plugins, loading a single plugin, detecting conflicts, and giving helpful error
messages. It is not responsible for reading metadata (:mod:`~exengine.kernel.registry.discovery`), for
importing (:mod:`~exengine.kernel.registry.loading`), or for the rules that a valid class must follow
(:mod:`~exengine.kernel.registry.class_checks`).
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
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
from exengine.kernel.registry.records import NOT_LOADED, Outcome, PluginRecord, PluginRecords, broken
from exengine.kernel.wording import either, listed, near_names


class PluginRegistry:
    """The plugins in one entry-point group.

    Parameters
    ----------
    group : str
        Name of the entry-point group.
    kind : str
        Word used in messages for a plugin in this group, such as ``backend`` or ``source``.
    path : iterable of str, optional
        Folders to scan; by default ``sys.path``.
    """

    def __init__(self, group: str, kind: str, path: Iterable[str] | None = None) -> None:
        self.group = group
        self.kind = kind
        self._path = None if path is None else tuple(path)
        self._lock = threading.RLock()
        self._records: PluginRecords | None = None

    def __repr__(self) -> str:
        return f"<registry of {listed(self.records())}>"

    def _repr_html_(self) -> str:
        """Return a table of the installed plugins, for notebooks."""
        return self.records()._repr_html_()

    # -- listing ---------------------------------------------------------------------------------

    def records(self) -> PluginRecords:
        """Return a mapping from name to record, sorted by name.

        No plugin is imported. Package metadata is scanned once, and again only after :meth:`refresh`.
        """
        with self._lock:
            if self._records is None:
                self._records = PluginRecords(self._collect(), self.kind)
            return self._records

    def refresh(self) -> None:
        """Discard all records and outcomes. Call this after packages have been installed or removed."""
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
                # An invalid name claims only that exact spelling, not the folded name.
                claims = by_key.setdefault(record.name if stage == "name" else fold(record.name), [])
                # A distribution may register the same class under both spellings of its name.
                if not any((c.location, c.target) == (record.location, record.target) for c in claims):
                    claims.append(record)
            elif not record.group:
                unreadable.append(record)
        records = {}
        for claims in by_key.values():
            record = claims[0] if len(claims) == 1 else self._conflict(claims)
            records[record.name] = record
        for record in unreadable:  # an unreadable distribution must not hide a readable plugin
            name, *rest = record.identity
            while fold(name) in by_key or name in records:
                name += "-unreadable"
            records[name] = PluginRecord(name, *rest, outcome=record.outcome)
        return dict(sorted(records.items()))

    def _conflict(self, claims: list[PluginRecord]) -> PluginRecord:
        claims.sort(key=lambda record: (record.distribution, record.target))
        name = claims[0].name
        claimants = " and ".join(f"{claim.distribution} {claim.version}" for claim in claims)
        how = either(repr(claim.qualified_name) for claim in claims)
        all_of, others = ("both", "one") if len(claims) == 2 else ("all", "all but one")
        choice = f"use the name {how}, or uninstall {others} of the distributions"
        error = f"{claimants} {all_of} register the {self.kind} {name!r}; {choice}"
        outcome = Outcome("conflict", "name", error)
        return PluginRecord(name, self.group, "", "", "", candidates=tuple(claims), outcome=outcome)

    def __contains__(self, name: str) -> bool:
        try:
            self.find(name)
        except PluginError:
            return False
        return True

    # -- a single plugin -------------------------------------------------------------------------

    def find(self, name: str) -> PluginRecord:
        """Return the record for a name, without importing the plugin.

        Parameters
        ----------
        name : str
            Name of the plugin, in which ``-`` and ``_`` are equivalent. If several distributions register the
            name, use ``distribution:name``.

        Raises
        ------
        PluginNotFoundError
            If the plugin is not installed; the message lists close matches and the installed plugins.
        PluginConflictError
            If two distributions claim the name.
        """
        distribution, _, plain = name.rpartition(":")
        record = self._record_of(plain)
        if record is not None and distribution:
            chosen = [claim for claim in record.claims if same_name(claim.distribution, distribution)]
            if len(chosen) > 1:  # one distribution registers both spellings
                chosen = [claim for claim in chosen if claim.name == plain]
            if len(chosen) == 1:
                return chosen[0]
            homes = ", ".join(claim.distribution for claim in record.claims)
            raise PluginNotFoundError(
                f"no {self.kind} is called {name!r}; {plain!r} is registered by {homes}"
            )
        if record is None:
            raise PluginNotFoundError(self._not_found(name))
        if record.state == "conflict":
            raise PluginConflictError(record.error)
        return record

    def _record_of(self, name: str) -> PluginRecord | None:
        records = self.records().by_name
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
        """Import a plugin by name, check its contract and documentation, and return its class.

        Raises
        ------
        PluginNotFoundError, PluginConflictError
            Under the same conditions as in :meth:`find`.
        PluginBrokenError
            If the import fails for any reason.
        ContractError
            If the class violates the contract or its documentation is faulty. The attribute ``findings``
            lists the faults with their codes.
        """
        record = self.find(name)
        with self._lock:
            outcome = record.outcome
            if outcome is NOT_LOADED:
                loaded = self._load(record)
                if record.outcome is NOT_LOADED:  # false if the import has already loaded this plugin
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

    # -- several plugins -------------------------------------------------------------------------

    def probe(self, *, isolated: bool = False) -> Mapping[str, PluginRecord]:
        """Try to load every plugin, and return a mapping from name to record.

        Faults in plugins are recorded, not raised.

        Parameters
        ----------
        isolated : bool
            Load each plugin in its own process, with a time limit, instead of in this process. A plugin
            that terminates its process or never returns is reported as broken. A plugin that is found to
            be valid has not yet been loaded in this process: its entry is a copy of the record, and
            ``loaded`` is None.
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

        return PluginRecords({name: view(record) for name, record in self.records().items()}, self.kind)

    def examine(self, records: Sequence[PluginRecord]) -> None:
        """Probe each plugin in its own process, then load the valid plugins in this process.

        Faults in plugins are recorded, not raised.

        Parameters
        ----------
        records : sequence of PluginRecord
            Records from this registry. Any record that already has an outcome keeps it.
        """
        for record, probed in self._probe(records):
            if probed.state == "valid":
                self._try(record, probed)

    def _probe(self, records: Sequence[PluginRecord]) -> list[tuple[PluginRecord, Outcome]]:
        """Return the outcome of each probe; outcomes other than "valid" are also stored in the records."""
        from exengine.kernel.registry.probing import probe

        waiting = [record for record in records if record.state == "found"]
        found = list(zip(waiting, probe(waiting), strict=True))
        with self._lock:
            for record, outcome in found:
                if outcome.state != "valid" and record.state == "found":
                    record.settle(outcome)
        return found

    def _try(self, record: PluginRecord, probed: Outcome | None = None) -> None:
        """Load a plugin that has no outcome yet; ``probed`` is its valid outcome from a probe, if any."""
        with self._lock:
            if record.state != "found":
                return
            outcome = self._load(record)
            if probed is not None:
                outcome = outcome._replace(source=probed.source)
                if outcome.state == "broken":
                    error = f"the plugin can be imported only in a separate process: {outcome.error}"
                    outcome = outcome._replace(error=error)
            if record.state == "found":
                record.settle(outcome)


BACKENDS = PluginRegistry(BACKENDS_GROUP, "backend")
"""The installed storage backends."""

SOURCES = PluginRegistry(SOURCES_GROUP, "source")
"""The installed frame sources."""


def refresh_plugins() -> None:
    """Rescan for plugins on the next use, for example after packages have been installed or removed."""
    BACKENDS.refresh()
    SOURCES.refresh()


def backends() -> Mapping[str, PluginRecord]:
    """Return a mapping from name to record for all installed storage backends, without importing them.

    Examples
    --------
    >>> "ndram" in backends()
    True
    """
    return BACKENDS.records()


def sources() -> Mapping[str, PluginRecord]:
    """Return a mapping from name to record for all installed frame sources, without importing them.

    Examples
    --------
    >>> "simulated" in sources()
    True
    """
    return SOURCES.records()
