"""The conformance kit, on the default options and with compression."""

import pytest

from exengine.testing import StorageConformance


class TestUncompressed(StorageConformance):
    backend = "hdf5"


@pytest.mark.once
class TestGzip(StorageConformance):
    backend = "hdf5"
    variant = "gzip"
