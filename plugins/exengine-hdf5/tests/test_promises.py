"""The conformance kit, on the default options; ``EXENGINE_LONG=1`` runs it with compression too."""

import os

import pytest

from exengine.testing import StorageConformance

pytestmark = pytest.mark.once


class TestUncompressed(StorageConformance):
    backend = "hdf5"


if os.environ.get("EXENGINE_LONG"):

    class TestGzip(StorageConformance):
        backend = "hdf5"
        variant = "gzip"
