"""Checks a plugin's distribution for the faults EX401 - EX408.

The facts come from the metadata of an installed distribution or from a project folder's ``pyproject.toml``.
The checks are the same in both cases, and do not import any of the plugin's modules.
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
from exengine.kernel.registry.codes import Finding
from exengine.kernel.registry.names import BACKENDS_GROUP, SOURCES_GROUP, fold, identity_fault, same_name
from exengine.kernel.registry.records import PluginRecord

KERNEL = "exengine"
"""The distribution of ExEngine itself, which is exempt from some of the rules for plugins."""

DEPENDENCY = "exengine>=1,<2"
"""The dependency that a plugin should declare; a new major version may change the contract."""

_PROJECT_FIELDS = ("license", "description", "requires-python", "dependencies")


@dataclass
class Packaging:
    """Facts about a distribution.

    Attributes
    ----------
    name : str
        Name of the distribution.
    licence, summary, requires_python : str
        Fields of the metadata; empty if missing.
    requires : list of str
        The requirements, as written in the metadata.
    entries : list of PluginRecord
        The plugins that the distribution registers.
    unknown : set of str
        Fields of ``pyproject.toml`` that are computed during the build.
    files : set of str, optional
        The installed files, relative to ``site-packages``. None if the installed files do not come from a
        wheel, as with an editable installation or a project folder.
    folder : Path, optional
        The project folder, or None if it is unknown.
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


# -- facts ---------------------------------------------------------------------------------------


def of_installed(record: PluginRecord) -> Packaging:
    """Return the facts about the distribution to which a record belongs.

    Raises
    ------
    ValueError
        If the metadata of the distribution cannot be read.
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
            list(found.requires or ()),
            [record],
            files=None if files is None or _is_editable(direct) else {file.as_posix() for file in files},
            folder=_project_folder(direct),
        )
    except Exception as error:  # reading corrupt metadata can raise any exception
        raise ValueError(f"the metadata of {record.distribution} cannot be read: {error}") from error


def _is_editable(direct_url: dict[str, Any]) -> bool:
    return bool(direct_url.get("dir_info", {}).get("editable"))


def _project_folder(direct_url: dict[str, Any]) -> Path | None:
    """Return the project folder of an editable installation, or None for any other installation."""
    parts = urlsplit(direct_url.get("url", ""))
    if not _is_editable(direct_url) or parts.scheme != "file":
        return None
    return Path(unquote(parts.path))


def of_project(folder: Path) -> Packaging:
    """Return the facts in a project folder's ``pyproject.toml``.

    Raises
    ------
    ValueError
        If the file cannot be read or parsed, or has no ``project`` table with a name.
    """
    import tomllib

    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{file} is not valid TOML: {error}") from None
    if not isinstance(project, dict) or not isinstance(project.get("name"), str):
        raise ValueError(
            f"{file} has no [project] table with a name; install the plugin, and check it by name"
        )
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
    """Return the faults in a distribution, in the order of their codes.

    ExEngine's own distribution is exempt from the rules about the dependency on ExEngine and about modules.
    """
    findings = list(_metadata(facts))
    for record in facts.entries:
        findings += _names(facts, record)
        findings += _files(facts, record)
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda finding: finding.code)


def _metadata(facts: Packaging) -> Iterator[Finding]:
    if not facts.licence and "license" not in facts.unknown:
        yield Finding("EX401", 'the license is missing; write license = "..." in pyproject.toml')
    if not same_name(facts.name, KERNEL) and "dependencies" not in facts.unknown:
        fault = dependency_fault(facts.requires)
        if fault:
            yield Finding("EX404", f'{fault}; write "{DEPENDENCY}"')
    if not facts.summary and "description" not in facts.unknown:
        yield Finding(
            "EX406",
            "the summary, shown in lists of plugins, is missing; set description in pyproject.toml",
        )
    if not facts.requires_python and "requires-python" not in facts.unknown:
        yield Finding(
            "EX407",
            'requires-python is missing; write requires-python = ">=3.11", or the actual range',
        )


def dependency_fault(requires: Iterable[str]) -> str:
    """Return the fault in the dependency on ExEngine, or an empty string if the dependency is correct.

    Examples
    --------
    >>> dependency_fault(["numpy", "exengine>=1.0,<2"])
    ''
    >>> dependency_fault(["exengine>=1"])
    "'exengine>=1' has no upper bound that excludes 2"
    """
    from packaging.requirements import InvalidRequirement, Requirement

    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            if fold(text).startswith(KERNEL):
                return f"{text!r} is not a valid requirement: {str(error).splitlines()[0]}"
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue  # the requirement applies only to an extra or to another system
        if same_name(requirement.name, KERNEL):
            shown = f"{requirement.name}{requirement.specifier}"
            bounds = [_bounds(part.operator, part.version) for part in requirement.specifier]
            if not any(lower for lower, _ in bounds):
                return f"{shown!r} has no lower bound of at least 1"
            return (
                "" if any(upper for _, upper in bounds) else f"{shown!r} has no upper bound that excludes 2"
            )
    return "the dependency on exengine is missing"


def _bounds(operator: str, text: str) -> tuple[bool, bool]:
    """Return whether a version clause excludes all versions below 1, and whether it excludes 2 and later."""
    from packaging.version import InvalidVersion, Version

    try:
        version = Version(text.removesuffix(".*"))
    except InvalidVersion:  # the operator === allows any string as a version
        return False, False
    exact = operator in ("~=", "==", "===")
    lower = version.major >= 1 and (exact or operator in (">=", ">"))
    upper = (version.major < 2 and (exact or operator == "<=")) or (
        operator == "<" and version <= Version("2")
    )
    return lower, upper


def _names(facts: Packaging, record: PluginRecord) -> Iterator[Finding]:
    _, fault = identity_fault(record.name, record.target)
    if fault:
        yield Finding("EX403", fault)
        return
    top = record.package
    if same_name(facts.name, KERNEL):
        return
    if top == KERNEL:
        text = f"{record.target} is in the package exengine, which belongs to ExEngine"
        yield Finding("EX403", f"{text}; move the plugin to a package of its own")
    elif facts.folder is not None:
        if package_folder(facts, top) is None:
            yield Finding(
                "EX403",
                f"the module {top} is not in {facts.folder.name}; the entry point must refer to a "
                "module of the project",
            )
    elif facts.files is not None and not _in_files(facts.files, top):
        yield Finding(
            "EX403",
            f"{facts.name} does not install the module {top}; the entry point must refer to a module that is "
            "installed",
        )


def _files(facts: Packaging, record: PluginRecord) -> Iterator[Finding]:
    top = record.package
    package = package_folder(facts, top)
    if package is None:
        return  # EX403 reports this fault, unless the location is unknown
    if package.suffix == ".py":
        yield Finding("EX402", f"{package.name} is a single module; make it a package with an empty py.typed")
        return
    if not (package / "py.typed").is_file():
        yield Finding("EX402", f"{top}/py.typed is missing; add this empty file, which type checkers need")
    if facts.files is None or facts.folder is None:
        return
    for wanted in ("__init__.py", "py.typed", *page_names(record.name)):
        if (package / wanted).is_file() and f"{top}/{wanted}" not in facts.files:
            yield Finding("EX405", f"{top}/{wanted} is in the project, but not in the installed distribution")


def package_folder(facts: Packaging, top: str) -> Path | None:
    """Return the folder of a plugin's top-level package or the file of its single module, or None."""
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
