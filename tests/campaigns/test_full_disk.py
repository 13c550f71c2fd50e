"""Some of the ways in which something runs out, and the proof that the judge sees a writer that hides it."""

import pytest

pytest.importorskip("resource", reason="limits of a process are those of POSIX")


@pytest.mark.parametrize("kind", ["disk", "inodes", "file-size", "descriptors", "memory"])
def test_the_call_that_met_it_tells_and_all_frames_before_are_readable(campaign, kind):
    code, text = campaign("--kinds", kind)
    assert code == 0, text
    assert f"runs: {kind}: " in text and "broken: 0" in text
    if kind in ("disk", "file-size", "descriptors"):
        assert f"{kind}, told by put: " in text and f"{kind}, told by handler: " in text


def test_an_inode_table_is_full_at_every_step_of_a_dataset(campaign):
    _, text = campaign("--kinds", "inodes")
    for step in ("create", "put", "finish", "handler", "nothing ran out"):
        assert f"inodes, told by {step}: " in text


@pytest.mark.parametrize(("backend", "library"), [("hdf5", "h5py"), ("ome-tiff", "tifffile")])
def test_a_limit_that_put_or_finish_of_one_file_meets_costs_no_frame_and_recover_makes_the_file(
    campaign, figure, backend, library
):
    code, text = campaign("--kinds", "disk", "file-size", "--every", 5, "--backend", backend)
    assert code == 0, text
    assert "broken: 0" in text
    for kind in ("disk", "file-size"):
        for step in ("put", "finish"):
            assert figure(text, f"{kind}, told by {step}") > 0
    assert figure(text, f"recovered, and read by {library}") > 5


def test_a_writer_of_one_file_that_hides_that_the_disk_is_full_is_found(campaign):
    code, text = campaign("--only", "disk:96:direct", "--swallow", "--backend", "hdf5")
    assert code == 1 and "acknowledged, readable" in text


def test_a_writer_that_hides_that_the_disk_is_full_is_found(campaign):
    code, text = campaign("--kinds", "disk", "--every", 7, "--swallow")
    assert code == 1 and "acknowledged, readable" in text
