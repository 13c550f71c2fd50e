"""The variants of a backend: named sets of options with which the backend is tested and documented."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import PluginError, describe
from exengine.kernel.registry.options import validate_options
from exengine.kernel.wording import a


@dataclass(frozen=True)
class Variant:
    """A backend with a named set of options.

    Attributes
    ----------
    name : str
    options : mapping
        The options that differ from the defaults.
    capabilities : StorageCapabilities
        The capabilities with these options.
    differences : dict
        The capabilities that these options change: name -> new value.
    """

    name: str
    options: Mapping[str, Any]
    capabilities: StorageCapabilities
    differences: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The options as a string, such as ``codec: blosc-lz4``."""
        return ", ".join(f"{name}: {value}" for name, value in self.options.items())


def variants_of(cls: type[DataStorage]) -> list[Variant]:
    """Return the variants that a backend defines.

    Raises
    ------
    PluginError
        If the variants are not named sets of options, or if a variant does not report its capabilities.
    """
    if not isinstance(cls.variants, Mapping):
        raise PluginError(f"`variants` of {cls.__name__} is {a(type(cls.variants).__name__)}, not a mapping")
    return [_variant(cls, name, options) for name, options in cls.variants.items()]


def _variant(cls: type[DataStorage], name: Any, options: Any) -> Variant:
    where = f"variant {name!r:.60} of {cls.__name__}"
    if not (isinstance(name, str) and name and isinstance(options, Mapping) and options):
        raise PluginError(f"{where} must have a name and a mapping of at least one option")
    options = validate_options(cls, options, where)
    try:
        capabilities = cls.capabilities_for(options)
        default, own = dict(cls.capabilities.items()), dict(capabilities.items())
        differences = {key: value for key, value in own.items() if value != default.get(key)}
    except Exception as error:
        raise PluginError(f"{where} does not report its capabilities: {describe(error)}") from error
    return Variant(name, options, capabilities, differences)
