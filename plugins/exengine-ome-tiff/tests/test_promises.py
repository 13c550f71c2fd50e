"""The conformance kit, on the default options; ``EXENGINE_LONG=1`` runs it with each compression too."""

import os

import pytest

from exengine.testing import StorageConformance

pytestmark = pytest.mark.once


class TestUncompressed(StorageConformance):
    backend = "ome-tiff"


if os.environ.get("EXENGINE_LONG"):

    class TestZlib(StorageConformance):
        backend = "ome-tiff"
        variant = "zlib"

    class TestZstd(StorageConformance):
        backend = "ome-tiff"
        variant = "zstd"
