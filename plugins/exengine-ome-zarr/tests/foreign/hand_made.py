"""OME-Zarr datasets of every version, written with zarr-python and plain JSON."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import zarr

UNITS = {
    "t": ("time", "second"),
    "c": ("channel", None),
    "z": ("space", "micrometer"),
    "y": ("space", "micrometer"),
    "x": ("space", "micrometer"),
}
STEPS = {"t": 0.5, "c": 1.0, "z": 2.0, "y": 0.25, "x": 0.25}


def numbered(*shape, dtype="uint16"):
    """Return an array in which every pixel differs from its neighbours."""
    return (np.arange(np.prod(shape)) % 60_013).astype(dtype).reshape(shape)


def described(axes):
    items = []
    for axis in axes:
        kind, unit = UNITS.get(axis, ("other", None))
        items.append({"name": axis, "type": kind, **({"unit": unit} if unit else {})})
    return items


def multiscales(axes, factors=(1,), version="0.5", name="", paths=None):
    """Return the multiscales metadata for levels that are smaller in y and x by each of the factors."""
    datasets = []
    for number, factor in enumerate(factors):
        path = paths[number] if paths else str(number)
        scale = [STEPS.get(axis, 1.0) * (factor if axis in "yx" else 1) for axis in axes]
        transform = {"type": "scale", "scale": scale}
        if version == "0.6":
            transform |= {"input": {"path": path}, "output": {"name": "intrinsic"}}
        datasets.append({"path": path, "coordinateTransformations": [transform]})
    content = {"datasets": datasets}
    if name:
        content["name"] = name
    if version == "0.6":
        content["coordinateSystems"] = [
            {"name": "world", "axes": described(axes)[:0]},
            {"name": "intrinsic", "axes": described(axes)},
        ]
    else:
        content["axes"] = described(axes)
    if version == "0.4":
        content["version"] = "0.4"
    return [content]


def omero(*labels):
    return {
        "channels": [
            {"label": label, "color": f"{number:02X}FF00", "active": True}
            for number, label in enumerate(labels)
        ]
    }


def group(path, ome, version="0.5", attributes=None):
    """Write the metadata of a group."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    attributes = attributes or {}
    if version == "0.4":
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({**attributes, **ome}))
    else:
        attributes = {"ome": {"version": version, **ome}, **attributes}
        (path / "zarr.json").write_text(
            json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes})
        )
    return path


def array(path, data, version="0.5", **options):
    """Write an array; the options are those of ``zarr.create_array``."""
    zarr_format = 2 if version == "0.4" else 3
    if zarr_format == 2:
        options.setdefault("chunk_key_encoding", {"name": "v2", "separator": "/"})
    options.setdefault("chunks", (*(1,) * (data.ndim - 2), *data.shape[-2:]))
    made = zarr.create_array(path, shape=data.shape, dtype=data.dtype, zarr_format=zarr_format, **options)
    made[...] = data
    return made


def image(
    path, data, axes="tczyx", version="0.5", *, labels=(), factors=(1,), name="", attributes=None, **options
):
    """Write an image and its levels, and return the path."""
    ome = {"multiscales": multiscales(axes, factors, version, name)}
    if labels:
        ome["omero"] = omero(*labels)
    group(path, ome, version, attributes)
    for number, factor in enumerate(factors):
        array(Path(path) / str(number), data[..., ::factor, ::factor], version, **options)
    return Path(path)


def series(path, images, version="0.5", *, listed=True, names=None, **options):
    """Write images in the bioformats2raw layout."""
    group(path, {"bioformats2raw.layout": 3}, version)
    for number, data in enumerate(images):
        image(Path(path) / str(number), data, version=version, name=names[number] if names else "", **options)
    if listed:
        group(Path(path) / "OME", {"series": [str(number) for number in range(len(images))]}, version)
    return Path(path)


def plate(path, wells, version="0.5", **options):
    """Write a plate from a dict of well path -> list of images."""
    rows = sorted({well.split("/")[0] for well in wells})
    columns = sorted({well.split("/")[1] for well in wells})
    content = {
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": [
            {
                "path": well,
                "rowIndex": rows.index(well.split("/")[0]),
                "columnIndex": columns.index(well.split("/")[1]),
            }
            for well in wells
        ],
    }
    group(path, {"plate": content}, version)
    for well, images in wells.items():
        group(
            Path(path) / well,
            {"well": {"images": [{"path": str(field)} for field in range(len(images))]}},
            version,
        )
        for field, data in enumerate(images):
            image(Path(path) / well / str(field), data, version=version, **options)
    return Path(path)


def zipped(folder, target, *, method=zipfile.ZIP_STORED, top=""):
    """Pack a folder into an archive and delete the folder."""
    with zipfile.ZipFile(target, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, top + file.relative_to(folder).as_posix())
    shutil.rmtree(folder)
    return target


def edit(path, change):
    """Change a JSON file with a function that changes the value in place or returns a new value."""
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))
