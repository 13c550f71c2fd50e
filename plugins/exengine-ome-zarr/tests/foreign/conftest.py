"""Fixtures for datasets that other programs wrote."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config):
    config.addinivalue_line("markers", "interop: writes with a library that needs Python 3.12")
    config.addinivalue_line("markers", "changes_files: changes a dataset that is open")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made.ome.zarr"


@pytest.fixture(autouse=True)
def nothing_is_written(request, tmp_path):
    """Fail a test in which opening or reading a dataset changes its files, while its folder still exists."""
    import exengine_ome_zarr.foreign.images as images

    def snapshot(path):
        files = [Path(path)] if Path(path).is_file() else sorted(Path(path).rglob("*"))
        return {str(file): (file.lstat().st_mtime_ns, file.lstat().st_size) for file in files}

    seen = {}
    original = images.ForeignDataset.__init__

    def noting(self, path):
        seen.setdefault(path, snapshot(path))
        original(self, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images.ForeignDataset, "__init__", noting)
        yield
    for where, before in seen.items() if request.node.get_closest_marker("changes_files") is None else ():
        assert snapshot(where) == before, f"{where} was changed"
