"""The conformance kit, on the default options and with compression."""

from exengine.testing import StorageConformance


class TestUncompressed(StorageConformance):
    backend = "hdf5"


class TestGzip(StorageConformance):
    backend = "hdf5"
    variant = "gzip"
