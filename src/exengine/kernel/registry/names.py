"""Names of plugins and distributions: how to compare and validate them, and where to get missing plugins."""

import re

BACKENDS_GROUP = "exengine.storage_backends"
SOURCES_GROUP = "exengine.frame_sources"
HOOKS_GROUP = "exengine.hooks"
PROCESS_FUNCTIONS_GROUP = "exengine.process_functions"

PROVIDERS = {
    ("ndtiff", BACKENDS_GROUP): "exengine-ndstorage",
    ("ndram", BACKENDS_GROUP): "exengine-ndstorage",
    ("hdf5", BACKENDS_GROUP): "exengine-hdf5",
    ("ome-tiff", BACKENDS_GROUP): "exengine-ome-tiff",
    ("ome-zarr", BACKENDS_GROUP): "exengine-ome-zarr",
    ("micromanager", SOURCES_GROUP): "exengine-micromanager",
}
"""Maps the name and group of each plugin in this repository to its distribution, whose folder has the same
name."""

INSTALL_ALL = "in a clone of ExEngine, run: pip install ./plugins/*"
"""Instructions for installing every plugin in this repository."""


def fold(name: str) -> str:
    """Return the form of a name to compare: lower case, with each run of ``-``, ``_`` and ``.`` as one ``-``.

    Examples
    --------
    >>> fold("My.Dist"), fold("my_dist")
    ('my-dist', 'my-dist')
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def same_name(one: str, other: str) -> bool:
    """Return whether two names refer to the same plugin or distribution."""
    return fold(one) == fold(other)


def spellings(name: str) -> tuple[str, ...]:
    """Return the distinct spellings of a name: as written, with underscores, and with hyphens.

    Examples
    --------
    >>> spellings("ome_zarr"), spellings("ndtiff")
    (('ome_zarr', 'ome-zarr'), ('ndtiff',))
    """
    return tuple(dict.fromkeys((name, name.replace("-", "_"), name.replace("_", "-"))))


def is_valid(name: str) -> bool:
    """Return whether this is a valid name for a plugin."""
    return len(name) <= 64 and re.fullmatch("[a-z][a-z0-9_-]*", name) is not None


def identity_fault(name: str, target: str) -> tuple[str, str]:
    """Return which part of an entry point is invalid, and why; two empty strings if the entry point is valid.

    Examples
    --------
    >>> identity_fault("ndram", "exengine_ndstorage.ndram:NDRAMStorage"), identity_fault("ndram", "os")[0]
    (('', ''), 'target')
    """
    if not is_valid(name):
        rule = "a name must start with a-z and have at most 64 characters, each of a-z, 0-9, '_' or '-'"
        return "name", f"{name!r:.80} is not a valid name; {rule}"
    module, colon, attribute = target.partition(":")
    if not colon or not all(part.isidentifier() for part in f"{module}.{attribute}".split(".")):
        return "target", f"{target!r:.80} is not a valid target; it must have the form module:Class"
    return "", ""


def providers(group: str) -> dict[str, str]:
    """Return a mapping from name to distribution for this repository's plugins in a group."""
    return {name: distribution for (name, of), distribution in PROVIDERS.items() if of == group}


def how_to_get(name: str, group: str) -> str:
    """Return instructions for installing a plugin from this repository; empty for any other name."""
    known = providers(group).get(fold(name))
    if known is None:
        return ""
    how = INSTALL_ALL.replace("*", known)
    return f"{name!r} belongs to the distribution {known}; to install {known}, {how}"
