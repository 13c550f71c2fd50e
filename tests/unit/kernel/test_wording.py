"""Words of messages: which known names a message suggests for an unknown one."""

import pytest

from exengine.kernel.wording import near_names

KEYS = ["storage.backend", "storage.path", "storage.if_exists", "handler.when_full", "storage.options.NAME"]


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("storage.pth", KEYS, ["storage.path"]),
        ("storage.if_exist", KEYS, ["storage.if_exists"]),
        ("Storage.If-Exists", KEYS, ["storage.if_exists"]),
        ("storage.xyz", KEYS, []),  # the section is the same, and nothing else
        ("storge.path", KEYS, ["storage.path"]),
        ("handler.when_ful", KEYS, ["handler.when_full"]),
        ("run_1.tif", ["run_2.tif", "notes.txt"], ["run_2.tif"]),
        ("data.v1", ["data.v2"], ["data.v2"]),
        ("data.zar", ["data.zarr"], ["data.zarr"]),
        ("ndtif", ["ndram", "ndtiff"], ["ndtiff"]),
        ("ndtiff", [], []),
    ],
)
def test_names_are_suggested_for_what_was_mistyped(name, known, near):
    assert near_names(name, known) == near
