"""What the tests share: a sink that keeps frames, and config files for real device adapters."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mm_test_adapters
import pytest

from exengine_micromanager import MicroManagerSource

# pytest's importlib mode puts no folder of tests on the path; demo_lab.py is found here.
sys.path.insert(0, str(Path(__file__).parent))


class Frames(list):
    """A sink: a list of (coordinates, pixels, metadata)."""

    def __call__(self, coordinates, pixels, metadata):
        self.append((coordinates, pixels, metadata))

    @property
    def coordinates(self):
        return [dict(coordinates) for coordinates, _, _ in self]


@pytest.fixture
def frames() -> Frames:
    return Frames()


@pytest.fixture
def make() -> Iterator[Callable[..., MicroManagerSource]]:
    """Make sources that are closed at the end of the test. Their small buffer is created faster."""
    made = []

    def make_source(**options) -> MicroManagerSource:
        made.append(MicroManagerSource(**{"buffer_mb": 32, **options}))
        return made[-1]

    yield make_source
    for source in made:
        source.close()


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str], str]:
    """Write a .cfg file; return its path."""

    def write(text: str) -> str:
        path = tmp_path / "microscope.cfg"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def adapters() -> str:
    return mm_test_adapters.device_adapter_path()
