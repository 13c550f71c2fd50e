"""The sets of options for which the pages state the capabilities of a backend, besides the default options.

They are the variants that the backend declares, each of its compression methods, and a URL as its path. If a
page stated only the capabilities of the default options, it would promise too much for other options.
"""

from typing import Any

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import ExEngineError
from exengine.kernel.registry.options import Option, options_of
from exengine.kernel.registry.variants import Variant, variants_of
from exengine.kernel.wording import either

URL = "s3://bucket/dataset"
"""An example of a URL as the path of a dataset."""


def option_sets(cls: type[DataStorage]) -> list[Variant]:
    """Return the sets of options of a backend, with their capabilities. The page lists any fault in them."""
    found = declared_variants(cls)
    option = compression_option(cls)
    if option is not None:
        known = [*(dict(one.options) for one in found), {option.name: option.default}]
        chosen: list[dict[str, Any]] = [{option.name: method} for method in cls.capabilities.compression]
        found += _with_capabilities(cls, [one for one in chosen if one not in known])
    return found + [one for one in _with_capabilities(cls, [{"path": URL}]) if one.capabilities.remote]


def declared_variants(cls: type[DataStorage]) -> list[Variant]:
    """Return the variants that a backend declares, or an empty list if they have a fault."""
    try:
        return variants_of(cls)
    except ExEngineError:
        return []


def compression_option(cls: type[DataStorage]) -> Option | None:
    """Return the option that selects one of the compression methods, or None if there is none."""
    methods = set(cls.capabilities.compression)
    try:
        options = options_of(cls)
    except ExEngineError:
        return None
    return next((one for one in options if methods and methods <= _choices(one)), None)


def _choices(option: Option) -> set[Any]:
    return set((option.json_schema or {}).get("enum", ()))


def compression_with(cls: type[DataStorage], options: Any) -> list[str]:
    """Return the compression methods that a backend uses with these options."""
    methods = cls.capabilities.compression
    option = compression_option(cls)
    if option is None:
        return list(methods)
    return [one for one in methods if one == options.get(option.name, option.default)]


def joined_texts(sets: list[Variant]) -> str:
    """Return several sets of options as one text.

    Examples
    --------
    >>> one, other = (Variant(name, {"codec": name}, None, {}) for name in ("zstd", "gzip"))
    >>> joined_texts([one, other])
    'codec: zstd or gzip'
    """
    by_names: dict[tuple[str, ...], list[Variant]] = {}
    for one in sets:
        by_names.setdefault(tuple(one.options), []).append(one)
    texts = []
    for names, some in by_names.items():
        if len(names) == 1:
            texts.append(f"{names[0]}: {either([str(one.options[names[0]]) for one in some])}")
        else:
            texts += [one.text for one in some]
    return " or with ".join(texts)


def _with_capabilities(cls: type[DataStorage], sets: list[dict[str, Any]]) -> list[Variant]:
    found = []
    default = dict(cls.capabilities.items())
    for options in sets:
        given = {name: value for name, value in options.items() if name != "path"}
        try:
            capabilities = cls.capabilities_for(given, options.get("path"))
        except Exception:  # a plugin can raise any exception
            continue
        own = dict(capabilities.items())
        differences = {key: value for key, value in own.items() if value != default.get(key)}
        found.append(Variant("", options, capabilities, differences))
    return found
