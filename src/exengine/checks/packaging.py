"""Checks how a plugin is packaged: EX401 - EX408.

The facts come from the metadata of an installed distribution, or from the ``pyproject.toml`` of a
folder; the checks are the same. Nothing of the plugin is imported.
"""

import importlib.util
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from exengine.checks.documentation import page_names
from exengine.kernel.registry.class_checks import Finding
from exengine.kernel.registry.plugins import BACKENDS_GROUP, SOURCES_GROUP, check_identity
from exengine.kernel.registry.records import PluginRecord

KERNEL = "exengine"
"""The distribution that the rules for plugins are not made for."""

DEPENDENCY = "exengine>=1,<2"
"""What a plugin depends on: the contract may change with the first number."""

_PROJECT_FIELDS = ("license", "description", "requires-python", "dependencies")


@dataclass
class Packaging:
    """What is known of a distribution.

    Attributes
    ----------
    name : str
    licence, summary, requires_python : str
        Empty where there is none.
    requires : list of str
        Requirements as written, those of extras left out.
    entries : list of PluginRecord
        What it registers with us.
    unknown : set of str
        Fields of a ``pyproject.toml`` that are made while it is built.
    files : set of str, optional
        What is installed, relative to ``site-packages``; None where that is not what a wheel holds,
        for an editable installation or a folder.
    folder : Path, optional
        Of the project, where it is known.
    """

    name: str
    licence: str = ""
    summary: str = ""
    requires_python: str = ""
    requires: list[str] = field(default_factory=list)
    entries: list[PluginRecord] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    files: set[str] | None = None
    folder: Path | None = None


# -- where the facts come from -------------------------------------------------------------------


def of_installed(record: PluginRecord) -> Packaging:
    """Return the facts of the distribution that a record belongs to.

    Raises
    ------
    ValueError
        When its metadata cannot be read.
    """
    try:
        found = (
            metadata.Distribution.at(record.location)
            if record.location
            else metadata.distribution(record.distribution)
        )
        fields: Any = found.metadata
        classifiers = [text for text in fields.get_all("Classifier") or () if text.startswith("License ::")]
        licence = fields.get("License-Expression") or fields.get("License") or fields.get("License-File")
        direct = json.loads(found.read_text("direct_url.json") or "{}")
        files = found.files
        return Packaging(
            record.distribution,
            licence or "".join(classifiers[:1]),
            (fields.get("Summary") or "").strip(),
            fields.get("Requires-Python") or "",
            [text for text in found.requires or () if "extra ==" not in text],
            [record],
            files=None if files is None or _is_editable(direct) else {file.as_posix() for file in files},
            folder=_project_folder(direct),
        )
    except Exception as error:  # whatever corrupt metadata make of the standard library
        raise ValueError(f"the metadata of {record.distribution} cannot be read: {error}") from error


def _is_editable(direct_url: dict[str, Any]) -> bool:
    return bool(direct_url.get("dir_info", {}).get("editable"))


def _project_folder(direct_url: dict[str, Any]) -> Path | None:
    """Return the folder of an editable installation."""
    parts = urlsplit(direct_url.get("url", ""))
    if not _is_editable(direct_url) or parts.scheme != "file":
        return None
    return Path(unquote(parts.path))


def of_project(folder: Path) -> Packaging:
    """Return the facts that a folder's ``pyproject.toml`` tells.

    Raises
    ------
    ValueError
        When there is none, or it has no table ``project``.
    """
    import tomllib

    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{file} is no TOML: {error}") from None
    if not isinstance(project, dict) or not isinstance(project.get("name"), str):
        raise ValueError(f"{file} has no table [project] with a name; install the plugin, and check its name")
    name, version = project["name"], str(project.get("version", ""))
    classifiers = [text for text in project.get("classifiers", ()) if text.startswith("License ::")]
    groups = project.get("entry-points", {})
    entries = [
        PluginRecord(entry, group, target, name, version, str(project.get("description", "")))
        for group in (BACKENDS_GROUP, SOURCES_GROUP)
        for entry, target in groups.get(group, {}).items()
    ]
    return Packaging(
        name,
        str(project.get("license", "") or "".join(classifiers[:1])),
        str(project.get("description", "")).strip(),
        project.get("requires-python", ""),
        list(project.get("dependencies", ())),
        entries,
        unknown={name for name in project.get("dynamic", ()) if name in _PROJECT_FIELDS},
        folder=folder,
    )


# -- the checks ----------------------------------------------------------------------------------


def check_packaging(facts: Packaging) -> list[Finding]:
    """Return the faults of a distribution, in the order of their codes.

    The distribution of ExEngine itself is no plugin: what concerns its dependency and the place of
    its modules is not asked.
    """
    findings = [*_metadata(facts)]
    for record in facts.entries:
        findings += _names(facts, record)
        findings += _files(facts, record)
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda finding: finding.code)


def _metadata(facts: Packaging) -> Iterator[Finding]:
    if not facts.licence and "license" not in facts.unknown:
        yield Finding("EX401", 'no licence is named; write license = "..." in pyproject.toml')
    if _plain(facts.name) != KERNEL and "dependencies" not in facts.unknown:
        fault = dependency_fault(facts.requires)
        if fault:
            yield Finding("EX404", f'{fault}; write "{DEPENDENCY}"')
    if not facts.summary and "description" not in facts.unknown:
        yield Finding("EX406", "there is no summary; write description in pyproject.toml: lists show it")
    if not facts.requires_python and "requires-python" not in facts.unknown:
        yield Finding("EX407", 'write requires-python = ">=3.11" in pyproject.toml, or what else is true')


def dependency_fault(requires: Iterable[str]) -> str:
    """Return what is wrong with the dependency on ExEngine, or nothing.

    Examples
    --------
    >>> dependency_fault(["numpy", "exengine>=1.0,<2"])
    ''
    >>> dependency_fault(["exengine>=1"])
    "'exengine>=1' has no upper bound below 2"
    """
    pattern = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;()]*)\)?")
    ours = [found for text in requires if (found := pattern.match(text)) and _plain(found[1]) == KERNEL]
    if not ours:
        return "there is no dependency on exengine"
    text = f"{ours[0][1]}{ours[0][2].strip()}"
    lower = upper = False
    for operator, number in re.findall(r"(~=|===?|>=?|<=?)\s*v?(\d+)", ours[0][2]):
        lower |= operator in ("~=", "==", "===", ">=", ">") and int(number) >= 1
        upper |= operator in ("~=", "==", "===", "<=") and int(number) < 2
        upper |= operator == "<" and int(number) <= 2
    if not lower:
        return f"{text!r} has no lower bound of 1"
    return "" if upper else f"{text!r} has no upper bound below 2"


def _names(facts: Packaging, record: PluginRecord) -> Iterator[Finding]:
    looked_at = PluginRecord(record.name, record.group, record.target, "", "")
    check_identity(looked_at)
    if looked_at.error:
        yield Finding("EX403", looked_at.error)
        return
    top = _top(record)
    if _plain(facts.name) == KERNEL:
        return
    if top == KERNEL:
        yield Finding(
            "EX403",
            f"{record.target} lies in the package exengine, which is ours; give the plugin its own module",
        )
    elif facts.folder is not None:
        if package_folder(facts, top) is None:
            yield Finding("EX403", f"the module {top} is not in {facts.folder.name}; name one of its own")
    elif facts.files is not None and not _in_files(facts.files, top):
        yield Finding("EX403", f"the module {top} is none that {facts.name} installs; name one of its own")


def _files(facts: Packaging, record: PluginRecord) -> Iterator[Finding]:
    top = _top(record)
    package = package_folder(facts, top)
    if package is None:
        return  # EX403 says it, or nothing can be known
    if package.suffix == ".py":
        yield Finding("EX402", f"{package.name} is a single module; make it a package with an empty py.typed")
        return
    if not (package / "py.typed").is_file():
        yield Finding("EX402", f"{top}/py.typed is missing: an empty file tells type checkers to look there")
    if facts.files is None or facts.folder is None:
        return
    for wanted in ("__init__.py", "py.typed", *page_names(record.name)):
        if (package / wanted).is_file() and f"{top}/{wanted}" not in facts.files:
            yield Finding("EX405", f"{top}/{wanted} is in the project, but not in what was installed")


def package_folder(facts: Packaging, top: str) -> Path | None:
    """Return where the top-level package of a plugin lies: a folder, or the file of a single module."""
    if facts.folder is not None:
        return _in_folder(facts.folder, top)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    for place in spec.submodule_search_locations or ():
        return Path(place)
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _in_folder(folder: Path, top: str) -> Path | None:
    for home in (folder / "src", folder):
        if (home / top).is_dir():
            return home / top
        if (home / f"{top}.py").is_file():
            return home / f"{top}.py"
    return None


def _in_files(files: Iterable[str], top: str) -> bool:
    return any(re.match(rf"{re.escape(top)}(/|\.[^/]*$)", file) for file in files)


def _top(record: PluginRecord) -> str:
    return record.target.partition(":")[0].partition(".")[0]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
