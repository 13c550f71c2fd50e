"""The backend that a campaign tests, with its options.

Each campaign accepts ``--backend NAME`` and ``--option KEY=VALUE``, and saves separate figures for each such
variant.
"""

import argparse
import os
from dataclasses import dataclass, field
from typing import Any

DEFAULT = "ndtiff"
SUFFIXES = {"hdf5": ".h5", "ome-tiff": ".ome.tif"}
"""The suffixes of the backends whose datasets are one file."""
NDSTORAGE = "ndstorage"
"""The control, which uses only the library and must lose frames."""


@dataclass(frozen=True)
class Variant:
    """A backend and its options.

    Attributes
    ----------
    backend : str
    options : dict
        The options for every dataset of the campaign.
    """

    backend: str = DEFAULT
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """The suffix of result file names, such as ``ome-zarr-none``; empty for the default."""
        if self.backend == DEFAULT and not self.options:
            return ""
        values = [str(value) for value in self.options.values()]
        if self.backend != DEFAULT and not values:
            values = ["none"]
        return "-".join([self.backend, *values])

    @property
    def arguments(self) -> str:
        """The arguments that select this variant, with a leading space."""
        if self.backend == DEFAULT and not self.options:
            return ""
        pairs = "".join(f" --option {key}={value}" for key, value in self.options.items())
        return f" --backend {self.backend}{pairs}"

    @property
    def is_live(self) -> bool:
        """Whether other programs see each frame immediately."""
        return self.backend == "ome-zarr" and self.options.get("codec", "none") == "none"

    @property
    def is_one_file(self) -> bool:
        """Whether a dataset is one file."""
        return self.backend in SUFFIXES

    def path(self, folder: str, name: object) -> str:
        """Return the path of a dataset; one that is a file gets a folder of its own."""
        path = os.path.join(folder, str(name))
        return os.path.join(path, f"dataset{SUFFIXES[self.backend]}") if self.is_one_file else path

    def folder_of(self, path: str) -> str:
        """Return the folder that contains a dataset of :meth:`path` and nothing else."""
        return os.path.dirname(path) if self.is_one_file else path

    def with_files(self, file_bytes: int, frame_bytes: int, **more: Any) -> dict[str, Any] | None:
        """Return options with which the backend begins a new file after about this number of bytes.

        Parameters
        ----------
        file_bytes : int
        frame_bytes : int
            The size of a frame.
        **more
            Options for ``ome-zarr`` only.
        """
        if self.backend == "ndtiff":
            return {"max_file_bytes": max(4096, file_bytes), **self.options}
        if self.backend == "ome-zarr":
            # Where one ndtiff frame would fill a file, two frames form a shard, because growing shards are
            # harder.
            return {"shard": max(1, min(file_bytes // frame_bytes, 2**20)), **more, **self.options}
        return dict(self.options) or None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select a variant."""
    parser.add_argument(
        "--backend", default=DEFAULT, help="the backend, or ndstorage for the control, which must lose frames"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the backend"
    )


def variant_of(given: argparse.Namespace) -> Variant:
    """Return the variant that the arguments select."""
    options: dict[str, Any] = {}
    for pair in given.option:
        key, _, value = pair.partition("=")
        options[key] = int(value) if value.lstrip("-").isdigit() else value
    return Variant(given.backend, options)
