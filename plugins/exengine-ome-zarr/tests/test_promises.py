"""The conformance kit, on the default options and on each variant."""

from exengine.testing import StorageConformance


class TestUncompressed(StorageConformance):
    backend = "ome-zarr"


class TestCompressed(StorageConformance):
    backend = "ome-zarr"
    variant = "blosc-lz4"


class TestSplit(StorageConformance):
    backend = "ome-zarr"
    variant = "split"
