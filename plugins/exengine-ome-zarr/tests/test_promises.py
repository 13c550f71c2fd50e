"""The conformance kit, on the default options; ``EXENGINE_LONG=1`` runs it with each variant too."""

import os

import pytest

from exengine.testing import StorageConformance

pytestmark = pytest.mark.once


class TestUncompressed(StorageConformance):
    backend = "ome-zarr"


if os.environ.get("EXENGINE_LONG"):

    class TestCompressed(StorageConformance):
        backend = "ome-zarr"
        variant = "blosc-lz4"

    class TestSplit(StorageConformance):
        backend = "ome-zarr"
        variant = "split"
