"""Saves a fingerprint of the input of a build, so that the next build can skip pages that are up to date.

Loading plugins and running their examples takes most of the time of a build, even if nothing has changed.
The fingerprint covers all input for the pages: the settings, the installed distributions, the files of
ExEngine and of each plugin's package, and the results files. If the fingerprint is the same as in the last
build, the pages in the source folder are up to date, and no plugin is loaded.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from exengine.kernel.registry import discovery
from exengine.kernel.registry.records import PluginRecord

FILE = "exengine-pages.json"
"""The file of the cache, in the folder of Sphinx's doctrees."""

_SETTINGS = tuple(f"exengine_{name}" for name in ("plugins", "strict", "local_plugins", "path", "results"))


@dataclass
class Made:
    """The output of a build.

    Attributes
    ----------
    records : dict of str to PluginRecord
        Maps the name of each generated document to the plugin that it describes.
    foreign : set of str
        The documents of plugins that the project does not own.
    choices : list of dict
        The data for choosing a backend.
    pages : dict of str to str
        Maps the path of each page, relative to the source folder, to its content.
    """

    records: dict[str, PluginRecord] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    choices: list[dict[str, Any]] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)


def restore(app: Sphinx, fingerprint: str) -> Made | None:
    """Return the output of the last build, or None if the pages must be created again."""
    if not fingerprint or app.fresh_env_used:
        return None
    try:
        saved = json.loads(_path(app).read_text(encoding="utf-8"))
        if saved["fingerprint"] != fingerprint or saved["pages"] != _hashes_on_disk(app, saved["pages"]):
            return None
        records = {document: PluginRecord(*identity) for document, identity in saved["records"].items()}
        return Made(records, set(saved["foreign"]), saved["choices"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save(app: Sphinx, fingerprint: str, made: Made) -> None:
    """Save the output of a build for the next build. Errors are ignored, because the cache is optional."""
    content = {
        "fingerprint": fingerprint,
        "records": {document: record.identity for document, record in made.records.items()},
        "foreign": sorted(made.foreign),
        "choices": made.choices,
        "pages": {path: _hash(text.encode()) for path, text in made.pages.items()},
    }
    with contextlib.suppress(OSError):
        _path(app).write_text(json.dumps(content), encoding="utf-8")


def fingerprint_of(app: Sphinx) -> str:
    """Return a hash of everything that the pages depend on.

    The hash is an empty string if the files of a package cannot be located.
    """
    search = app.config.exengine_path
    folders = sys.path if search is None else list(search)
    records = discovery.scan(search)
    facts: list[Any] = [
        sys.version,
        sys.flags.optimize,
        app.srcdir,
        [repr(app.config[name]) for name in _SETTINGS],
    ]
    facts += [sorted(_installed(folders)), [record.identity for record in records]]
    for package in sorted({"exengine", *(record.package for record in records if record.package)}):
        places = _places_of(package)
        if places is None:
            return ""
        facts += [package, *map(_files_below, places)]
    for record in records:
        facts.append(_files_below(record.location))
    facts.append(_files_below(os.path.join(app.srcdir, app.config.exengine_results)))
    return _hash(json.dumps(facts, default=str).encode())


def _installed(folders: Iterable[str]) -> Iterator[str]:
    """Yield the names of the installed distributions' metadata folders; a name includes the version."""
    for folder in folders:
        try:
            yield from (
                name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info"))
            )
        except OSError:
            continue


def _places_of(package: str) -> list[str] | None:
    """Return a package's folders or a module's file without importing it, or None if they are unknown."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return []  # the entry point refers to nothing, and the plugin's page shows this fault
    if spec.submodule_search_locations is not None:
        return list(spec.submodule_search_locations)
    return [spec.origin] if spec.origin else None


def _files_below(place: str) -> list[tuple[str, int, int]]:
    """Return the path, modification time and size of each file."""
    if os.path.isfile(place):
        return [_facts_of(place)]
    return sorted(
        _facts_of(os.path.join(folder, name))
        for folder, _, names in os.walk(place)
        if os.path.basename(folder) != "__pycache__"
        for name in names
    )


def _facts_of(path: str) -> tuple[str, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return path, 0, 0
    return path, found.st_mtime_ns, found.st_size


def _hashes_on_disk(app: Sphinx, pages: Mapping[str, str]) -> dict[str, str]:
    return {path: _hash(Path(app.srcdir, path).read_bytes()) for path in pages}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _path(app: Sphinx) -> Path:
    return Path(app.doctreedir, FILE)
