"""Passes datasets to napari and ndv as lazy arrays. napari finds the reader through ``napari.yaml``.

Frames stay on the disk until a viewer shows them. Missing frames are black.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from exengine.datasets.opening import open_dataset
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import ExEngineError
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.description import UNITS, plan_of

Layer = tuple[Any, dict[str, Any], str]
"""A layer in napari's format: pixels, keyword arguments of ``viewer.add_image``, and ``"image"``."""


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[Layer]] | None:
    """Return a function that reads a dataset into layers; None if the path contains no dataset.

    Parameters
    ----------
    path : str or sequence of str
        The path of a dataset. A sequence of several paths is not a dataset.
    """
    if not isinstance(path, str):
        if len(path) != 1:
            return None
        (path,) = path
    try:
        open_dataset(path).close()
    except ExEngineError:
        return None
    return _read


def _read(path: str | Sequence[str]) -> list[Layer]:
    # napari does not close the dataset. It stays open as long as its layers exist.
    return layers_of(open_dataset(path if isinstance(path, str) else path[0]))


def layers_of(dataset: DataStorage) -> list[Layer]:
    """Return one image layer per channel, or a single layer if there is no axis ``channel``.

    Parameters
    ----------
    dataset : DataStorage
        An open dataset. It must stay open as long as the layers are used.

    Raises
    ------
    UnsupportedOperationError
        If the frames cannot form one array, or dask is not installed.
    """
    plan = plan_of(dataset)
    pixels = dataset.as_array(missing=0)
    axes = list(dataset.axes)
    name = os.path.basename(str(dataset.path or "")) or "frames"
    is_rgb = pixels.ndim == len(axes) + 3 and pixels.shape[-1] in (3, 4)
    labels = [*axes, *(("y", "x") if is_rgb or pixels.ndim == len(axes) + 2 else ())]
    shared: dict[str, Any] = {"rgb": is_rgb, "metadata": {"path": dataset.path}}
    if "channel" not in axes:
        return [(pixels, {**shared, "name": name, **_space(labels, plan)}, "image")]
    place = axes.index("channel")
    del labels[place]
    layers: list[Layer] = []
    for number, position in enumerate(dataset.axes["channel"]):
        channel = plan.channels[number] if number < len(plan.channels) else None
        each = {**shared, "name": str(position) if channel is None else channel.name}
        if not is_rgb:
            each["blending"] = "additive"
            if channel is not None and channel.color:
                each["colormap"] = f"#{channel.color.removeprefix('#')}"
        selected = pixels[(slice(None),) * place + (number,)]
        layers.append((selected, {**each, **_space(labels, plan)}, "image"))
    return layers


def _space(labels: list[str], plan: SourcePlan) -> dict[str, Any]:
    """Return the name, scale and unit of each axis. The unit is the pixel if the scale is unknown."""
    if not labels:
        return {}
    y, x = plan.pixel_size_um or (1.0, 1.0)
    steps = {"y": y, "x": x, "z": plan.z_step_um, "time": plan.interval_s}
    known = {axis: step for axis, step in steps.items() if step and math.isfinite(step)}
    if plan.pixel_size_um is None:
        del known["y"], known["x"]
    return {
        "axis_labels": labels,
        "scale": [known.get(axis, 1.0) for axis in labels],
        "units": [UNITS[axis] if axis in known else "pixel" for axis in labels],
    }


def show_in_napari(dataset: DataStorage) -> None:
    """Open a dataset in napari, and wait until its window is closed.

    Raises
    ------
    ModuleNotFoundError
        If napari is not installed.
    """
    import napari

    viewer = napari.Viewer()
    for pixels, options, _ in layers_of(dataset):
        viewer.add_image(pixels, **options)
    napari.run()


def show_in_ndv(dataset: DataStorage) -> None:
    """Open a dataset in ndv, and wait until its window is closed.

    Raises
    ------
    ModuleNotFoundError
        If ndv is not installed.
    """
    import ndv

    ndv.imshow(dataset.to_xarray()["image"])
