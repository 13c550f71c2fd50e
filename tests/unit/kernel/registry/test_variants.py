"""The variants that a backend names: sets of its options, and what differs with them."""

import dataclasses
from typing import Literal

import pytest

from exengine.base_classes import DataStorage, StorageCapabilities
from exengine.kernel.errors import OptionError, PluginError
from exengine.kernel.registry.variants import variants_of


class Packed(DataStorage):
    """Pack frames."""

    capabilities = StorageCapabilities(persistent=True, live_readers=("zarr",))
    variants = {"small": {"codec": "zstd", "level": 3}, "same": {"level": 2}}  # noqa: RUF012

    def __init__(self, path: str, codec: Literal["none", "zstd"] = "none", level: int = 1) -> None: ...

    @classmethod
    def capabilities_for(cls, options, path=None, /):
        if options.get("codec") == "zstd":
            return dataclasses.replace(cls.capabilities, live_readers=(), compression=("zstd",))
        return cls.capabilities


def changed(**members):
    return type("Changed", (Packed,), members)


def test_a_variant_has_its_options_and_what_differs_from_the_default():
    small, same = variants_of(Packed)
    assert (small.name, small.text) == ("small", "codec: zstd, level: 3")
    assert dict(small.differences) == {"live_readers": (), "compression": ("zstd",)}
    assert small.capabilities.persistent and same.differences == {}
    assert variants_of(DataStorage) == []


@pytest.mark.parametrize(
    ("variants", "error", "message"),
    [
        ([], PluginError, "`variants` of Changed is a list, not a mapping"),
        (
            {"": {"level": 1}},
            PluginError,
            "variant '' of Changed must have a name and a mapping of at least one option",
        ),
        ({"a": {}}, PluginError, "must have a name and a mapping of at least one option"),
        ({"a": 3}, PluginError, "must have a name and a mapping of at least one option"),
        ({"a": {"codec": "zip"}}, OptionError, "'codec' of variant 'a' of Changed"),
        ({"a": {"lvel": 1}}, OptionError, "did you mean 'level'"),
    ],
)
def test_what_is_no_variant_is_named(variants, error, message):
    with pytest.raises(error, match=message):
        variants_of(changed(variants=variants))


@pytest.mark.parametrize("function", [lambda cls, *_: None, lambda cls, *_: 1 / 0])
def test_capabilities_that_cannot_be_told_are_an_error_of_the_plugin(function):
    with pytest.raises(PluginError, match="variant 'small' of Changed does not report its capabilities"):
        variants_of(changed(capabilities_for=classmethod(function)))
