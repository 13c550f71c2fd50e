"""The catalogues of hostile input: enough of it, with names of its own, and right about what the kernel does."""

import pytest

from exengine.kernel.data_coords import snapshot
from exengine.kernel.errors import CoordinatesError, MetadataError
from exengine.kernel.frames.metadata import clean_metadata
from exengine.testing import catalogues
from exengine.testing.subject import same_json

ENTRIES = {"COORDINATES": 60, "ARRAYS": 60, "METADATA": 60}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_catalogue_has_sixty_entries_with_names_of_their_own(name):
    ids = [entry.id for entry in getattr(catalogues, name)]
    assert len(ids) >= ENTRIES[name]
    assert len(set(ids)) == len(ids)


def test_there_are_sixty_names():
    assert len(set(catalogues.NAMES.values())) >= 60


@pytest.mark.parametrize("entry", catalogues.COORDINATES, ids=lambda entry: entry.id)
def test_the_kernel_agrees_about_coordinates(entry):
    if entry.outcome == catalogues.REFUSED:
        with pytest.raises(CoordinatesError):
            snapshot(entry.make())
    else:
        wanted = entry.make() if entry.wanted is ... else entry.wanted
        assert dict(snapshot(entry.make()).items()) == wanted


@pytest.mark.parametrize("entry", catalogues.METADATA, ids=lambda entry: entry.id)
def test_the_kernel_agrees_about_metadata(entry):
    if entry.outcome == catalogues.REFUSED:
        with pytest.raises(MetadataError):
            clean_metadata(entry.make())
    elif entry.outcome == catalogues.STORED:
        assert same_json(clean_metadata(entry.make()), entry.make() if entry.wanted is ... else entry.wanted)
