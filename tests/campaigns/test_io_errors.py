"""A sample of the sweep of I/O errors, and the proof that its judge sees what it must see."""

import shutil
import subprocess

import pytest


@pytest.fixture
def sweep(campaign, cannot_run):
    """Return the campaign, where strace may trace."""
    if shutil.which("strace") is None:
        cannot_run("there is no strace")
    traced = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-e", "inject=getppid:retval=1", "true"],
        check=False,
        capture_output=True,
    )
    if traced.returncode:
        cannot_run(f"strace may not trace here: {traced.stderr.decode()}")

    return campaign


def test_every_error_is_told_and_what_was_acknowledged_is_safe(sweep):
    code, text = sweep("--count", 40, "--seed", 5)
    assert code == 0, text
    assert "runs: 40" in text and "broken: 0" in text


def test_every_error_of_ome_zarr_is_told(sweep, variant):
    code, text = sweep("--count", 20, "--seed", 5, *variant)
    assert code == 0, text
    assert "runs: 20" in text and "broken: 0" in text


def test_a_writer_that_hides_an_error_is_found(sweep):
    for case in ("direct:pwritev2:9:EIO", "direct:pwritev2:9+:ENOSPC", "handler:pwritev2:7:EDQUOT"):
        assert sweep("--only", case)[0] == 0
        code, text = sweep("--only", case, "--swallow")
        assert code == 1 and ("was not told" in text or "acknowledged and lost" in text), text


def test_a_writer_of_ome_zarr_that_hides_an_error_is_found(sweep):
    code, text = sweep("--only", "direct:pwritev2:12+:ENOSPC", "--swallow", "--backend", "ome-zarr")
    assert code == 1 and "BROKEN" in text, text


def test_the_library_alone_loses_what_it_acknowledged(sweep):
    code, text = sweep("--count", 60, "--backend", "ndstorage")
    assert code == 1
    assert "acknowledged and lost" in text  # P6
    assert "acknowledged after the first error" in text  # P7
