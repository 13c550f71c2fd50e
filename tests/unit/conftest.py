"""Fixtures of the unit tests: a backend that finds damage, and what damages it."""

from pathlib import Path

import pytest


@pytest.fixture
def checked(installed, make_distribution, backends_of, monkeypatch):
    """Install the backend ``checked`` beside ``memory`` and ``disk``; return its class."""
    from exengine.kernel.registry import plugins

    source = (Path(__file__).parents[1] / "backends" / "checked.py").read_text(encoding="utf-8")
    make_distribution("exengine-checked", {"checked": "exengine_checked:CheckedStorage"}, source)
    monkeypatch.setattr(plugins, "BACKENDS", backends_of())
    return plugins.BACKENDS.load("checked")
