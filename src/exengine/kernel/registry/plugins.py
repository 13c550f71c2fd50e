"""The plugin registry: names -> records, without importing; one name -> one validated class.

Responsible for listing, for loading exactly one plugin and isolating what it does, for conflicts
and for messages that help. Not responsible for what makes a class valid
(:mod:`~exengine.kernel.registry.class_checks`), nor for reading metadata
(:mod:`~exengine.kernel.registry.discovery`).
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any

from exengine.kernel.errors import (
    ContractError,
    PluginBrokenError,
    PluginConflictError,
    PluginError,
    PluginNotFoundError,
    describe,
)
from exengine.kernel.registry import discovery
from exengine.kernel.registry.records import PluginRecord
from exengine.kernel.wording import near_names

if TYPE_CHECKING:
    import io

    from exengine.kernel.data_storage_base import DataStorage
    from exengine.kernel.frame_source_base import FrameSource

BACKENDS_GROUP = "exengine.storage_backends"
SOURCES_GROUP = "exengine.frame_sources"

# Names that people will ask for, and the folder of our repository that has them.
_PROVIDERS = {
    "ndtiff": "exengine-ndstorage",
    "ndram": "exengine-ndstorage",
    "micromanager": "exengine-micromanager",
}


class PluginRegistry:
    """The plugins of one group.

    Parameters
    ----------
    group : str
        Of the entry points.
    kind : str
        What a plugin of this group is called in messages: ``backend``, ``source``.
    path : iterable of str, optional
        Folders to scan; by default ``sys.path``.
    """

    def __init__(self, group: str, kind: str, path: Iterable[str] | None = None) -> None:
        self.group = group
        self.kind = kind
        self._path = None if path is None else tuple(path)
        self._lock = threading.RLock()
        self._records: Mapping[str, PluginRecord] | None = None
        self._by_key: dict[str, PluginRecord] = {}

    # -- listing ---------------------------------------------------------------------------------

    def records(self) -> Mapping[str, PluginRecord]:
        """Return name -> record, sorted by name. Imports no plugin. One scan per process."""
        with self._lock:
            if self._records is None:
                records = self._collect()
                self._by_key = {_key(name): record for name, record in records.items()}
                self._records = MappingProxyType(records)
            return self._records

    def refresh(self) -> None:
        """Forget the scan and what was loaded: packages were installed or removed."""
        with self._lock:
            self._records = None

    def _collect(self) -> dict[str, PluginRecord]:
        by_key: dict[str, list[PluginRecord]] = {}
        unreadable: list[PluginRecord] = []
        for record in discovery.scan(self._path):
            if record.group == self.group:
                check_identity(record)
                claims = by_key.setdefault(_key(record.name), [])
                # One distribution may register one class in both spellings of its name.
                if not any((c.location, c.target) == (record.location, record.target) for c in claims):
                    claims.append(record)
            elif not record.group:
                unreadable.append(record)
        records = {}
        for claims in by_key.values():
            record = claims[0] if len(claims) == 1 else self._conflict(claims)
            records[record.name] = record
        for record in unreadable:  # takes its name from nobody
            while _key(record.name) in by_key or record.name in records:
                record.name += "-unreadable"
            records[record.name] = record
        return dict(sorted(records.items()))

    def _conflict(self, claims: list[PluginRecord]) -> PluginRecord:
        claims.sort(key=lambda record: (record.distribution, record.target))
        record = PluginRecord(claims[0].name, self.group, "", "", "")
        record.candidates = tuple(claims)
        who = " and ".join(f"{claim.distribution} {claim.version}" for claim in claims)
        how = " or ".join(repr(claim.qualified_name) for claim in claims)
        return record.mark(
            "conflict",
            "name",
            f"{who} both register the {self.kind} {record.name!r}; write {how}, or uninstall one",
        )

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
            With close matches and what is installed.
        PluginConflictError
            When two distributions claim the name.
        """
        self.records()  # fills the index
        distribution, _, plain = name.rpartition(":")
        record = self._by_key.get(_key(plain))
        if record is not None and distribution:
            claims = record.candidates or (record,)
            chosen = [claim for claim in claims if _key(claim.distribution) == _key(distribution)]
            if len(chosen) > 1:  # one distribution, two spellings
                chosen = [claim for claim in chosen if claim.name == plain]
            if len(chosen) == 1:
                return chosen[0]
            raise PluginNotFoundError(
                f"no {self.kind} {name!r}: {plain!r} comes from {', '.join(c.distribution for c in claims)}"
            )
        if record is None:
            raise PluginNotFoundError(self._not_found(name))
        if record.state == "conflict":
            raise PluginConflictError(record.error)
        return record

    def _not_found(self, name: str) -> str:
        installed = ", ".join(self.records()) or "none"
        others = [known for known in [*self.records(), *self._known_elsewhere()] if known != name]
        near = near_names(name, others)
        text = f"no {self.kind} is called {name!r}"
        if near:
            text += f"; did you mean {' or '.join(map(repr, near))}?"
        text += f" Installed: {installed}." if near else f". Installed: {installed}."
        wanted = name if _key(name) in _PROVIDERS else near[0] if near else ""
        if wanted in self._known_elsewhere():
            text += (
                f" {wanted!r} comes with the plugin {_PROVIDERS[wanted]}: "
                f"in a clone of ExEngine run pip install ./plugins/{_PROVIDERS[wanted]}"
            )
        return text

    def _known_elsewhere(self) -> list[str]:
        sources = {"micromanager"}
        return [
            name
            for name in _PROVIDERS
            if name not in self.records() and (name in sources) == (self.group == SOURCES_GROUP)
        ]

    def load(self, name: str) -> Any:
        """Return the class of a name: imported, and valid by contract and documentation.

        Raises
        ------
        PluginNotFoundError, PluginConflictError
            As :meth:`find`.
        PluginBrokenError
            When its import fails, in any way.
        ContractError
            When it breaks the contract, or is not documented; ``findings`` has the codes.
        """
        record = self.find(name)
        with self._lock:
            return self._load(record)

    def _load(self, record: PluginRecord) -> Any:
        if record.loaded is None and record.state in ("found", "valid"):  # valid by a probe elsewhere
            record.state = "found"
            with _user_interrupt() as interrupted:
                loaded = _import_target(record, interrupted)
                if record.state == "found":
                    self._check(record, loaded)
                if interrupted():  # and the plugin caught it
                    record.state, record.loaded = "found", None
                    raise KeyboardInterrupt
        if record.state == "valid":
            return record.loaded
        where = f"{record.name!r} of {record.distribution} {record.version}"
        if record.state == "invalid":
            faults = "\n".join(f"  {finding}" for finding in record.findings)
            raise ContractError(f"the {self.kind} {where} is not valid:\n{faults}", record.findings)
        error = PluginBrokenError(f"the {self.kind} {where} is installed, but broken: {record.error}")
        error.name = record.target
        raise error

    def _check(self, record: PluginRecord, loaded: Any) -> None:
        from exengine.kernel.registry.class_checks import check_class

        findings = tuple(check_class(loaded, self.base_class))
        record.findings = findings
        if findings:
            record.mark("invalid", "contract", "; ".join(str(finding) for finding in findings))
        else:
            record.state, record.loaded = "valid", loaded

    @property
    def base_class(self) -> "type[DataStorage] | type[FrameSource]":
        """What a plugin of this group is a subclass of."""
        if self.group == SOURCES_GROUP:
            from exengine.kernel.frame_source_base import FrameSource

            return FrameSource
        from exengine.kernel.data_storage_base import DataStorage

        return DataStorage

    def probe(self, *, isolated: bool = False) -> Mapping[str, PluginRecord]:
        """Load every plugin, so that each record has its state; nothing is raised.

        Parameters
        ----------
        isolated : bool
            Each in a process of its own, with a limit on its time: a plugin that ends the process,
            or never ends, is found broken like any other. Nothing is imported here, and ``loaded``
            stays None; :meth:`load` imports a valid one.
        """
        claims = [claim for record in self.records().values() for claim in record.candidates or (record,)]
        if isolated:
            from exengine.kernel.registry.probing import probe_records

            probe_records([claim for claim in claims if claim.state == "found"], self.group, self.kind)
            return self.records()
        for claim in claims:
            self.examine(claim)
        return self.records()

    def examine(self, record: PluginRecord) -> PluginRecord:
        """Load the plugin of a record, which then has its state; nothing is raised."""
        with self._lock, contextlib.suppress(PluginError):  # the record says it
            self._load(record)
        return record


def _key(name: str) -> str:
    return name.replace("-", "_")


def check_identity(record: PluginRecord) -> None:
    """Mark a record as broken whose name or target breaks the rules, without importing anything."""
    if record.state != "found":
        return
    name = record.name
    good = name.isascii() and name.replace("-", "").replace("_", "").isalnum() and name[:1].isalpha()
    if not good or name != name.lower() or len(name) > 64:
        record.mark(
            "broken",
            "name",
            f"{name!r:.80} is no valid name: a-z first, then a-z, 0-9, '_', '-', at most 64 in all",
        )
        return
    module, colon, attribute = record.target.partition(":")
    if not colon or not all(part.isidentifier() for part in (module + "." + attribute).split(".")):
        record.mark("broken", "target", f"{record.target!r:.80} is no valid target: it must be module:Class")


def _import_target(record: PluginRecord, interrupted: Callable[[], bool]) -> Any:
    """Import the object of an entry point; whatever the plugin does becomes part of the record.

    Only an interrupt by the user passes through: the record is then as it was.
    """
    import importlib
    import traceback

    module_name, _, attribute = record.target.partition(":")
    stage = "import"
    loaded: Any = None
    printed = _captured_text()
    try:
        with contextlib.redirect_stdout(printed):
            loaded = importlib.import_module(module_name)
            stage = "attribute"
            for part in attribute.split("."):
                loaded = getattr(loaded, part)
    except BaseException as error:  # SystemExit and KeyboardInterrupt of a plugin are its faults, too
        if interrupted():
            raise KeyboardInterrupt from error
        doing = "importing" if stage == "import" else "reading"
        record.mark(
            "broken",
            stage,
            f"{doing} {record.target} raised {describe(error)}",
            "".join(traceback.format_exception(error))[-20_000:],
        )
    finally:
        record.output = printed.getvalue()[:10_000]
        if record.output:
            sys.stderr.write(record.output)
    return loaded


def _captured_text() -> "io.StringIO":
    """Return a text stream that a plugin cannot close."""
    import io

    class Captured(io.StringIO):
        def close(self) -> None:
            pass

    return Captured()


@contextlib.contextmanager
def _user_interrupt() -> Iterator[Callable[[], bool]]:
    """Give what tells whether the user pressed Ctrl-C, and no plugin raised KeyboardInterrupt by itself.

    Signals reach the main thread only; in another one every KeyboardInterrupt is the plugin's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    import signal

    pressed = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        if callable(before):
            before(number, frame)

    if not callable(before):  # ignored, or not Python's: nothing would be raised
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        if signal.getsignal(signal.SIGINT) is note:  # not one that the plugin has set
            signal.signal(signal.SIGINT, before)


BACKENDS = PluginRegistry(BACKENDS_GROUP, "backend")
"""The storage backends that are installed."""

SOURCES = PluginRegistry(SOURCES_GROUP, "source")
"""The frame sources that are installed."""


def refresh_plugins() -> None:
    """Scan for plugins again at the next use: distributions were installed or removed."""
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
