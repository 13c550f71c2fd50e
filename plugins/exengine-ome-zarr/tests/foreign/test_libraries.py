"""Datasets that the libraries of the field write.

``yaozarrs`` and ``tensorstore`` are in the plugin's ``test`` extra. The other libraries are used if
``EXENGINE_INTEROP`` is set, which requires all of them and Python 3.12.
"""

import json
import os

import numpy as np
import pytest
from hand_made import group, multiscales, numbered

from exengine_ome_zarr.foreign import is_ome_zarr, open_foreign

DATA = numbered(2, 3, 4, 32, 48)
IMAGES = [DATA, DATA + np.uint16(1)]

interop = [
    pytest.mark.interop,
    pytest.mark.skipif(not os.environ.get("EXENGINE_INTEROP"), reason="EXENGINE_INTEROP is not set"),
    pytest.mark.filterwarnings("ignore"),  # the warnings of the libraries
]


def library(test):
    for mark in interop:
        test = mark(test)
    return test


def check(path, images):
    """Compare every frame of every position with the images, and return the dataset."""
    assert is_ome_zarr(path)
    dataset = open_foreign(path)
    axes = dataset.axes
    assert len(dataset) == 24 * len(images)
    for coordinates in dataset:
        data = images[axes["position"].index(coordinates["position"]) if "position" in axes else 0]
        place = tuple(axes[axis].index(coordinates[axis]) for axis in ("time", "channel", "z"))
        np.testing.assert_array_equal(dataset[coordinates], data[place])
    assert dataset.check_structure() == [] and dataset.status == "complete"
    stacked = np.stack(images) if "position" in axes else images[0]
    np.testing.assert_array_equal(dataset.as_array().compute(), stacked)
    return dataset


@pytest.mark.parametrize("shards", [None, [1, 1, 4, 32, 48]])
def test_tensorstore(path, shards):
    import tensorstore

    group(path, {"multiscales": multiscales("tczyx")})
    compress = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 1}},
    ]
    chunk = [1, 1, 2, 16, 16]
    if shards:
        codecs = [{"name": "sharding_indexed", "configuration": {"chunk_shape": chunk, "codecs": compress}}]
    else:
        codecs = compress
    made = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(path / "0")},
            "metadata": {
                "shape": list(DATA.shape),
                "data_type": "uint16",
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shards or chunk}},
                "codecs": codecs,
            },
        },
        create=True,
    ).result()
    made[...].write(DATA).result()
    check(path, [DATA])


@pytest.mark.filterwarnings("ignore")
def test_yaozarrs(path):
    from yaozarrs import v05
    from yaozarrs.write.v05 import write_image

    scale = v05.ScaleTransformation(scale=[0.5, 1, 2, 0.25, 0.25])
    described = v05.Image(
        multiscales=[
            v05.Multiscale(
                name="cells",
                axes=[
                    v05.TimeAxis(name="t", unit="second"),
                    v05.ChannelAxis(name="c"),
                    v05.SpaceAxis(name="z", unit="micrometer"),
                    v05.SpaceAxis(name="y", unit="micrometer"),
                    v05.SpaceAxis(name="x", unit="micrometer"),
                ],
                datasets=[v05.Dataset(path="0", coordinateTransformations=[scale])],
            )
        ],
        omero=v05.Omero(
            channels=[
                v05.OmeroChannel(
                    label=label, color="FFFFFF", window={"min": 0, "max": 9, "start": 0, "end": 9}
                )
                for label in ("a", "b", "c")
            ]
        ),
    )
    write_image(path, described, [DATA], writer="tensorstore")
    dataset = check(path, [DATA])
    assert dataset.axes["channel"] == ["a", "b", "c"]
    assert dataset.summary_metadata["pixel_size_um"] == [0.25, 0.25]


@library
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_images(path, version):
    import ome_zarr.format
    from ome_zarr.writer import write_image

    given = {"0.4": ome_zarr.format.FormatV04, "0.5": ome_zarr.format.FormatV05}[version]()
    write_image(DATA, str(path), axes="tczyx", fmt=given)
    dataset = check(path, [DATA])
    assert dataset.resolution_levels[:2] == (0, 1)
    assert dataset.level(1)[{"time": 0, "channel": 0, "z": 0}].shape == (16, 24)


@library
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_plates(path, version):
    import ome_zarr.format
    import zarr
    from ome_zarr.writer import write_image, write_plate_metadata, write_well_metadata

    given = {"0.4": ome_zarr.format.FormatV04, "0.5": ome_zarr.format.FormatV05}[version]()
    root = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    write_plate_metadata(root, ["A"], ["1", "2"], ["A/1", "A/2"], fmt=given)
    for well, data in zip(("A/1", "A/2"), IMAGES, strict=True):
        made = root.require_group(well)
        write_well_metadata(made, ["0"], fmt=given)
        write_image(data, made.require_group("0"), axes="tczyx", fmt=given)
    assert check(path, IMAGES).axes["position"] == ["A/1/0", "A/2/0"]


@library
@pytest.mark.parametrize(
    ("version", "suffix"),
    [("0.4", ".ome.zarr"), ("0.5", ".ome.zarr"), ("0.6", ".ome.zarr"), ("0.5", ".ozx"), ("0.6", ".ozx")],
)
@pytest.mark.parametrize("shards", [None, 2])
def test_ngff_zarr(tmp_path, version, suffix, shards):
    import ngff_zarr

    if version == "0.4" and shards:
        shards = None  # Zarr v2 has no shards
    path = tmp_path / f"made{suffix}"
    units = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
    made = ngff_zarr.to_ngff_image(
        DATA,
        dims=tuple("tczyx"),
        scale={"t": 0.5, "c": 1.0, "z": 2.0, "y": 0.25, "x": 0.25},
        axes_units=units,
        name="cells",
    )
    ngff_zarr.to_ngff_zarr(
        str(path),
        ngff_zarr.to_multiscales(made, scale_factors=[2], chunks=16),
        version=version,
        chunks_per_shard=shards,
    )
    dataset = check(path, [DATA])
    assert dataset.resolution_levels == (0, 1)
    summary = dataset.summary_metadata
    assert (
        summary["pixel_size_um"] == [0.25, 0.25]
        and summary["z_step_um"] == 2.0
        and summary["interval_s"] == 0.5
    )


@library
@pytest.mark.parametrize("backend", ["zarr-python", "tensorstore", "acquire-zarr"])
@pytest.mark.parametrize("positions", [1, 2])
def test_ome_writers(tmp_path, backend, positions):
    import ome_writers as ow

    path = tmp_path / "made.ome.zarr"
    dimensions = [
        ow.PositionDimension(coords=[ow.Position(name=f"Pos{number}") for number in range(positions)]),
        ow.Dimension(name="t", count=2, scale=0.5, unit="second"),
        ow.Dimension(name="c", coords=[ow.Channel(name=name) for name in ("a", "b", "c")]),
        ow.Dimension(name="z", count=4, scale=2.0, unit="micrometer"),
        ow.Dimension(name="y", count=32, chunk_size=16, scale=0.25, unit="micrometer"),
        ow.Dimension(name="x", count=48, chunk_size=16, scale=0.25, unit="micrometer"),
    ]
    settings = ow.AcquisitionSettings(
        root_path=str(path), dimensions=dimensions, dtype="uint16", format=ow.OmeZarrFormat(backend=backend)
    )
    with ow.create_stream(settings) as stream:
        for position in range(positions):
            for number, frame in enumerate(IMAGES[position].reshape(-1, 32, 48)):
                stream.append(frame, frame_metadata={"number": number, "position": position})
    dataset = check(path, IMAGES[:positions])
    assert dataset.axes["channel"] == ["a", "b", "c"]
    assert dataset.summary_metadata["pixel_size_um"] == [0.25, 0.25]
    last = list(dataset)[-1]
    assert dataset.get_metadata(last) == {"number": 23, "position": positions - 1}
    if positions > 1:
        assert dataset.axes["position"] == ["Pos0", "Pos1"]


@library
@pytest.mark.parametrize("shard", [1, 2])
def test_acquire_zarr(path, shard):
    import acquire_zarr as aqz

    kinds = aqz.DimensionType
    dimensions = [
        aqz.Dimension(name=name, kind=kind, array_size_px=size, chunk_size_px=chunk, shard_size_chunks=shard)
        for name, kind, size, chunk in (
            ("t", kinds.TIME, 0, 1),
            ("c", kinds.CHANNEL, 3, 1),
            ("z", kinds.SPACE, 4, 1),
            ("y", kinds.SPACE, 32, 16),
            ("x", kinds.SPACE, 48, 12),
        )
    ]
    settings = aqz.StreamSettings(
        store_path=str(path),
        arrays=[
            aqz.ArraySettings(
                dimensions=dimensions,
                data_type=aqz.DataType.UINT16,
                downsampling_method=aqz.DownsamplingMethod.MEAN,
            )
        ],
    )
    stream = aqz.ZarrStream(settings)
    stream.append(DATA)
    stream.close()
    check(path, [DATA])


@library
def test_the_metadata_that_ome_zarr_reads_are_those_that_the_reader_shows(path):
    import ome_zarr.format
    from ome_zarr.writer import write_image

    write_image(DATA, str(path), axes="tczyx", fmt=ome_zarr.format.FormatV05())
    stored = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    assert open_foreign(path).summary_metadata["ome"] == stored
