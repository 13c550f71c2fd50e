"""Every library of the field shows the pixels and the metadata that were written."""

import numpy as np
import pytest
import readers
from samples import SAMPLES

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, which warn each other


def check(image, seen):
    """Compare an image with what a library shows of it."""
    if seen.dims is not None and len(seen.dims) != len(image.dims):
        added = [number for number, dim in enumerate(seen.dims) if dim not in image.dims]
        seen.data = seen.data.squeeze(axis=tuple(added))
        seen.scale = [value for number, value in enumerate(seen.scale) if number not in added]
        seen.dims = "".join(dim for dim in seen.dims if dim in image.dims)
    assert seen.dims in (None, image.dims)
    assert seen.data.dtype == image.data.dtype
    np.testing.assert_array_equal(seen.data, image.data)
    for name in ("name", "scale", "translation", "units", "channels", "colors"):
        value = getattr(seen, name)
        assert value is None or value == pytest.approx(getattr(image, name)), name
    if seen.levels is not None:
        assert len(seen.levels) == len(image.levels)
        for level, expected in zip(seen.levels, image.levels, strict=True):
            np.testing.assert_array_equal(level, expected)


@pytest.mark.parametrize("library", readers.LIBRARIES)
@pytest.mark.parametrize("name", SAMPLES)
def test_a_library_shows_what_was_written(made, name, library):
    sample = made(name)
    for image in sample.images:
        check(image, readers.LIBRARIES[library](sample.path, image.path))


@pytest.mark.parametrize("name", SAMPLES)
def test_zarrita_shows_what_was_written_over_http(made, served, zarrita_modules, name):
    sample = made(name)
    for image in sample.images[:2]:
        address = f"{served(sample.path)}/{image.path}".rstrip("/")
        check(image, readers.zarrita(address, zarrita_modules))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_validators_accept_the_dataset(made, name):
    import yaozarrs
    import zarr
    from ome_zarr_models import v05

    sample = made(name)
    yaozarrs.validate_zarr_store(str(sample.path))
    group = zarr.open_group(sample.path, mode="r")
    kinds = {"image": v05.Image, "series": v05.BioFormats2Raw, "plate": v05.HCS}
    kinds[sample.kind].from_zarr(group)


def test_iohub_opens_the_series_and_the_plate_as_such(made):
    from iohub import open_ome_zarr

    sample = made("plate")
    with open_ome_zarr(sample.path, layout="hcs", mode="r") as opened:
        found = dict(opened.positions())
    assert list(found) == [image.path for image in sample.images]
    sample = made("series")
    with open_ome_zarr(sample.path, layout="bf2raw", mode="r") as opened:
        for number, image in enumerate(sample.images):
            np.testing.assert_array_equal(np.asarray(opened[str(number)]["0"]), image.data)


def test_ome_zarr_py_opens_the_plate_as_one_picture(made):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    sample = made("plate")
    (node,) = Reader(parse_url(str(sample.path), mode="r"))()
    picture = node.data[0].compute()
    assert picture.shape[-2:] == (4 * 48, 6 * 64)  # a field of each well, of 4 rows and 6 columns
    fields = {image.path: image.data for image in sample.images}
    np.testing.assert_array_equal(picture[..., :48, 64:128], fields["A/2/0"])
    np.testing.assert_array_equal(picture[..., 48:96, 64:128], fields["B/2/0"])
    assert not picture[..., 96:, :].any()


def test_the_ome_xml_of_a_series_is_valid(made):
    import ome_types

    sample = made("series")
    described = ome_types.from_xml(sample.path / "OME" / "METADATA.ome.xml", validate=False)
    assert [image.id for image in described.images] == [f"Image:{image.path}" for image in sample.images]
    for image, found in zip(sample.images, described.images, strict=True):
        pixels = found.pixels
        sizes = [getattr(pixels, f"size_{dim}") for dim in image.dims]
        assert tuple(sizes) == image.data.shape and found.name == image.name
        assert [channel.name for channel in pixels.channels] == image.channels
        assert [pixels.physical_size_z, pixels.physical_size_y, pixels.physical_size_x] == image.scale[2:]
        assert [found.stage_label.z, found.stage_label.y, found.stage_label.x] == image.translation[2:]
        assert pixels.time_increment == image.scale[0]
