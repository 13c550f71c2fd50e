"""Loads the plugins of the group ``exengine.hooks``, each in isolation, and refuses misspelt hooks.

Responsible for which implementations there are, and for what is wrong with the others: a plugin that
cannot be imported, names a hook that does not exist, or asks for an argument that a hook does not
give, becomes a record that says so, and the others go on. Unlike backends, two plugins may have one
name: both are called. Not responsible for threads (:mod:`exengine.acquisition.observers`).

Without a plugin of the group nothing is imported here, pluggy included.
"""

import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exengine.kernel.errors import describe
from exengine.kernel.registry import discovery, plugins
from exengine.kernel.registry.records import PluginRecord
from exengine.kernel.wording import did_you_mean

if TYPE_CHECKING:
    import pluggy

HOOKS_GROUP = "exengine.hooks"
_PREFIX = "exengine_"


@dataclass(frozen=True)
class Implementation:
    """One function of one plugin.

    Attributes
    ----------
    hook : str
        What it implements.
    record : PluginRecord
        Of its plugin.
    function : callable
        Bound to the object that the plugin registered.
    arguments : tuple of str
        Which of the hook's arguments it takes, in its own order.
    """

    hook: str
    record: PluginRecord
    function: Callable[..., Any]
    arguments: tuple[str, ...]

    def __call__(self, given: Mapping[str, Any]) -> Any:
        """Call it with those of the given arguments that it takes."""
        return self.function(*(given[name] for name in self.arguments))


class HookManager:
    """The hook implementations that are installed.

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
        """Return a record of each plugin, sorted by name. Imports none. One scan per process."""
        with self._lock:
            if self._records is None:
                found = [record for record in discovery.scan(self._path) if record.group == HOOKS_GROUP]
                self._records = tuple(sorted(found, key=lambda record: (record.name, record.distribution)))
            return self._records

    def refresh(self) -> None:
        """Forget the scan and what was loaded: packages were installed or removed."""
        with self._lock:
            self._records = self._implementations = None

    def load(self) -> tuple[PluginRecord, ...]:
        """Import and check every plugin, once; return the records. Nothing is raised."""
        with self._lock:
            if self._implementations is None:
                records = self.records()
                self._implementations = _load_all(records) if records else ()
            return self.records()

    def implementations(self, hook: str | None = None) -> tuple[Implementation, ...]:
        """Return what implements a hook (or any), in the order in which it is called."""
        self.load()
        return tuple(one for one in self._implementations or () if hook is None or one.hook == hook)

    def refused(self) -> list[str]:
        """Return a text for each plugin that is not used: which, and why."""
        return [
            f"the hooks {record.qualified_name} {record.version} are not used: {record.error}"
            for record in self.load()
            if record.state != "valid"
        ]

    def docs_sections(self, name: str, cls: type) -> "tuple[list[DocsSection], list[str]]":
        """Ask for extra sections of the page of a plugin.

        Parameters
        ----------
        name : str
            Of the backend or frame source.
        cls : type
            Its class.

        Returns
        -------
        list of DocsSection
        list of str
            What went wrong, one line for each implementation that raised or gave something else.
        """
        sections: list[DocsSection] = []
        problems = []
        for implementation in self.implementations("exengine_docs_sections"):
            try:
                given = implementation({"name": name, "cls": cls})
                sections += _as_sections(given, implementation.record)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # whatever a plugin does is kept from the page's other parts
                problems.append(failure(implementation, error))
        return sections, problems


@dataclass(frozen=True)
class DocsSection:
    """An extra section of a page.

    Attributes
    ----------
    record : PluginRecord
        Of the plugin that gave it.
    title, text : str
        The text is reStructuredText.
    """

    record: PluginRecord
    title: str
    text: str


def _as_sections(given: Any, record: PluginRecord) -> list[DocsSection]:
    sections = []
    for pair in given or ():
        title, text = pair if isinstance(pair, (tuple, list)) and len(pair) == 2 else (None, None)
        if not isinstance(title, str) or not isinstance(text, str):
            raise TypeError(f"it returns a list of (title, text), and gave {pair!r:.60}")
        sections.append(DocsSection(record, title, text))
    return sections


def failure(implementation: Implementation, error: BaseException) -> str:
    """Return one line on an implementation that raised.

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
    owners: dict[str, PluginRecord] = {}
    for record in reversed(records):  # pluggy calls what was registered last before the others
        plugin = _import(record)
        if record.state == "found" and plugin is not None:
            name = f"{record.qualified_name} {record.target}"
            try:
                _register(manager, plugin, name, record)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a raising property, a metaclass, pluggy's own refusal
                record.mark("broken", "contract", f"{record.target} cannot be looked at: {error!r:.500}")
            if record.state == "valid":
                owners[name] = record
    specs = (getattr(manager.hook, name) for name in _specs(manager))
    return tuple(
        Implementation(caller.name, owners[one.plugin_name], one.function, tuple(one.argnames))
        for caller in specs
        for one in reversed(caller.get_hookimpls())
    )


def _import(record: PluginRecord) -> Any:
    """Return the object of an entry point, or the module where the target names no object."""
    if record.state != "found":
        return None
    whole = ":" not in record.target
    # A module has a name: so the same import serves both.
    target = f"{record.target}:__name__" if whole else record.target
    asked = PluginRecord(record.name, record.group, target, record.distribution, record.version)
    plugins.check_identity(asked)
    plugin = None
    if asked.state == "found":
        with plugins._user_interrupt() as interrupted:
            plugin = plugins._import_target(asked, interrupted)
        if interrupted():  # and the plugin caught it
            raise KeyboardInterrupt
    record.output = asked.output
    if asked.state != "found":
        record.mark(asked.state, asked.stage, asked.error.replace(":__name__", ""), asked.traceback)
        return None
    plugin = sys.modules.get(record.target) if whole else plugin
    if plugin is None:
        record.mark("broken", "attribute", f"{record.target} is None")
    return plugin


def _register(manager: "pluggy.PluginManager", plugin: Any, name: str, record: PluginRecord) -> None:
    """Register a plugin whose every hook is known; else say in its record what is wrong."""
    import pluggy

    faults = _faults(manager, plugin)
    if not faults:
        try:
            manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            faults = [" ".join(str(error).split())]
    if not faults:
        try:
            manager.check_pending()  # it looks at all plugins, and all but this one have passed
        except pluggy.PluginValidationError:
            callers = manager.get_hookcallers(plugin) or ()
            known = _specs(manager)
            faults = [_unknown(caller.name, known) for caller in callers if caller.name not in known]
            manager.unregister(plugin, name)
    if faults:
        record.mark("invalid", "contract", "; ".join(faults))
    else:
        record.state = "valid"


# -- what is wrong with a plugin -----------------------------------------------------------------


def _specs(manager: "pluggy.PluginManager") -> list[str]:
    return [name for name, caller in vars(manager.hook).items() if caller.has_spec()]


def _faults(manager: "pluggy.PluginManager", plugin: Any) -> list[str]:
    """Return what pluggy would let pass, or would say less clearly."""
    if isinstance(plugin, type):
        return [f"it is the class {plugin.__name__}; register a module, or an object of the class"]
    known = _specs(manager)
    faults, marked = [], 0
    for name in dir(plugin):
        marks = manager.parse_hookimpl_opts(plugin, name)
        if marks is None:
            if name.startswith(_PREFIX) and inspect.isroutine(inspect.getattr_static(plugin, name)):
                faults.append(
                    f"{name} is not marked: write @exengine.hookimpl above it"
                    if name in known
                    else _unknown(name, known)
                )
            continue
        marked += 1
        hook = marks.get("specname") or name
        if marks.get("wrapper") or marks.get("hookwrapper"):
            faults.append(f"{name} is a wrapper: implementations are called apart from one another")
        elif hook in known:
            faults += _signature_faults(name, getattr(plugin, name), getattr(manager.hook, hook).spec)
    if not marked and not faults:
        faults.append("it implements no hook: mark functions with @exengine.hookimpl")
    return faults


def _unknown(name: str, known: list[str]) -> str:
    return f"no hook is called {name!r}{did_you_mean(name, known)}; the hooks are {', '.join(known)}"


def _signature_faults(name: str, function: Callable[..., Any], spec: Any) -> list[str]:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        return [f"{name} is a coroutine or a generator, which nobody would run: make it a plain function"]
    given = list(spec.argnames)
    faults = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is not parameter.empty:
            continue  # pluggy never gives it a value
        if parameter.name not in given:
            faults.append(
                f"{name} takes {parameter.name!r}, which the hook does not "
                f"give{did_you_mean(parameter.name, given)}; it gives {', '.join(given)}"
            )
        elif parameter.kind is parameter.KEYWORD_ONLY:
            faults.append(f"{name} takes {parameter.name!r} by keyword only; take the '*' away")
    return faults


# -- in a process of its own ---------------------------------------------------------------------


def probe() -> list[dict[str, Any]]:
    """Load every installed plugin in a process of its own; return the records as JSON.

    A plugin that ends the process, or never ends, is found broken like any other.
    """
    from exengine.kernel.registry.probing import TIME_LIMIT_S, run_child

    found = []
    for record in hooks.records():
        request = {"name": record.name, "distribution": record.distribution, "target": record.target}
        result = run_child("exengine.kernel.registry.hooks", request, time_limit_s=TIME_LIMIT_S)
        if result.answer is None:
            record = PluginRecord(
                record.name, record.group, record.target, record.distribution, record.version, record.summary
            )
            record.mark("broken", "import", f"importing {record.target} {result.ending}", result.output)
            found.append({**record.to_dict(), "output": result.output})
        else:
            found.append(result.answer)
    return found


def main(request: Mapping[str, Any]) -> None:
    """Load the one plugin that the request describes, answer, and end this process: the child's side."""
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
"""The hook implementations that are installed."""
