"""bioio reads what ExEngine writes."""

import numpy as np
import pytest

import exengine
from exengine.base_classes import PlannedChannel, SourcePlan

# bioio-ome-tiff chooses a parser that ome-types no longer has.
warnings_of_bioio = pytest.mark.filterwarnings("ignore:As of version 0.4.0, the parser")


@pytest.fixture
def written(path):
    """Write two positions and channels, three planes, two time points and a frame that is missing."""
    frames = {}
    plan = SourcePlan(
        pixel_size_um=(0.5, 0.25),
        z_step_um=2.0,
        channels=(PlannedChannel("DAPI", "0000FF"), PlannedChannel("FITC")),
    )
    with exengine.open_storage("ome-tiff", path, compression="zlib") as storage:
        storage.expect(plan)
        for position in ("left", "right"):
            for time in range(2):
                for channel in ("DAPI", "FITC"):
                    for z in range(3):
                        if (position, time, z) == ("right", 1, 2):
                            continue
                        number = len(frames)
                        frames[position, time, channel, z] = (
                            np.arange(20, dtype=np.uint16).reshape(4, 5) + 100 * number
                        )
                        axes = {"position": position, "time": time, "channel": channel, "z": z}
                        storage.put(axes, frames[position, time, channel, z], {"exposure_ms": 10 + number})
    return frames


@warnings_of_bioio
def test_bioio_reads_equal_pixels_channel_names_and_pixel_sizes(path, written):
    from bioio_ome_tiff import Reader

    reader = Reader(str(path))
    names = [image.name for image in reader.ome_metadata.images]
    assert names == ["left", "right"] and len(reader.scenes) == 2
    for scene, position in enumerate(names):
        reader.set_scene(scene)
        array = reader.xarray_data
        assert array.dims == ("T", "C", "Z", "Y", "X") and array.shape == (2, 2, 3, 4, 5)
        assert reader.channel_names == ["DAPI", "FITC"]
        sizes = reader.physical_pixel_sizes
        assert (sizes.Z, sizes.Y, sizes.X) == (2.0, 0.5, 0.25)
        for time in range(2):
            for at, channel in enumerate(("DAPI", "FITC")):
                for z in range(3):
                    expected = written.get((position, time, channel, z), np.zeros((4, 5), np.uint16))
                    assert np.array_equal(array.values[time, at, z], expected), (position, time, channel, z)
        lazy = reader.xarray_dask_data.values
        assert np.array_equal(lazy, array.values)
    pixels = reader.ome_metadata.images[0].pixels
    assert [plane.exposure_time for plane in pixels.planes[:2]] == [0.01, 0.011]
