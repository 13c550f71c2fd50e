"""Datasets that the tests of the reader, the structure and the recovery read and damage."""

import sys
from pathlib import Path

import numpy as np
import pytest

import exengine

sys.path.insert(0, str(Path(__file__).parent))

from ndtiff_bytes import COUNT, at, in_order, pages_of


@pytest.fixture
def five(path, frame):
    """Write a finished dataset of five frames, and return its path."""
    with exengine.open_storage("ndtiff", path, summary_metadata={"who": "me"}) as storage:
        for number in range(5):
            storage.put(at(number), frame(at(number)), {"number": number})
    return path


@pytest.fixture
def foreign(five):
    """Return a dataset of five frames that does not record its writer."""
    (five / "exengine.json").unlink()
    (five / "exengine.lock").unlink()
    return five


@pytest.fixture
def others_are_whole(frame):
    """Return a function that checks the frames that were not damaged."""

    def check(dataset, broken):
        for number in set(range(5)) - set(broken):
            np.testing.assert_array_equal(dataset[at(number)], frame(at(number)))
            assert dataset.get_metadata(at(number)) == {"number": number}

    return check


@pytest.fixture
def put(frame):
    """Return a function that puts frames by their numbers."""

    def make(storage, numbers):
        for number in numbers:
            storage.put(at(number), frame(at(number)), {"number": number})

    return make


@pytest.fixture
def finished(path, new, put):
    """Create a finished dataset with three files; return its path."""
    storage = new(max_file_bytes=9000, summary_metadata={"who": "me"})
    put(storage, range(COUNT))
    storage.finish()
    storage.close()
    return path


@pytest.fixture
def cut_short(path, new, put):
    """Create a dataset that was closed but never finished; return its path."""
    storage = new(max_file_bytes=9000, summary_metadata={"who": "me"})
    put(storage, range(COUNT))
    storage.close()
    return path


@pytest.fixture
def assert_good(opened, frame, oracle, keys_of):
    """Return a function that checks that a dataset is finished, with these frames and no others."""

    def look(path, numbers, status="aborted", without_metadata=None):
        numbers = list(numbers)
        dataset = opened(path)
        assert dataset.status == status, dataset.status_reason
        assert [coordinates["time"] for coordinates in dataset] == numbers
        other = oracle(path)
        assert sorted(key["time"] for key in keys_of(other)) == numbers
        for number in numbers:
            wanted = frame(at(number))
            np.testing.assert_array_equal(dataset[at(number)], wanted, strict=True)
            metadata = dataset.get_metadata(at(number))
            if number == without_metadata:
                assert metadata == {} or "the metadata were lost" in metadata["exengine_note"]
            else:
                assert metadata == {"number": number}
            np.testing.assert_array_equal(other.read_image(**at(number)), wanted, strict=True)
        pages = [page for file in in_order(path) for page in pages_of(file)]
        assert len(pages) == len(numbers)
        for page, number in zip(pages, numbers, strict=True):
            np.testing.assert_array_equal(page, frame(at(number)), strict=True)

    return look
