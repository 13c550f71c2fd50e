"""Reads an image with each library. Facts that a library does not show are None."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_ZARRITA = Path(__file__).with_name("zarrita.mjs")


@dataclass(kw_only=True)
class Seen:
    """An image as a library shows it. Dimensions that the library adds have length 1 and are removed."""

    data: Any
    dims: str | None = None
    name: str | None = None
    scale: list[float] | None = None
    translation: list[float] | None = None
    units: dict[str, str] | None = None
    channels: list[str] | None = None
    colors: list[str] | None = None
    levels: list[Any] | None = None


def _transformed(transformations):
    """Return scale and translation of a list of OME-Zarr transformations, as dicts or as models."""
    found = {}
    for each in transformations:
        each = each if isinstance(each, dict) else each.model_dump()
        found[each["type"]] = list(each[each["type"]])
    scale = found["scale"]
    return scale, found.get("translation", [0.0] * len(scale))


def _described(attributes):
    """Return the facts in the attributes of an image, as keyword arguments of :class:`Seen`."""
    ome = attributes["ome"]
    (multiscales,) = ome["multiscales"]
    scale, translation = _transformed(multiscales["datasets"][0]["coordinateTransformations"])
    channels = ome["omero"]["channels"]
    return {
        "dims": "".join(axis["name"] for axis in multiscales["axes"]),
        "name": multiscales["name"],
        "scale": scale,
        "translation": translation,
        "units": {axis["name"]: axis["unit"] for axis in multiscales["axes"] if axis.get("unit")},
        "channels": [channel["label"] for channel in channels],
        "colors": [channel["color"] for channel in channels],
    }


def zarr_python(path, image):
    import zarr

    group = zarr.open_group(path / image, mode="r")
    array, *levels = (group[str(number)] for number in range(len(list(group.arrays()))))
    found = _described(dict(group.attrs))
    assert "".join(array.metadata.dimension_names) == found["dims"]
    return Seen(data=array[...], levels=[level[...] for level in levels], **found)


def tensorstore(path, image):
    import tensorstore as ts

    folder = path / image / "0"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    array = ts.open(spec, read=True, open=True).result()
    return Seen(data=array.read().result(), dims="".join(array.domain.labels))


def yaozarrs(path, image):
    import yaozarrs
    from yaozarrs import v05

    group = yaozarrs.open_group(path / image)
    metadata = group.ome_metadata()
    assert isinstance(metadata, v05.Image)
    (multiscales,) = metadata.multiscales
    scale, translation = _transformed(multiscales.datasets[0].coordinateTransformations)
    arrays = [group[dataset.path].to_zarr_python()[...] for dataset in multiscales.datasets]
    return Seen(
        data=arrays[0],
        levels=arrays[1:],
        dims="".join(axis.name for axis in multiscales.axes),
        name=multiscales.name,
        scale=scale,
        translation=translation,
        units={axis.name: axis.unit for axis in multiscales.axes if getattr(axis, "unit", None)},
        channels=[channel.label for channel in metadata.omero.channels],
        colors=[channel.color for channel in metadata.omero.channels],
    )


def ome_zarr_models(path, image):
    import ome_zarr_models
    import zarr
    from ome_zarr_models.v05 import Image

    group = zarr.open_group(path / image, mode="r")
    opened = ome_zarr_models.open_ome_zarr(group, version="0.5")
    assert isinstance(opened, Image)
    attributes = opened.ome_attributes
    omero = attributes.omero
    omero = omero if isinstance(omero, dict) else omero.model_dump()
    (multiscales,) = attributes.multiscales
    scale, translation = _transformed(multiscales.datasets[0].coordinateTransformations)
    return Seen(
        data=group[multiscales.datasets[0].path][...],
        dims="".join(axis.name for axis in multiscales.axes),
        name=multiscales.name,
        scale=scale,
        translation=translation,
        units={axis.name: axis.unit for axis in multiscales.axes if axis.unit},
        channels=[channel["label"] for channel in omero["channels"]],
        colors=[channel["color"] for channel in omero["channels"]],
    )


def ome_zarr_py(path, image):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    (node,) = list(Reader(parse_url(str(path / image), mode="r"))())
    scale, translation = _transformed(node.metadata["coordinateTransformations"][0])
    axes = node.metadata["axes"]
    names = node.metadata["channel_names"]
    colors = []
    for (low, high), _ in zip(node.metadata["colormap"], names, strict=True):
        assert list(low) == [0, 0, 0]
        colors.append("".join(f"{round(255 * part):02X}" for part in high))
    return Seen(
        data=node.data[0].compute(),
        levels=[level.compute() for level in node.data[1:]],
        dims="".join(axis["name"] for axis in axes),
        name=node.metadata["name"],
        scale=scale,
        translation=translation,
        units={axis["name"]: axis["unit"] for axis in axes if "unit" in axis},
        channels=names,
        colors=colors,
    )


def bioio_ome_zarr(path, image):
    from bioio_ome_zarr import Reader

    reader = Reader(path / image)
    dims = reader.dims.order
    units = {
        dim.lower(): getattr(reader.dimension_properties, dim).unit
        for dim in dims
        if getattr(reader.dimension_properties, dim).unit not in (None, "dimensionless")
    }
    return Seen(
        data=reader.data,
        dims=dims.lower(),
        scale=[getattr(reader.scale, dim) if dim != "C" else 1.0 for dim in dims],
        units={dim: str(unit) for dim, unit in units.items()},
        name=reader.current_scene,
        channels=[str(name) for name in reader.channel_names],
    )


def iohub(path, image):
    from iohub import open_ome_zarr

    with open_ome_zarr(path / image, layout="fov", mode="r") as position:
        (multiscales,) = position.metadata.multiscales
        scale, translation = _transformed(multiscales.datasets[0].coordinate_transformations)
        assert position.scale[-len(scale) :] == scale
        return Seen(
            data=np.asarray(position["0"]),
            dims="".join(position.axis_names),
            scale=scale,
            translation=translation,
            units={axis.name: axis.unit for axis in position.axes if getattr(axis, "unit", None)},
            channels=position.channel_names,
            colors=[channel.color for channel in position.metadata.omero.channels],
        )


def ngff_zarr(path, image):
    import ngff_zarr

    opened = ngff_zarr.from_ngff_zarr(path / image, validate=True)
    images = opened.images
    dims = images[0].dims
    units = images[0].axes_units or {}
    channels = opened.metadata.omero.channels
    return Seen(
        data=images[0].data.compute(),
        levels=[level.data.compute() for level in images[1:]],
        dims="".join(dims),
        name=images[0].name,
        scale=[images[0].scale[dim] for dim in dims],
        translation=[images[0].translation[dim] for dim in dims],
        units={dim: unit for dim, unit in units.items() if unit},
        channels=[channel.label for channel in channels],
        colors=[channel.color for channel in channels],
    )


def zarrita(url, modules):
    """Read an image over HTTP, with zarrita under node.

    Parameters
    ----------
    url : str
        The URL of the image.
    modules : path
        The folder into which npm installed zarrita.
    """
    script = Path(modules) / _ZARRITA.name
    script.write_text(_ZARRITA.read_text())  # beside node_modules, where node finds zarrita
    found = subprocess.run(["node", str(script), url], stdout=subprocess.PIPE, check=True, timeout=100)
    header, _, pixels = found.stdout.partition(b"\n")
    stated = json.loads(header)
    return Seen(
        data=np.frombuffer(pixels, stated["dtype"]).reshape(stated["shape"]),
        **_described(stated["attributes"]),
    )


LIBRARIES = {
    "zarr-python": zarr_python,
    "tensorstore": tensorstore,
    "yaozarrs": yaozarrs,
    "ome-zarr-models": ome_zarr_models,
    "ome-zarr-py": ome_zarr_py,
    "bioio-ome-zarr": bioio_ome_zarr,
    "iohub": iohub,
    "ngff-zarr": ngff_zarr,
}
