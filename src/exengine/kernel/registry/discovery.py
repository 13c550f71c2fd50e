"""Finds entry points by reading package metadata, without importing plugins and with few other imports.

``importlib.metadata.entry_points()`` takes 40 ms for 1,000 distributions, and a single corrupt distribution
makes the whole call fail. This module lists each folder in ``sys.path``, reads each ``entry_points.txt``
that exists, and parses it only if it contains the prefix ``exengine.``. It uses ``importlib.metadata`` for
path entries that are not folders and for the finders of other libraries.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from exengine.kernel.registry.names import fold
from exengine.kernel.registry.records import PluginRecord, broken

PREFIX = b"exengine."
_METADATA_BYTES = 4096  # enough for the name, version and summary, which are at the top of the file


def scan(path: Iterable[str] | None = None) -> list[PluginRecord]:
    """Return a record for each entry point in the groups named ``exengine.*``.

    Parameters
    ----------
    path : iterable of str, optional
        Folders to scan; by default ``sys.path``. As with imports, the first distribution with a given name
        hides any later distributions with that name.

    Returns
    -------
    list of PluginRecord
        The records, sorted by group, name and distribution. A corrupt distribution is represented by a
        broken record.
    """
    found: list[PluginRecord] = []
    seen: set[str] = set()
    for entry in sys.path if path is None else path:
        try:
            names = os.listdir(entry or ".")
        except OSError:
            if entry and os.path.isfile(entry):
                found += _scan_with_importlib(seen, path=[entry])
            continue
        # An interrupted upgrade can leave two distributions with the same name in one folder; the later
        # version wins. If pip cannot remove a folder, it gives the folder a name that starts with a tilde.
        for name in _latest_first(names):
            found += _read_distribution(os.path.join(entry or ".", name), seen)
    if path is None and any(_is_foreign(finder) for finder in sys.meta_path):
        found += _scan_with_importlib(seen, path=None)
    found.sort(key=lambda record: (record.group, record.name, record.distribution, record.target))
    return found


def _latest_first(names: Iterable[str]) -> list[str]:
    """Return the distribution folders; for each distribution, the latest version comes first."""
    folders: dict[str, list[str]] = {}
    for name in sorted(names, reverse=True):
        if name.endswith((".dist-info", ".egg-info")) and not name.startswith("~"):
            folders.setdefault(fold(name.rpartition(".")[0].partition("-")[0]), []).append(name)
    for same in folders.values():
        if len(same) > 1:
            same.sort(key=_version_of, reverse=True)
    return [name for same in folders.values() for name in same]


def _version_of(folder: str) -> tuple[bool, Any]:
    """Return a key that sorts a distribution's folders by version; invalid version strings sort lowest."""
    # This import is slow, so it happens only if there are duplicates.
    from packaging.version import InvalidVersion, Version

    text = folder.rpartition(".")[0].partition("-")[2].partition("-py")[0]
    try:
        return True, Version(text)
    except InvalidVersion:
        return False, text


def _has_metadata(folder: str) -> bool:
    return any(os.path.exists(os.path.join(folder, name)) for name in ("METADATA", "PKG-INFO"))


def _read_distribution(folder: str, seen: set[str]) -> Iterator[PluginRecord]:
    base = os.path.basename(folder).rpartition(".")[0]
    name, _, version = base.partition("-")
    key = fold(name)
    try:
        with open(os.path.join(folder, "entry_points.txt"), "rb") as file:
            text = file.read()
    except FileNotFoundError:
        if _has_metadata(folder):  # an empty folder is not a distribution, so it hides no others
            seen.add(key)
        return
    except NotADirectoryError:  # an .egg-info file has no entry points
        return
    except OSError as error:
        if _is_about_exengine(base):
            yield _broken(name, version, folder, f"entry_points.txt cannot be read: {error.strerror}")
        return
    if key in seen:
        return
    seen.add(key)
    if PREFIX not in text:
        return
    problem, summary = "", ""
    try:
        with open(
            os.path.join(folder, "METADATA" if folder.endswith("dist-info") else "PKG-INFO"), "rb"
        ) as file:
            fields = _headers(file.read(_METADATA_BYTES).decode("utf-8", "replace"))
        name, version = fields.get("name") or name, fields.get("version") or version
        summary = fields.get("summary", "")
    except OSError as error:
        problem = f"the metadata of the distribution cannot be read: {error.strerror}"
    try:
        entries = list(_parse_entry_points(text.decode("utf-8-sig")))
    except ValueError as error:
        yield _broken(name, version, folder, f"entry_points.txt cannot be parsed: {error}")
        return
    targets: dict[tuple[str, str], str] = {}
    for group, entry, target in entries:
        first = targets.setdefault((group, entry), target)
        if first != target:
            problem = f"entry_points.txt registers {entry!r} twice, as {first} and as {target}; keep one"
    outcome = broken("metadata", problem) if problem else None
    for (group, entry), target in targets.items():
        yield PluginRecord(entry, group, target, name, version, summary, folder, outcome=outcome)


def _parse_entry_points(text: str) -> Iterator[tuple[str, str, str]]:
    group = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            if line[-1] != "]":
                raise ValueError(f"line {number} is not valid: {line!r:.60}")
            group = line[1:-1].strip()
        elif group.startswith("exengine."):
            name, equals, target = line.partition("=")
            if not equals:
                raise ValueError(f"line {number} is not valid: {line!r:.60}")
            yield group, name.strip(), target.split("[")[0].strip()


def _headers(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line:
            break
        key, colon, value = line.partition(":")
        if key and colon and key[0] not in " \t":
            fields.setdefault(key.lower(), value.strip())
    return fields


def _broken(name: str, version: str, folder: str, problem: str) -> PluginRecord:
    return PluginRecord(fold(name), "", "", name, version, "", folder, outcome=broken("metadata", problem))


def _is_about_exengine(text: str) -> bool:
    return "exengine" in text.lower()


def _is_foreign(finder: object) -> bool:
    module = getattr(finder, "__module__", "") or type(finder).__module__
    return hasattr(finder, "find_distributions") and not module.startswith(
        ("_frozen_importlib", "importlib.")
    )


def _scan_with_importlib(seen: set[str], path: list[str] | None) -> Iterator[PluginRecord]:
    from importlib import metadata

    context = metadata.DistributionFinder.Context()
    if path is not None:
        context = metadata.DistributionFinder.Context(path=path)
    distributions: list[metadata.Distribution] = []
    for finder in sys.meta_path:
        try:
            distributions += getattr(finder, "find_distributions", lambda _: ())(context)
        except Exception:  # a finder of another library failed; the other finders can still be used
            continue
    for distribution in distributions:
        name = "?"
        try:
            name = distribution.metadata.get("Name") or "?"  # type: ignore[attr-defined]  # it is a Message
            key = fold(name)
            if key in seen:
                continue
            seen.add(key)
            text = (distribution.read_text("entry_points.txt") or "").removeprefix("\ufeff")
            if PREFIX.decode() not in text:
                continue
            for group, entry, target in _parse_entry_points(text):
                summary = distribution.metadata.get("Summary") or ""  # type: ignore[attr-defined]
                yield PluginRecord(entry, group, target, name, distribution.version, summary)
        except Exception as error:
            if _is_about_exengine(name):
                yield _broken(name, "", "", f"the metadata of the distribution cannot be parsed: {error}")
