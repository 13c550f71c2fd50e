"""The kit of sources, on the demo microscope."""

from exengine.testing import SourceConformance


class TestMicroManager(SourceConformance):
    source = "micromanager"
