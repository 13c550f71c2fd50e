"""Fixtures of the unit tests: a backend that detects damage, and functions that damage its datasets."""

from pathlib import Path

import hypothesis
import pytest

# A slow machine is not a fault. Hypothesis itself sets no deadline where it knows that it runs in CI.
hypothesis.settings.register_profile("exengine", deadline=None)
hypothesis.settings.load_profile("exengine")


@pytest.fixture
def lines(installed, make_distribution, backends_of, monkeypatch):
    """Install the backend ``lines``, whose datasets are one file; return its class."""
    from exengine.kernel.registry import plugins

    source = (Path(__file__).parents[1] / "backends" / "one_file.py").read_text(encoding="utf-8")
    make_distribution("exengine-lines", {"lines": "exengine_lines:LinesStorage"}, source)
    monkeypatch.setattr(plugins, "BACKENDS", backends_of())
    return plugins.BACKENDS.load("lines")


@pytest.fixture
def checked(installed, make_distribution, backends_of, monkeypatch):
    """Install the backend ``checked`` in addition to ``memory`` and ``disk``; return its class."""
    from exengine.kernel.registry import plugins

    source = (Path(__file__).parents[1] / "backends" / "checked.py").read_text(encoding="utf-8")
    make_distribution("exengine-checked", {"checked": "exengine_checked:CheckedStorage"}, source)
    monkeypatch.setattr(plugins, "BACKENDS", backends_of())
    return plugins.BACKENDS.load("checked")
