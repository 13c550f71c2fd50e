"""The capabilities of a dataset follow from its options."""

import dataclasses

import pytest

from exengine.datasets.creation import StoragePlan
from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.errors import ConfigError, OptionError, PluginError
from exengine.kernel.registry import plugins


@pytest.fixture
def disk(installed):
    return plugins.BACKENDS.load("disk")


def test_by_default_they_are_those_of_the_class(disk, tmp_path):
    assert StoragePlan("disk", tmp_path / "data", options={}).capabilities is disk.capabilities


def test_they_are_asked_for_with_the_options_and_the_path(disk, tmp_path, monkeypatch):
    asked = []

    def capabilities_for(cls, options, path=None, /):
        asked.append((options, path))
        return dataclasses.replace(cls.capabilities, remote=True)

    monkeypatch.setattr(disk, "capabilities_for", classmethod(capabilities_for))
    assert StoragePlan("disk", tmp_path / "data", options={}).capabilities.remote
    assert asked == [({}, str(tmp_path / "data"))]


def test_a_url_is_accepted_only_where_they_say_so(disk, monkeypatch):
    with pytest.raises(ConfigError, match="writes only to folders"):
        StoragePlan("disk", "s3://bucket/data", options={})
    monkeypatch.setattr(
        disk,
        "capabilities_for",
        classmethod(lambda cls, *_: StorageCapabilities(persistent=True, remote=True)),
    )
    assert StoragePlan("disk", "s3://bucket/data", options={}).path == "s3://bucket/data"


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (OptionError("codec and level"), OptionError, "codec and level"),
        (ZeroDivisionError("oh"), PluginError, "'disk' does not report its capabilities: .*oh"),
        ({}, PluginError, "returned a dict, not StorageCapabilities"),
    ],
)
def test_a_backend_that_cannot_tell_is_named(disk, tmp_path, monkeypatch, returned, error, message):
    def capabilities_for(cls, options, path=None, /):
        if isinstance(returned, Exception):
            raise returned
        return returned

    monkeypatch.setattr(disk, "capabilities_for", classmethod(capabilities_for))
    with pytest.raises(error, match=message):
        StoragePlan("disk", tmp_path / "data", options={}).capabilities  # noqa: B018
