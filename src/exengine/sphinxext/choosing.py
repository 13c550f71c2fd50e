"""Helps readers choose a backend: a table of reasons, and the same facts as data for a script.

Both are derived from the declared capabilities, the variants and the results of each backend, so they are
available for any backend. The script ``exengine-choose.js`` reads the data.
"""

import math
from collections.abc import Mapping
from typing import Any

import yaml

from exengine.checks.conformance import Results
from exengine.checks.report import PluginReport
from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.storage.one_file.spooled import SpooledStorage
from exengine.kernel.wording import either
from exengine.sphinxext.option_sets import compression_with, declared_variants, option_sets
from exengine.sphinxext.rst import escape, table

_MOST_NAMES, _MOST_PROGRAMS = 5, 7
_SPOOLED = (
    "the disk has no room for all pixels twice, or finish must be quick: it builds the file from a spool, "
    "which keeps the frames until then (recover builds the file after a crash)"
)
_LATER = " (other programs then see frames later)"
_FIJI = ("ImageJ", "Bio-Formats")  # Fiji opens what these two open, because it contains them


def choices(pages: Mapping[str, PluginReport]) -> list[dict[str, Any]]:
    """Return the data for choosing a backend as JSON, with an entry for each backend and each set of options.

    Parameters
    ----------
    pages : mapping of str to PluginReport
        Maps the page of each valid backend, without its extension, to the report shown on that page.
    """
    found = []
    for page, report in pages.items():
        cls = report.record.loaded
        assert cls is not None and issubclass(cls, DataStorage)
        results = report.results
        base = {"name": report.record.name, "page": f"{page}.html"}
        sets: list[tuple[str, StorageCapabilities, Mapping[str, Any], Results | None]] = [
            ("", cls.capabilities, {}, results)
        ]
        for one in option_sets(cls):
            of_variant = results.variants.get(one.name) if results else None
            sets.append((one.text, one.capabilities, one.options, of_variant))
        for text, capabilities, options, measured in sets:
            config = config_text(report.record.name, capabilities, options)
            facts = _facts(cls, capabilities, options, measured)
            found.append({**base, "options": text, "config": config, **facts})
    return found


def config_text(name: str, capabilities: StorageCapabilities, options: Mapping[str, Any]) -> str:
    """Return the section of a config that selects a backend with some options.

    Examples
    --------
    >>> able = StorageCapabilities(persistent=True, path_suffixes=(".shelf",))
    >>> print(config_text("shelf", able, {"codec": "zstd"}))
    storage:
      backend: shelf
      path: data/run.shelf
      options: {codec: zstd}
    """
    suffix = capabilities.path_suffixes[0] if capabilities.path_suffixes else ""
    path = options.get("path", f"data/run{suffix}")
    lines = ["storage:", f"  backend: {name}"]
    if capabilities.persistent:
        lines.append(f"  path: {path}")
    if chosen := {key: value for key, value in options.items() if key != "path"}:
        lines.append(f"  options: {yaml.safe_dump(chosen, default_flow_style=True, width=math.inf).strip()}")
    return "\n".join(lines)


def _facts(
    cls: type[DataStorage],
    capabilities: StorageCapabilities,
    options: Mapping[str, Any],
    results: Results | None,
) -> dict[str, Any]:
    finish = results.promises.get("N3") if results else None
    return {
        "dtypes": None if capabilities.dtypes is None else list(capabilities.dtypes),
        "readers": [*capabilities.readers, *(["Fiji"] if {*_FIJI} & {*capabilities.readers} else [])],
        "live": list(capabilities.live_readers),
        "compression": compression_with(cls, options),
        "memory": not capabilities.persistent,
        "kill": capabilities.safety_of_put != "accepted",
        "finish": finish is not None and finish.outcome == "kept",
        "flush": capabilities.durable_flush,
        "reading": capabilities.read_while_writing,
        "levels": capabilities.pyramids,
        "remote": capabilities.remote,
    }


# -- the table -----------------------------------------------------------------------------------


def choose_table(pages: Mapping[str, PluginReport]) -> str:
    """Return a table that states, for each backend, when to choose it and when to choose another one."""
    rows = []
    for page, report in pages.items():
        cls = report.record.loaded
        assert cls is not None and issubclass(cls, DataStorage)
        name = f":doc:`{escape(report.record.name)} <{page}>`"
        rows.append((name, _bullets(reasons_for(cls)), _bullets(reasons_against(cls))))
    return table(
        ("Backend", "Choose it when", "Choose another one when"), rows, "exengine-choice", "16 42 42"
    )


def _bullets(reasons: list[str]) -> str:
    return "\n".join(f"* {escape(reason)}" for reason in reasons) or "\N{EN DASH}"


def reasons_for(cls: type[DataStorage]) -> list[str]:
    """Return the reasons to choose a backend, which follow from its capabilities.

    Examples
    --------
    >>> class Shelf(DataStorage):
    ...     capabilities = StorageCapabilities(string_axes=True, compression=("gzip",))
    >>> reasons_for(Shelf)[0]
    'the frames are needed only while the program runs'
    >>> reasons_for(Shelf)[-1]
    'frames must be compressed, with gzip'
    """
    able, sets = cls.capabilities, option_sets(cls)
    compressed = [one for one in sets if compression_with(cls, one.options)]
    hidden = able.live_readers and any(not one.capabilities.live_readers for one in compressed)
    later = _LATER if hidden else ""
    reasons = [
        (not able.persistent, "the frames are needed only while the program runs"),
        (bool(able.readers), f"the data must open in {_some(able.readers, _MOST_PROGRAMS)}"),
        (bool(able.live_readers), f"{_some(able.live_readers)} must see frames during the acquisition"),
        (able.dtypes is None, "pixels can have any type"),
        (
            able.dtypes is not None and len(able.dtypes) > _MOST_NAMES,
            "pixels have one of many types, such as float32",
        ),
        (not able.same_shape, "frames differ in shape or pixel type"),
        (any(one.capabilities.remote for one in sets), "the data go to object storage, at a URL"),
        (able.pyramids, "images are so large that they need resolution levels"),
        (bool(able.compression), f"frames must be compressed, with {_some(able.compression)}{later}"),
    ]
    return [reason for applies, reason in reasons if applies]


def reasons_against(cls: type[DataStorage]) -> list[str]:
    """Return the reasons to choose another backend, which follow from the limits that a backend declares.

    Examples
    --------
    >>> class Shelf(DataStorage):
    ...     capabilities = StorageCapabilities(persistent=True, reopen=True, dtypes=("uint8",), most_axes=3)
    >>> reasons_against(Shelf)[:2]
    ['pixels are not uint8', 'frames have more than 3 axes, besides rows and columns']
    """
    able = cls.capabilities
    few = able.dtypes is not None and len(able.dtypes) <= _MOST_NAMES
    variants = declared_variants(cls)
    axes = f"frames have more than {able.most_axes} axes, besides rows and columns"
    if any(one.capabilities.most_axes is None for one in variants):
        way = next(one.text for one in variants if one.capabilities.most_axes is None)
        axes += f" (unless you set {way})"
    accepted = able.persistent and able.safety_of_put == "accepted"
    reasons = [
        (not able.persistent, "the frames are needed after the program has ended"),
        (few, f"pixels are not {either(able.dtypes or ())}"),
        (able.dtypes is not None and not few, f"pixels are not one of {', '.join(able.dtypes or ())}"),
        (able.same_shape, "frames differ in shape or pixel type"),
        (able.same_axes, "not all frames have the same axes"),
        (able.most_axes is not None, axes),
        (not able.string_axes, "positions have names, such as channels"),
        (not able.negative_indices, "positions are negative"),
        (not able.metadata, "each frame has metadata"),
        (able.persistent and not able.reopen, "the data must be read back in Python"),
        (able.persistent and not able.read_while_writing, "another process must read during the acquisition"),
        (accepted, "a frame must survive a program crash from the moment put returns"),
        (able.persistent and not able.checksums, "damaged frames must be detected"),
        (able.persistent and not able.compression, "frames must be compressed"),
        (issubclass(cls, SpooledStorage), _SPOOLED),
    ]  # fmt: skip
    return [reason for applies, reason in reasons if applies]


def _some(names: tuple[str, ...], most: int = _MOST_NAMES) -> str:
    """Return the first names, joined by commas and ``or``."""
    shown = names if len(names) <= most else (*names[: most - 1], "others")
    return " or ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))
