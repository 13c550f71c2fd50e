"""``exengine doctor [CONFIG]``: tells whether this installation is well."""

import argparse
import platform
import sys
from typing import Any

from exengine.cli.output import print_json, print_table
from exengine.kernel import config, registry
from exengine.kernel.errors import ExEngineError
from exengine.kernel.platform import config_folder

_LIBRARIES = ("exengine", "numpy", "pluggy", "PyYAML", "useq-schema", "pydantic", "docstring_parser")


def run(options: argparse.Namespace) -> int:
    """Report on plugins, versions and config; 1 when something is wrong."""
    report = examine(options.config)
    if options.json:
        print_json(report)
        return 1 if report["problems"] else 0
    print("Versions")
    for name, version in report["versions"].items():
        print(f"  {name:18} {version}")
    print(f"\nConfig files\n  user's folder      {report['config_folder']}")
    for path in report["config_files"]:
        print(f"  read               {path}")
    for kind in ("backends", "sources"):
        print(f"\n{kind.capitalize()}")
        records = report[kind]
        if records:
            print_table(
                ("  NAME", "PACKAGE", "STATE"),
                (
                    (f"  {r['name']}", f"{r['distribution']} {r['version']}".strip() or "-", r["state"])
                    for r in records
                ),
            )
        else:
            print("  none is installed; in a clone of ExEngine: pip install ./plugins/*")
    print()
    for problem in report["problems"]:
        print(f"problem: {problem}")
    if not report["problems"]:
        print("All is well.")
    return 1 if report["problems"] else 0


def examine(config_path: str | None) -> dict[str, Any]:
    """Return the state of the installation as JSON. Every plugin is imported."""
    problems = []
    listed = {}
    for kind, plugins in (("backends", registry.backends), ("sources", registry.sources)):
        records = list(plugins.probe().values())
        listed[kind] = [record.to_dict() for record in records]
        problems += [
            f"{plugins.kind} {record.name!r}: {record.error}" for record in records if record.state != "valid"
        ]
    files = []
    try:
        resolved = config.resolve(config_path)
        files = resolved.files
        if config_path is not None:
            problems += _check_config(resolved)
    except ExEngineError as error:
        problems.append(str(error))
    return {
        "versions": _versions(),
        "config_folder": config_folder(),
        "config_files": files,
        **listed,
        "problems": problems,
    }


def _check_config(resolved: config.Config) -> list[str]:
    from exengine.kernel.acquisition import Acquisition

    try:
        Acquisition(resolved).close()
    except ExEngineError as error:
        return [str(error)]
    return []


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": sys.version.split()[0], "system": platform.platform()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions
