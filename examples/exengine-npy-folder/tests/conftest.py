import tempfile

import pytest


@pytest.fixture(autouse=True)
def _temporary_folders_below_tmp_path(tmp_path, monkeypatch):
    """Let a storage without a path leave its dataset where pytest cleans up."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
