"""Checks that a valid plugin class has an example, a narrative page and explained capabilities.

A class with any of the faults EX211 - EX214 still works, but its page lacks information that readers need.
"""

import doctest
import importlib.resources
import inspect
from collections.abc import Iterator
from typing import Any

from exengine.checks.examples import ExampleRun, fault_of, statements_of
from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.registry import docstrings
from exengine.kernel.registry.class_checks import DOCS_STRIPPED
from exengine.kernel.registry.codes import Finding
from exengine.kernel.registry.names import spellings
from exengine.kernel.registry.records import PluginRecord
from exengine.kernel.registry.variants import variants_of
from exengine.kernel.wording import either, listed

# The kernel explains the meaning of these capabilities, but only the author can explain their values.
_NAMES = ("compression", "path_suffixes", "readers", "live_readers")
_WORDS = {"pyramids": ("pyramid", "resolution level"), "remote": ("url", "remote")}


def check_documentation(record: PluginRecord, page: str, example: ExampleRun | None) -> Iterator[Finding]:
    """Yield the faults in a plugin's documentation, in the order of their codes.

    Parameters
    ----------
    record : PluginRecord
        Record of a valid plugin that has been loaded.
    page : str
        The text of the plugin's narrative page.
    example : ExampleRun or None
        The result of running the plugin's example, or None if its docstring has no runnable example.
    """
    assert record.loaded is not None
    if not DOCS_STRIPPED:
        yield from _check_example(record.loaded, example)
    if not page.strip():
        yield Finding(
            "EX213", f"the package has no page {page_names(record.name)[0]}; write one as a guide for users"
        )
    capabilities = getattr(record.loaded, "capabilities", None)
    if isinstance(capabilities, StorageCapabilities) and not DOCS_STRIPPED:
        variants = variants_of(record.loaded) if issubclass(record.loaded, DataStorage) else []
        found = (
            finding
            for declared in (capabilities, *(variant.capabilities for variant in variants))
            for finding in _check_capabilities(record.loaded, declared, page)
        )
        yield from dict.fromkeys(found)


def narrative_page(record: PluginRecord) -> str:
    """Return the text of ``docs/<name>.rst``, with any spelling of the name, or ``""`` if there is none."""
    for name in page_names(record.name):
        try:
            page = importlib.resources.files(record.package) / name
            if page.is_file():
                return page.read_bytes().decode("utf-8", "replace")
        except (OSError, ImportError, TypeError, ValueError):
            continue
    return ""


def page_names(name: str) -> list[str]:
    """Return the allowed paths of a plugin's narrative page, relative to the plugin's package."""
    return [f"docs/{spelling}.rst" for spelling in spellings(name)]


def _check_example(cls: type, run: ExampleRun | None) -> Iterator[Finding]:
    text = docstrings.documentation_of(cls).examples
    where = f"the docstring of {cls.__name__}"
    try:
        statements = statements_of(text)
    except ValueError as error:
        yield Finding("EX212", f"the Examples section in {where} cannot be parsed: {error}")
        return
    if not statements:
        yield Finding("EX211", f"{where} has no Examples section with lines that start with >>>")
    elif all(statement.options.get(doctest.SKIP) for statement in statements):
        yield Finding(
            "EX211", f"every line of the example in {where} is skipped, so the example is never tested"
        )
    elif run is not None and run.failed:
        yield Finding("EX212", f"the example in {where} fails: {fault_of(text, run)}")


def _check_capabilities(cls: type, capabilities: StorageCapabilities, page: str) -> Iterator[Finding]:
    """Yield EX214 for each declared capability that is not explained to the reader.

    The kernel documents the meaning of its own capabilities alongside their values. The plugin's page or
    class docstring must explain everything else: the name of each compression, suffix and program, how to
    make pyramids, how to write to remote storage, and each capability that a subclass of
    ``StorageCapabilities`` adds.
    """
    text = f"{page}\n{inspect.cleandoc(cls.__doc__ or '')}".lower()
    known = dict(StorageCapabilities().items())
    for name, value in capabilities.items():
        missing = _unexplained(name, value, known, text)
        if missing:
            message = f"the capability {name} is {value!r}, but neither the page nor the docstring {missing}"
            yield Finding("EX214", message)


def _unexplained(name: str, value: Any, known: dict[str, Any], text: str) -> str:
    if name not in known:
        mentioned = name.lower() in text or name.replace("_", " ").lower() in text
        return "" if mentioned else f"explains {name}"
    if name in _NAMES:
        missing = [word for word in value if str(word).lower() not in text]
        return f"explains {listed(missing)}" if missing else ""
    if name in _WORDS and value and not any(word in text for word in _WORDS[name]):
        return f"explains it by mentioning {either(_WORDS[name])}"
    return ""
