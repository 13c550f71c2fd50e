"""The conformance kit, without and with compression; ``EXENGINE_LONG=1`` runs it with split shards too."""

import os

import pytest

from exengine.testing import StorageConformance

pytestmark = pytest.mark.once


class TestUncompressed(StorageConformance):
    backend = "ome-zarr"


class TestCompressed(StorageConformance):
    backend = "ome-zarr"
    variant = "blosc-lz4"


if os.environ.get("EXENGINE_LONG"):

    class TestSplit(StorageConformance):
        backend = "ome-zarr"
        variant = "split"
