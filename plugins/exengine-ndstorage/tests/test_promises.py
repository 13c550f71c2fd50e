"""The conformance kit, on both backends."""

import pytest

from exengine.testing import StorageConformance

pytestmark = pytest.mark.once


class TestNDTiff(StorageConformance):
    backend = "ndtiff"


class TestNDRAM(StorageConformance):
    backend = "ndram"
