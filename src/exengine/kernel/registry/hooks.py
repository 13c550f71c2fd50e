"""Loads plugins in the group ``exengine.hooks`` independently of each other, and rejects misspelled hooks.

This module collects implementations and records the faults of plugins that cannot be used. If a plugin
cannot be imported, names a hook that does not exist, or expects an argument that a hook does not pass, its
record describes the fault, and the other plugins still work. Several hook plugins, unlike backends, can have
the same name, and all of them are called. Threads are not managed here (see
:mod:`exengine.acquisition.observers`).

If the group has no plugins, this module imports nothing further, not even pluggy.
"""

import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exengine.kernel.errors import describe
from exengine.kernel.registry import discovery
from exengine.kernel.registry.loading import import_target, user_interrupt
from exengine.kernel.registry.names import HOOKS_GROUP, identity_fault
from exengine.kernel.registry.records import Outcome, PluginRecord, broken
from exengine.kernel.wording import did_you_mean

if TYPE_CHECKING:
    import pluggy

_PREFIX = "exengine_"


@dataclass(frozen=True)
class Implementation:
    """A plugin's function that implements a hook.

    Attributes
    ----------
    hook : str
        Name of the hook.
    record : PluginRecord
        Record of the plugin.
    function : callable
        The function, bound to the object that the plugin registered.
    arguments : tuple of str
        The hook's arguments that the function accepts, in the order of the function's parameters.
    """

    hook: str
    record: PluginRecord
    function: Callable[..., Any]
    arguments: tuple[str, ...]

    def __call__(self, given: Mapping[str, Any]) -> Any:
        """Call the function with only the arguments that it accepts."""
        return self.function(*(given[name] for name in self.arguments))


class HookManager:
    """The installed hook implementations.

    Parameters
    ----------
    path : iterable of str, optional
        Folders to scan; by default ``sys.path``.
    """

    def __init__(self, path: Iterable[str] | None = None) -> None:
        self._path = None if path is None else tuple(path)
        self._lock = threading.RLock()
        self._records: tuple[PluginRecord, ...] | None = None
        self._implementations: tuple[Implementation, ...] | None = None

    def records(self) -> tuple[PluginRecord, ...]:
        """Return the records of the plugins, sorted by name, without importing the plugins.

        Package metadata is scanned once, and again only after :meth:`refresh`.
        """
        with self._lock:
            if self._records is None:
                found = [record for record in discovery.scan(self._path) if record.group == HOOKS_GROUP]
                self._records = tuple(sorted(found, key=lambda record: (record.name, record.distribution)))
            return self._records

    def refresh(self) -> None:
        """Discard all records and outcomes. Call this after packages have been installed or removed."""
        with self._lock:
            self._records = self._implementations = None

    def load(self) -> tuple[PluginRecord, ...]:
        """Import and check every plugin once, and return the records; faults are recorded, not raised."""
        with self._lock:
            if self._implementations is None:
                records = self.records()
                self._implementations = _load_all(records) if records else ()
            return self.records()

    def implementations(self, hook: str | None = None) -> tuple[Implementation, ...]:
        """Return the implementations of one hook, or of all hooks, in the order in which they are called."""
        self.load()
        return tuple(one for one in self._implementations or () if hook is None or one.hook == hook)

    def refused(self) -> list[str]:
        """Return one line for each plugin that cannot be used, with the reason."""
        return [
            f"the hooks of {record.qualified_name} {record.version} cannot be used: {record.error}"
            for record in self.load()
            if record.state != "valid"
        ]

    def docs_sections(self, name: str, cls: type) -> "tuple[list[DocsSection], list[str]]":
        """Return the extra sections for a plugin's page.

        Parameters
        ----------
        name : str
            Name of the backend or frame source.
        cls : type
            Class of the plugin.

        Returns
        -------
        list of DocsSection
            The sections, in the order in which their implementations are called.
        list of str
            One line for each implementation that raised an exception or returned an invalid value.
        """
        sections: list[DocsSection] = []
        problems: list[str] = []
        implementations = self.implementations("exengine_docs_sections")
        if not implementations:
            return sections, problems
        from exengine.kernel.registry import hookspecs

        for implementation in implementations:
            try:
                returned = implementation({"name": name, "cls": cls})
                pairs = hookspecs.checked_sections(returned)
                sections += [DocsSection(implementation.record, title, text) for title, text in pairs]
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a fault in one plugin must not affect the rest of the page
                problems.append(failure(implementation, error))
        return sections, problems


@dataclass(frozen=True)
class DocsSection:
    """An extra section of a plugin's page.

    Attributes
    ----------
    record : PluginRecord
        Record of the plugin that contributed the section.
    title, text : str
        Title of the section, and its text as reStructuredText.
    """

    record: PluginRecord
    title: str
    text: str


def failure(implementation: Implementation, error: BaseException) -> str:
    """Return a one-line description of the exception that an implementation raised.

    Examples
    --------
    >>> record = PluginRecord("log", "exengine.hooks", "some:thing", "exengine-log", "1.0")
    >>> failure(Implementation("exengine_storage_opened", record, print, ()), ValueError("no"))
    'exengine-log:log raised in exengine_storage_opened: ValueError: no'
    """
    text = " ".join(describe(error, 300).split())
    return f"{implementation.record.qualified_name} raised in {implementation.hook}: {text}"


# -- loading -------------------------------------------------------------------------------------


def _load_all(records: tuple[PluginRecord, ...]) -> tuple[Implementation, ...]:
    import pluggy

    from exengine.kernel.registry import hookspecs

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    outcomes: dict[PluginRecord, Outcome] = {}
    owners: dict[str, PluginRecord] = {}
    for record in reversed(records):  # pluggy calls the most recently registered plugin first
        if record.state == "found":
            name = f"{record.qualified_name} {record.target}"
            outcomes[record] = _load(manager, record, name)
            owners[name] = record
    # Outcomes are set only after all plugins are loaded, so that an interrupt leaves every record unchanged.
    for record, outcome in outcomes.items():
        record.settle(outcome)
    specs = (getattr(manager.hook, name) for name in _specs(manager))
    return tuple(
        Implementation(caller.name, owners[one.plugin_name], one.function, tuple(one.argnames))
        for caller in specs
        for one in reversed(caller.get_hookimpls())
    )


def _load(manager: "pluggy.PluginManager", record: PluginRecord, name: str) -> Outcome:
    """Import a plugin and, if all its hooks are known, register it with pluggy under the given name."""
    whole = ":" not in record.target  # if true, the module itself is the plugin
    target = f"{record.target}:__name__" if whole else record.target
    stage, fault = identity_fault(record.name, target)
    if fault:
        return broken(stage, _without_name(fault))
    with user_interrupt() as interrupted:
        imported = import_target(target, interrupted)
    if interrupted():  # the user pressed Ctrl-C, but the plugin suppressed the interrupt
        raise KeyboardInterrupt
    if imported.fault:
        return imported.fault._replace(error=_without_name(imported.fault.error))
    plugin = sys.modules.get(record.target) if whole else imported.value
    if plugin is None:
        return broken("attribute", f"{record.target} is None", output=imported.output)
    try:
        faults = _register(manager, plugin, name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # raised by a property, a metaclass or pluggy
        text = f"{record.target} cannot be inspected: {error!r:.500}"
        return broken("contract", text, output=imported.output)
    if faults:
        return Outcome("invalid", "contract", "; ".join(faults), output=imported.output)
    return Outcome("valid", output=imported.output)


def _without_name(error: str) -> str:
    return error.replace(":__name__", "")


def _register(manager: "pluggy.PluginManager", plugin: Any, name: str) -> list[str]:
    """Register a plugin if all its hooks are known, and return its faults."""
    import pluggy

    faults = _faults(manager, plugin)
    if faults:
        return faults
    try:
        manager.register(plugin, name)
    except (pluggy.PluginValidationError, ValueError) as error:
        return [" ".join(str(error).split())]
    try:
        manager.check_pending()  # checks all registered plugins, but earlier plugins have already passed
    except pluggy.PluginValidationError:
        callers = manager.get_hookcallers(plugin) or ()
        known = _specs(manager)
        faults = [_unknown(caller.name, known) for caller in callers if caller.name not in known]
        manager.unregister(plugin, name)
    return faults


# -- faults of a plugin --------------------------------------------------------------------------


def _specs(manager: "pluggy.PluginManager") -> list[str]:
    return [name for name, caller in vars(manager.hook).items() if caller.has_spec()]


def _faults(manager: "pluggy.PluginManager", plugin: Any) -> list[str]:
    """Return the faults that pluggy would accept or would describe less clearly."""
    if isinstance(plugin, type):
        return [
            f"the entry point names the class {plugin.__name__}; register a module or an instance instead"
        ]
    known = _specs(manager)
    faults, marked = [], 0
    for name in dir(plugin):
        marks = manager.parse_hookimpl_opts(plugin, name)
        if marks is None:
            if name.startswith(_PREFIX) and inspect.isroutine(inspect.getattr_static(plugin, name)):
                faults.append(
                    f"{name} is not marked as a hook; write @exengine.hookimpl above it"
                    if name in known
                    else _unknown(name, known)
                )
            continue
        marked += 1
        hook = marks.get("specname") or name
        if marks.get("wrapper") or marks.get("hookwrapper"):
            faults.append(
                f"{name} is a wrapper; wrappers are not supported, because implementations are called "
                "independently of each other"
            )
        elif hook in known:
            faults += _signature_faults(name, getattr(plugin, name), getattr(manager.hook, hook).spec)
    if not marked and not faults:
        faults.append("the plugin does not implement any hook; mark its functions with @exengine.hookimpl")
    return faults


def _unknown(name: str, known: list[str]) -> str:
    return f"no hook is called {name!r}{did_you_mean(name, known)}; the hooks are {', '.join(known)}"


def _signature_faults(name: str, function: Callable[..., Any], spec: Any) -> list[str]:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        return [f"{name} is a coroutine or a generator, so it would never run; make it a plain function"]
    given = list(spec.argnames)
    faults = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is not parameter.empty:
            continue  # pluggy never passes a value for a parameter with a default
        if parameter.name not in given:
            faults.append(
                f"{name} has a parameter {parameter.name!r}, which the hook does not "
                f"pass{did_you_mean(parameter.name, given)}; the hook passes {', '.join(given)}"
            )
        elif parameter.kind is parameter.KEYWORD_ONLY:
            faults.append(f"the parameter {parameter.name!r} of {name} is keyword-only; remove the '*'")
    return faults


# -- in a separate process -----------------------------------------------------------------------


def probe() -> list[dict[str, Any]]:
    """Load every installed plugin in its own process, and return the records in JSON form.

    A plugin that terminates its process or never returns is reported as broken.
    """
    from exengine.kernel.registry.probing import TIME_LIMIT_S, run_child

    found = []
    for record in hooks.records():
        request = {"name": record.name, "distribution": record.distribution, "target": record.target}
        result = run_child("exengine.kernel.registry.hooks", request, time_limit_s=TIME_LIMIT_S)
        if result.answer is None:
            error = f"importing {record.target} {result.ending}"
            outcome = broken("import", error, result.output, result.output)
            found.append(record.with_outcome(outcome).to_dict())
        else:
            found.append(result.answer)
    return found


def main(request: Mapping[str, Any]) -> None:
    """Load the plugin that :func:`probe` requests from this child process, send the answer, and exit."""
    from exengine.kernel.registry.probing import answer

    wanted = (request["name"], request["distribution"], request["target"])
    alone = HookManager()
    alone._records = tuple(
        record
        for record in alone.records()
        if (record.name, record.distribution, record.target) == wanted
    )  # fmt: skip
    answer(request, alone.load()[0].to_dict())


hooks = HookManager()
"""The installed hook implementations."""
