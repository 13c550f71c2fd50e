"""The conformance kit, on the default options and on each variant."""

import pytest

from exengine.testing import StorageConformance

pytestmark = pytest.mark.once


class TestUncompressed(StorageConformance):
    backend = "ome-zarr"


class TestCompressed(StorageConformance):
    backend = "ome-zarr"
    variant = "blosc-lz4"


class TestSplit(StorageConformance):
    backend = "ome-zarr"
    variant = "split"
