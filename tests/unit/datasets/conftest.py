"""Fixtures of the tests of datasets: a path, and a function that creates a dataset there."""

import numpy as np
import pytest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.checked"


@pytest.fixture
def make(checked, path):
    """Return a function that creates a dataset with a few frames, by default finished."""

    def make(count=5, finish=True, at=path, annotations=(), cls=checked, **options):
        storage = cls(at, **options)
        for time in range(count):
            storage.put({"time": time}, np.full((3, 4), time, np.uint16), {"time": time})
        for name, value in dict(annotations).items():
            storage.annotate(name, value)
        if finish:
            storage.finish()
        storage.close()

    return make
