import tempfile

import pytest


@pytest.fixture(autouse=True)
def _temporary_folders_below_tmp_path(tmp_path, monkeypatch):
    """Make datasets without a given path use a folder that pytest removes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
