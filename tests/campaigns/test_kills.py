"""``kill -9`` in short: the campaign of ``kills.py``, and that it sees what it must."""

from itertools import product

import pytest
from results import NIGHTLY

SEEN = {"acknowledge-early": "frames lost", "index-first": "frames torn or wrong"}
WRONG = [*product(["ndtiff", "ome-zarr", "hdf5"], SEEN)]
COUNTS = {"ndtiff": 40, "ome-zarr": 12, "hdf5": 20}


def test_after_30_kills_no_acknowledged_frame_is_lost_none_is_torn_and_each_dataset_recovers(
    campaign, figure
):
    code, text = campaign("--count", 30)
    assert code == 0, text
    assert figure(text, "kills") == 30
    assert figure(text, "frames acknowledged") > 150
    assert figure(text, "frames lost") == figure(text, "frames torn or wrong") == 0
    assert figure(text, "recovered") > 15


def test_no_acknowledged_frame_of_ome_zarr_is_lost_and_other_programs_see_each(campaign, figure, variant):
    code, text = campaign("--count", 10, *variant)
    assert code == 0, text
    assert figure(text, "kills") == 10
    assert figure(text, "frames acknowledged") > 40
    assert figure(text, "frames lost") == figure(text, "frames torn or wrong") == 0
    assert figure(text, "recovered") > 1 and figure(text, "recovered in place") > 1
    assert figure(text, "frames read by others, recovered in place") > 15
    assert ("at once" in text) == (len(variant) == 2)


@pytest.mark.parametrize(("backend", "reader"), [("hdf5", "h5py"), ("ome-tiff", "tifffile")])
def test_no_acknowledged_frame_of_one_file_is_lost_and_its_reader_opens_each_recovered_dataset(
    campaign, figure, backend, reader
):
    code, text = campaign("--count", 10, "--backend", backend)
    assert code == 0, text
    assert figure(text, "kills") == 10
    assert figure(text, "frames lost") == figure(text, "frames torn or wrong") == 0
    assert figure(text, f"recovered and read by {reader}") > 2


def test_the_library_alone_loses_acknowledged_frames_or_the_campaign_is_blind(campaign, figure):
    code, text = campaign("--count", 10, "--backend", "ndstorage", "--recover-every", 0)
    assert code == 1, text
    assert figure(text, "frames lost") > 0


@pytest.mark.parametrize(("backend", "spoil"), WRONG if NIGHTLY else WRONG[::4] + WRONG[3::4])
def test_a_writer_that_is_made_wrong_is_found_out(campaign, spoil, figure, backend):
    code, text = campaign(
        "--count", COUNTS[backend], "--backend", backend, "--spoil", spoil, "--recover-every", 0
    )
    assert code == 1, text
    assert figure(text, SEEN[spoil]) > 0
