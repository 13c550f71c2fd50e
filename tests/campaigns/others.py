"""Reads an OME-Zarr dataset with zarr-python and tensorstore, without ExEngine.

The libraries run in a separate process, because they start threads, and a campaign forks. Each request and
each answer is a line of JSON. Frames are located only through the OME metadata.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from writer import Job

PROGRAMS = ("zarr", "tensorstore")
_DIMENSIONS = {"t": "time", "c": "channel", "z": "z"}


class Others:
    """The process for the other programs, and a context manager that ends it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> "Others":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def faults(self, job: Job, numbers: Iterable[int], path: str | None = None) -> list[str]:
        """Return the faults that these programs found, by program and frame.

        Parameters
        ----------
        job : Job
        numbers : iterable of int
            The frames that they must find.
        path : str, optional
            The path of the dataset, if it differs from that of the job.
        """
        request = {"job": json.loads(job.to_json()), "path": path or job.path, "numbers": list(numbers)}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return list(json.loads(answer)) if answer else ["the process of the other programs has ended"]


# -- in the process ------------------------------------------------------------------------------


def _zarr(path: str) -> Callable[..., Any]:
    import zarr

    return zarr.open_array(path, mode="r", zarr_format=3).__getitem__


def _tensorstore(path: str) -> Callable[..., Any]:
    import tensorstore

    store = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}, open=True, read=True
    ).result()
    return lambda index: store[index].read().result()


_OPEN = {"zarr": _zarr, "tensorstore": _tensorstore}


class Images:
    """The images of a dataset, found by their OME metadata.

    Parameters
    ----------
    path : str
    program : str
        One of ``PROGRAMS``.
    """

    def __init__(self, path: str, program: str) -> None:
        self._path, self._program = Path(path), program
        self.image = functools.lru_cache(maxsize=64)(self._image)

    def _ome(self, folder: Path) -> dict[str, Any]:
        return dict(json.loads((folder / "zarr.json").read_text())["attributes"]["ome"])

    @functools.cached_property
    def _paths(self) -> dict[str, Path]:
        """The folder of each position, by its name; that of the only image if there are no positions."""
        root = self._ome(self._path)
        if "bioformats2raw.layout" not in root:
            return {"": self._path}
        folders = [self._path / name for name in self._ome(self._path / "OME")["series"]]
        return {self._ome(folder)["multiscales"][0]["name"]: folder for folder in folders}

    def _image(self, name: str) -> tuple[Callable[..., Any], list[str], list[str]]:
        """Return a function that reads an image, its dimensions before y and x, and its channel names."""
        folder = self._paths[name]
        ome = self._ome(folder)
        scales = ome["multiscales"][0]
        dims = [axis["name"] for axis in scales["axes"]][:-2]
        channels = [channel["label"] for channel in ome.get("omero", {}).get("channels", ())]
        return _OPEN[self._program](str(folder / scales["datasets"][0]["path"])), dims, channels

    def read(self, axes: dict[str, Any]) -> "np.ndarray[Any, Any]":
        """Return the frame at some coordinates."""
        read, dims, channels = self.image(str(axes.get("position", "")))
        places = [axes[_DIMENSIONS[dim]] for dim in dims]
        index = [channels.index(place) if isinstance(place, str) else place for place in places]
        return np.asarray(read(tuple(index)))


def _look(request: dict[str, Any]) -> list[str]:
    job = Job(**request["job"])
    found = []
    for program in PROGRAMS:
        images = Images(request["path"], program)
        for number in request["numbers"]:
            try:
                good = np.array_equal(images.read(job.axes(number)), job.pixels(number))
            except Exception as error:
                found.append(
                    f"{program}, frame {number}: {type(error).__name__}: {' '.join(str(error).split())}"[:300]
                )
                break
            if not good:
                found.append(f"{program}, frame {number}: other pixels")
    return found


def main() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_look(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
