"""``exengine doctor [CONFIG]``: checks the installation and the speed of the disk."""

import argparse
import os
import platform
import sys
from typing import Any

from exengine.cli.output import print_json, print_table
from exengine.config import layers
from exengine.kernel.errors import ConfigError, ExEngineError
from exengine.kernel.registry import hooks, plugins
from exengine.kernel.registry.names import INSTALL_ALL
from exengine.kernel.registry.records import PluginRecord
from exengine.kernel.system.files import config_folder
from exengine.kernel.wording import human_bytes

_LIBRARIES = (
    "exengine",
    "numpy",
    "pluggy",
    "PyYAML",
    "useq-schema",
    "pydantic",
    "docstring_parser",
    "packaging",
)

_EXTRAS = {
    "pillow": "pictures of datasets: exengine preview",
    "dask": "datasets as lazy arrays",
    "distributed": "conversions on a dask cluster",
    "pytest": "tests of a backend: exengine backends check",
    "hypothesis": "tests of a backend with generated input",
    "sphinx": "plugin pages in the HTML documentation",
}
"""Optional distributions and their purposes."""

_TESTED_ON = {"Linux": "tested"}
_UNTESTED = "supported, but not tested"


def run(options: argparse.Namespace) -> int:
    """Report on plugins, versions, config and disk. Return 1 if there is a problem."""
    if options.disk is not None and not os.path.isdir(options.disk):
        raise ConfigError(f"--disk needs an existing folder, got {options.disk}")
    report = examine(options.config, options.disk)
    if options.json:
        print_json(report)
    else:
        _print(report)
    return 1 if report["problems"] else 0


def examine(config_path: str | None = None, folder: str | None = None) -> dict[str, Any]:
    """Return the state of the installation as a JSON-serializable dict.

    Every plugin is imported, each in its own process.

    Parameters
    ----------
    config_path : str, optional
        A config to check. The speed of the disk is measured where its dataset would be written.
    folder : str, optional
        A folder whose disk is measured instead. The value ``.``, which is set by ``--disk`` without an
        argument, is only used if the config does not determine a folder.
    """
    report: dict[str, Any] = {
        "versions": _versions(),
        "platform": _platform(),
        "extras": {name: _version(name) for name in _EXTRAS},
        "config_folder": config_folder(),
        "config_files": [],
        **_plugins(),
        "acquisition": None,
        "disk": None,
    }
    problems = report["problems"]
    requirements, unfit = _requirements()
    report["requirements"] = requirements
    problems += unfit
    try:
        resolved = layers.resolve(config_path)
        report["config_files"] = resolved.files
        needs, target = _check_config(resolved) if config_path is not None else (None, None)
        report["acquisition"] = needs and needs.to_dict()
        if target is not None and folder in (None, "."):
            folder = target
        if folder is not None:
            problems += _check_disk(report, needs if target else None, folder)
    except ExEngineError as error:
        problems.append(str(error))
    return report


# -- plugins -------------------------------------------------------------------------------------


def _plugins() -> dict[str, Any]:
    problems: list[str] = []
    conflicts: list[dict[str, Any]] = []
    listed: dict[str, Any] = {}
    for kind, registry in (("backends", plugins.BACKENDS), ("sources", plugins.SOURCES)):
        records = list(registry.probe(isolated=True).values())
        listed[kind] = [record.to_dict() for record in records]
        for record in records:
            if record.state == "conflict":
                conflicts.append(_conflict(registry.kind, record))
            if record.state != "valid":
                problems.append(f"{registry.kind} {record.name!r}: {record.error}")
    listed["hooks"] = hooks.probe()
    problems += [
        f"hooks {record['name']!r} of {record['distribution']}: {record['error']}"
        for record in listed["hooks"]
        if record["state"] != "valid"
    ]
    return {**listed, "conflicts": conflicts, "problems": problems}


def _conflict(kind: str, record: PluginRecord) -> dict[str, Any]:
    """Return the distributions that claim the same name, and the ways to resolve the conflict."""
    ways = [f"write {claim.qualified_name!r} instead of {record.name!r}" for claim in record.candidates]
    ways += [f"pip uninstall {claim.distribution}" for claim in record.candidates]
    return {
        "kind": kind,
        "name": record.name,
        "distributions": [f"{claim.distribution} {claim.version}" for claim in record.candidates],
        "resolve": ways,
    }


# -- versions ------------------------------------------------------------------------------------


def _requirements() -> tuple[list[dict[str, Any]], list[str]]:
    """Return the requirements of ExEngine and its plugins, the installed versions, and the problems."""
    found: list[dict[str, Any]] = []
    problems = []
    for name, version, location in sorted(_distributions()):
        for text in _required_by(name, location):
            wanted, fits, installed = _fit(text)
            if wanted is None:
                continue
            found.append({"distribution": name, "requirement": text, "installed": installed, "fits": fits})
            if not fits:
                have = f"{wanted} {installed} is installed" if installed else f"{wanted} is not installed"
                how = (
                    f"install a version of {name} that is compatible with this ExEngine"
                    if wanted == "exengine"
                    else f"pip install '{text.partition(';')[0].strip()}'"
                )
                problems.append(f"{name} {version} requires {text}, but {have}; {how}")
    return found, problems


def _distributions() -> set[tuple[str, str, str]]:
    records: list[PluginRecord] = [*hooks.hooks.records()]
    for registry in (plugins.BACKENDS, plugins.SOURCES):
        for record in registry.records().values():
            records += record.claims
    return {
        (record.distribution, record.version, record.location) for record in records if record.distribution
    } | {("exengine", _version("exengine") or "", "")}


def _required_by(name: str, location: str) -> list[str]:
    from importlib import metadata
    from pathlib import Path

    try:
        at = metadata.Distribution.at(Path(location)) if location else metadata.distribution(name)
        return list(at.requires or ())
    except Exception:  # the plugin's record reports unreadable metadata
        return []


def _fit(text: str) -> tuple[str | None, bool, str | None]:
    """Return a requirement's distribution, whether the requirement is met, and the installed version.

    The distribution is None if the requirement is not valid, or applies only to an extra or to another
    operating system.

    Examples
    --------
    >>> _fit("numpy>=1.0")[:2], _fit("numpy<1.0")[:2], _fit("numpy; extra == 'test'")[0]
    (('numpy', True), ('numpy', False), None)
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return None, True, None
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None, True, None
    installed = _version(requirement.name)
    fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
    return requirement.name, fits, installed


def _versions() -> dict[str, str]:
    versions = {"python": sys.version.split()[0], "system": platform.platform()}
    for name in _LIBRARIES:
        versions[name] = _version(name) or "not installed as a package"
    return versions


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _platform() -> dict[str, str]:
    system = {"Darwin": "macOS"}.get(platform.system(), platform.system())
    return {"system": system, "support": _TESTED_ON.get(system, _UNTESTED)}


# -- config and disk -----------------------------------------------------------------------------


def _check_config(resolved: layers.Config) -> tuple[Any, str | None]:
    """Prepare the acquisition of a config. Return the requirements and the folder of the dataset."""
    from exengine.acquisition.run import Acquisition
    from exengine.acquisition.space import existing_folder
    from exengine.cli.disk import needs_of
    from exengine.kernel.storage.remote import is_url

    with Acquisition(resolved, check_space=False) as acquisition:
        path = acquisition.path
        is_here = path is not None and not is_url(path)
        return needs_of(acquisition), existing_folder(os.path.dirname(path or "") or ".") if is_here else None


def _check_disk(report: dict[str, Any], needs: Any, folder: str) -> list[str]:
    from exengine.cli.disk import compare, measure_disk

    speed = measure_disk(os.path.abspath(folder))
    text, problems = compare(speed, needs)
    report["disk"] = {**speed.to_dict(), "summary": text}
    return problems


# -- output --------------------------------------------------------------------------------------


def _print(report: dict[str, Any]) -> None:
    print("Versions")
    for name, version in report["versions"].items():
        print(f"  {name:18} {version}")
    print(f"  {'support':18} {report['platform']['system']}: {report['platform']['support']}")
    print("\nOptional")
    for name, version in report["extras"].items():
        print(f"  {name:18} {version or 'not installed':14} {_EXTRAS[name]}")
    print(f"\nConfig files\n  user's folder      {report['config_folder']}")
    for path in report["config_files"]:
        print(f"  read               {path}")
    for kind in ("backends", "sources", "hooks"):
        _print_plugins(kind, report[kind])
    for conflict in report["conflicts"]:
        print(f"\nConflict: the {conflict['kind']} {conflict['name']!r}")
        print(f"  claimed by         {', '.join(conflict['distributions'])}")
        for way in conflict["resolve"]:
            print(f"  resolve            {way}")
    if report["disk"]:
        _print_disk(report["disk"], report["acquisition"])
    print()
    for problem in report["problems"]:
        print(f"problem: {problem}")
    if not report["problems"]:
        print("All is well.")


def _print_plugins(kind: str, records: list[dict[str, Any]]) -> None:
    if not records and kind == "hooks":
        return
    print(f"\n{kind.capitalize()}")
    if not records:
        print(f"  none is installed; {INSTALL_ALL}")
        return
    rows = [
        (f"  {r['name']}", f"{r['distribution']} {r['version']}".strip() or "-", r["state"]) for r in records
    ]
    print_table(("  NAME", "PACKAGE", "STATE"), rows)


def _print_disk(disk: dict[str, Any], needs: dict[str, Any] | None) -> None:
    print(f"\nDisk\n  folder             {disk['folder']}")
    print(f"  free               {human_bytes(disk['free_bytes'])}")
    print(f"  write              {human_bytes(disk['write_bytes_per_s'])}/s, sustained")
    print(f"  sync               {disk['sync_ms']:.1f} ms")
    if needs and needs["frame_bytes"]:
        count = f"{needs['frames']:,}" if needs["frames"] is not None else "an unknown number of"
        total = f", {human_bytes(needs['total_bytes'])} in total" if needs["total_bytes"] else ""
        print(f"  acquisition        {count} frames of {human_bytes(needs['frame_bytes'])}{total}")
    print(f"  in short           {disk['summary']}")
