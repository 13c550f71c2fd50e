"""Checks the documentation of a valid plugin class: example, narrative page, capabilities.

EX211 - EX214: the class can be used with any of them, but a reader of its page misses something. The
example is run in a process of its own, as a reader would who pastes it after importing what the
module imports. The child's side is :mod:`exengine.checks.example_child`.
"""

import doctest
import importlib.resources
import inspect
import tempfile
from collections.abc import Iterator
from typing import Any

from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.registry import docstrings
from exengine.kernel.registry.class_checks import DOCS_STRIPPED, Finding
from exengine.kernel.registry.probing import run_child
from exengine.kernel.registry.records import PluginRecord

EXAMPLE_TIME_LIMIT_S = 30.0
"""How long the example of one class may take."""

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
"""How the output of an example is compared."""

# What each of these names must be explained by its author: the kernel knows what the capability
# means, but not how this backend does it.
_NAMES = ("compression", "path_suffixes", "readers")
_WORDS = {"pyramids": ("pyramid", "resolution level"), "remote": ("url", "remote")}


def check_documentation(record: PluginRecord, *, run_example: bool = True) -> list[Finding]:
    """Return what is missing in the documentation of a plugin, in the order of the codes.

    Parameters
    ----------
    record : PluginRecord
        Loaded, and valid.
    run_example : bool
        False where the example is run elsewhere: EX212 is not given.
    """
    assert record.loaded is not None
    findings: list[Finding] = []
    if not DOCS_STRIPPED:
        findings += _check_example(record, run=run_example)
    page = narrative_page(record)
    if not page.strip():
        findings.append(
            Finding("EX213", f"the package has no page docs/{record.name}.rst; write what a user must know")
        )
    capabilities = getattr(record.loaded, "capabilities", None)
    if isinstance(capabilities, StorageCapabilities) and not DOCS_STRIPPED:
        findings += _check_capabilities(record.loaded, capabilities, page)
    return findings


def narrative_page(record: PluginRecord) -> str:
    """Return ``docs/<name>.rst`` of the plugin's top-level package; empty where there is none.

    Names that differ only in ``-`` and ``_`` are the same.
    """
    package = record.target.partition(":")[0].partition(".")[0]
    for name in page_names(record.name):
        try:
            page = importlib.resources.files(package) / name
            if page.is_file():
                return page.read_bytes().decode("utf-8", "replace")
        except (OSError, ImportError, TypeError, ValueError):
            continue
    return ""


def page_names(name: str) -> list[str]:
    """Return where in its package the narrative page of a plugin may lie."""
    return [
        f"docs/{name}.rst" for name in dict.fromkeys((name, name.replace("-", "_"), name.replace("_", "-")))
    ]


# -- the example ---------------------------------------------------------------------------------


def _check_example(record: PluginRecord, *, run: bool) -> Iterator[Finding]:
    assert record.loaded is not None
    text = docstrings.documentation_of(record.loaded).examples
    where = f"the docstring of {record.loaded.__name__}"
    try:
        examples = doctest.DocTestParser().get_examples(text)
    except ValueError as error:
        yield Finding("EX212", f"the section Examples in {where} cannot be read: {error}")
        return
    if not examples:
        yield Finding("EX211", f"{where} has no section Examples with lines that start with >>>")
    elif all(example.options.get(doctest.SKIP) for example in examples):
        yield Finding("EX211", f"every line of the example in {where} is skipped: nothing proves it")
    elif run:
        fault = example_fault(record.target, text)
        if fault:
            yield Finding("EX212", f"the example in {where} fails: {fault}")


def example_fault(target: str, text: str, *, time_limit_s: float = EXAMPLE_TIME_LIMIT_S) -> str:
    """Run an example in a process and a temporary folder of its own; return its first fault, or nothing.

    Parameters
    ----------
    target : str
        ``module:Class``; the example sees the names of the module, as under doctest.
    text : str
        The section ``Examples``.
    time_limit_s : float
        Then it is killed.
    """
    with tempfile.TemporaryDirectory(prefix="exengine-example-", ignore_cleanup_errors=True) as folder:
        request = {"target": target, "text": text, "flags": FLAGS}
        result = run_child("exengine.checks.example_child", request, time_limit_s=time_limit_s, folder=folder)
    if result.answer is None:
        said = result.output.strip()
        return f"it {result.ending}" + (f"\n{said}" if said else "")
    fault: str = result.answer["fault"]
    return fault


# -- capabilities --------------------------------------------------------------------------------


def _check_capabilities(cls: type, capabilities: StorageCapabilities, page: str) -> Iterator[Finding]:
    """Yield EX214: what is declared, and left for the reader to guess.

    The kernel explains its own capabilities beside the value. What it cannot explain must be said by
    the plugin, on its page or in the docstring of its class: each name of a compression, of a suffix
    and of a program, how to make pyramids and how to write remotely, and each capability that a
    subclass of ``StorageCapabilities`` adds.
    """
    told = f"{page}\n{inspect.cleandoc(cls.__doc__ or '')}".lower()
    ours = dict(StorageCapabilities().items())
    for name, value in capabilities.items():
        for wanted in _unexplained(name, value, ours, told):
            yield Finding(
                "EX214",
                f"the capability {name} is {value!r}, but neither the page nor the docstring says {wanted}",
            )


def _unexplained(name: str, value: Any, ours: dict[str, Any], told: str) -> Iterator[str]:
    if name not in ours:
        if name.lower() not in told and name.replace("_", " ").lower() not in told:
            yield f"what {name} is"
    elif name in _NAMES:
        missing = [str(word) for word in value if str(word).lower() not in told]
        if missing:
            yield f"what there is to know of {', '.join(missing)}"
    elif name in _WORDS and value and not any(word in told for word in _WORDS[name]):
        yield f"how: it has no word of {' or '.join(_WORDS[name])}"
