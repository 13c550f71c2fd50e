"""Names of plugins and distributions: when two are the same, which are valid, where to get an unknown one."""

import re

BACKENDS_GROUP = "exengine.storage_backends"
SOURCES_GROUP = "exengine.frame_sources"
HOOKS_GROUP = "exengine.hooks"

PROVIDERS = {
    ("ndtiff", BACKENDS_GROUP): "exengine-ndstorage",
    ("ndram", BACKENDS_GROUP): "exengine-ndstorage",
    ("micromanager", SOURCES_GROUP): "exengine-micromanager",
}
"""Name and group of each plugin in this repository, with the distribution (and folder) that provides it."""

INSTALL_ALL = "in a clone of ExEngine run pip install ./plugins/*"
"""How to install every plugin in this repository."""


def fold(name: str) -> str:
    """Return the form in which names are compared: lower case, with each run of ``-``, ``_``, ``.`` as ``-``.

    Examples
    --------
    >>> fold("My.Dist"), fold("my_dist")
    ('my-dist', 'my-dist')
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def same_name(one: str, other: str) -> bool:
    """Return whether two names mean the same plugin or distribution."""
    return fold(one) == fold(other)


def spellings(name: str) -> tuple[str, ...]:
    """Return a name as written, with underscores and with dashes, without repetition.

    Examples
    --------
    >>> spellings("ome_zarr"), spellings("ndtiff")
    (('ome_zarr', 'ome-zarr'), ('ndtiff',))
    """
    return tuple(dict.fromkeys((name, name.replace("-", "_"), name.replace("_", "-"))))


def is_valid(name: str) -> bool:
    """Return whether a plugin may have this name."""
    return len(name) <= 64 and re.fullmatch("[a-z][a-z0-9_-]*", name) is not None


def identity_fault(name: str, target: str) -> tuple[str, str]:
    """Return the part of an entry point that breaks the rules, and the fault; two empty texts for none.

    Examples
    --------
    >>> identity_fault("ndram", "exengine_ndstorage.ndram:NDRAMStorage"), identity_fault("ndram", "os")[0]
    (('', ''), 'target')
    """
    if not is_valid(name):
        rule = "a-z first, then a-z, 0-9, '_', '-', at most 64 in all"
        return "name", f"{name!r:.80} is not a valid name: {rule}"
    module, colon, attribute = target.partition(":")
    if not colon or not all(part.isidentifier() for part in f"{module}.{attribute}".split(".")):
        return "target", f"{target!r:.80} is not a valid target: it must be module:Class"
    return "", ""


def providers(group: str) -> dict[str, str]:
    """Return name -> distribution of the plugins of a group in this repository."""
    return {name: distribution for (name, of), distribution in PROVIDERS.items() if of == group}


def how_to_get(name: str, group: str) -> str:
    """Return how to install a plugin of this repository; an empty text for any other name."""
    known = providers(group).get(fold(name))
    if known is None:
        return ""
    return f"{name!r} comes with the plugin {known}: {INSTALL_ALL.replace('*', known)}"
