"""The conformance kit, on the default options and on each variant."""

import pytest

from exengine.testing import StorageConformance


class TestUncompressed(StorageConformance):
    backend = "ome-zarr"


@pytest.mark.once
class TestCompressed(StorageConformance):
    backend = "ome-zarr"
    variant = "blosc-lz4"


@pytest.mark.once
class TestSplit(StorageConformance):
    backend = "ome-zarr"
    variant = "split"
