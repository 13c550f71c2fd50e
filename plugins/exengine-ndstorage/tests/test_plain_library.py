"""The kit is not blind: for the library ``ndstorage`` as it is, it goes red where that is known to be wrong."""

import gc
import importlib
import re
import sys
from pathlib import Path

import pytest

from exengine.testing import reports_of

RED = {
    "P2": "was refused, but is in the storage",
    "P4": "where a frame exists, returned, but must raise CoordinatesExistError",
    "P5": "a finished or closed storage accepted a frame",
    "P6": "lost frames: [0-9]+ of (30|1);",
}
"""Promise -> what the kit has to find, and not any other fault that the library or the adapter has besides."""


MODEL = "test_any_sequence_of_calls_does_to_the_storage_what_it_does_to_a_dict"


@pytest.fixture
def plain(monkeypatch):
    """Return the class that hands everything to the library."""
    from ndstorage import ndtiff_file

    # Its files have 4 GiB at once, full of nothing; the kit reads all bytes of a dataset.
    monkeypatch.setattr(ndtiff_file, "MAX_FILE_SIZE", 2**23)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield importlib.import_module("plain_library").PlainStorage
    sys.modules.pop("plain_library", None)
    gc.collect()  # here, where the warnings about files that the library has left open are ignored


def reports_about(label, cls, folder):
    """Return the reports about a promise, without the tests that inject I/O errors as well."""
    return [*reports_of(cls, folder, label, without=("P7", MODEL))]


@pytest.mark.filterwarnings("ignore")  # the library leaves files open
@pytest.mark.parametrize("label", RED)
def test_the_kit_goes_red_for_the_library_as_it_is(label, plain, tmp_path):
    told = [report for report in reports_about(label, plain, tmp_path) if report.outcome == "broken"]
    assert any(re.search(RED[label], report.message) for report in told), told


@pytest.mark.filterwarnings("ignore")
def test_the_same_adapter_is_green_where_the_library_keeps_its_word(plain, tmp_path):
    kept = {report.test for report in reports_about("P3", plain, tmp_path) if report.outcome == "kept"}
    assert "test_changing_metadata_after_put_changes_nothing_stored" in kept
